//! Who a pid is, read while it may still be there.
//!
//! Owns: the bounded look into `/proc/<pid>`. Must not: trust what it finds: names are the process's own choice.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Culprit;
use crate::look;

/// Arguments of a command line that are kept.
const MAX_ARGUMENTS: usize = 64;

/// Names processes for one drain, each looked up once.
#[derive(Debug, Default)]
pub(super) struct Culprits {
    known: HashMap<i32, Culprit>,
}

impl Culprits {
    /// The process of an event. `None` for pid 0: a process outside our pid namespace, or a watch that has no pid.
    pub(super) fn name(&mut self, pid: i32) -> Option<Culprit> {
        (pid > 0).then(|| self.known.entry(pid).or_insert_with(|| look(pid)).clone())
    }
}

fn look(pid: i32) -> Culprit {
    let exe: Option<PathBuf> = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    // Its arguments are in its memory, which may be anything that it has mapped there.
    let bytes = look::command_line(pid).unwrap_or_default();
    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let cmdline = if text.is_empty() {
        Vec::new()
    } else {
        text.split(|b| *b == 0).take(MAX_ARGUMENTS).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
    };
    Culprit { pid, exe, cmdline }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_named_by_program_and_arguments() {
        let me = Culprits::default().name(std::process::id() as i32).expect("a pid has a culprit");
        assert_eq!(me.exe, std::env::current_exe().ok());
        assert_eq!(me.cmdline.first().map(String::as_str), std::env::args().next().as_deref());
    }

    #[test]
    fn a_process_that_is_gone_is_still_told_by_its_pid() {
        let gone = Culprits::default().name(i32::MAX).expect("a pid has a culprit");
        assert_eq!(gone, Culprit { pid: i32::MAX, exe: None, cmdline: vec![] });
    }
}

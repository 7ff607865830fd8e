//! Calls that stand for each other: which of them a program makes is the whim of its C library, of the kernel or of timing,
//! so that learning one means the others.
//!
//! Owns: the shape of `seccomp-profiles/families.json`, read as strictly as any input, and widening a set by it. Must not:
//! know a workload, or bring in what opens a way out.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::syscalls;

/// Format version.
const VERSION: u32 = 1;
const DOCUMENT: &str = include_str!("../../seccomp-profiles/families.json");

static FAMILIES: LazyLock<Families> =
    LazyLock::new(|| Families::parse(DOCUMENT).expect("the embedded families are parsed by a test"));

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Families {
    version: u32,
    /// For people who read the file.
    #[serde(rename = "about")]
    _about: String,
    families: Vec<Family>,
    /// What the layer for every process has only through the 32-bit interface.
    own_32_bit: Own,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    members: BTreeSet<String>,
    reason: String,
}

/// Calls of which one means all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Family {
    name: String,
    /// Calls that bring the members in, and are none.
    #[serde(default)]
    when: BTreeSet<String>,
    /// They are brought in by anything.
    #[serde(default)]
    whenever: bool,
    members: BTreeSet<String>,
    reason: String,
}

impl Families {
    fn parse(text: &str) -> Result<Families> {
        let context = "failed to read the families of system calls";
        let families: Families = serde_json::from_str(text).context(context)?;
        ensure!(families.version == VERSION, "{context}: expected version {VERSION}, found {}", families.version);
        let own = (&families.own_32_bit.members, &families.own_32_bit.reason, "own-32-bit");
        let all = families.families.iter().map(|f| (&f.members, &f.reason, f.name.as_str())).chain([own]);
        for (members, reason, name) in all {
            ensure!(!reason.trim().is_empty() && !name.is_empty(), "{context}: {name:?} has no name or no reason");
            ensure!(!members.is_empty(), "{context}: {name} has no members");
        }
        let named = families.families.iter().flat_map(|f| f.members.iter().chain(&f.when));
        for call in named.chain(&families.own_32_bit.members) {
            ensure!(exists(call, true), "{context}: there is no system call {call:?}");
        }
        Ok(families)
    }
}

/// Whether there is such a call, natively, or with `compat` through the 32-bit interface.
fn exists(name: &str, compat: bool) -> bool {
    let plain = !name.contains([':', '#']);
    plain && (syscalls::parse(name).is_some() || compat && syscalls::parse(&format!("i386:{name}")).is_some())
}

/// Adds to the names learnt those that stand for them. `compat`: the 32-bit interface is used, which has names of its own.
pub fn widen(names: &mut BTreeSet<String>, compat: bool) {
    if compat {
        names.extend(FAMILIES.own_32_bit.members.iter().cloned());
    }
    // One family may bring in what another begins with.
    loop {
        let before = names.len();
        for family in &FAMILIES.families {
            let begun = family.whenever || family.members.iter().chain(&family.when).any(|name| names.contains(name));
            if begun {
                names.extend(family.members.iter().filter(|name| exists(name, compat)).cloned());
            }
        }
        if names.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widened(names: &[&str]) -> BTreeSet<String> {
        let mut all = names.iter().map(|name| name.to_string()).collect();
        widen(&mut all, false);
        all
    }

    #[test]
    fn every_family_names_real_calls_and_a_reason() {
        let families = Families::parse(DOCUMENT).unwrap();
        assert!(families.families.len() > 20);
        let names: BTreeSet<&str> = families.families.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names.len(), families.families.len());
    }

    #[test]
    fn a_family_with_an_unknown_call_or_field_or_without_a_reason_is_refused() {
        let with = |family: &str| {
            let own = r#"{"members":["sigreturn"],"reason":"r"}"#;
            Families::parse(&format!(r#"{{"version":1,"about":"","families":[{family}],"own-32-bit":{own}}}"#))
        };
        assert!(with(r#"{"name":"n","members":["read"],"reason":"r"}"#).is_ok());
        let refused = |family: &str| format!("{:#}", with(family).unwrap_err());
        assert!(refused(r#"{"name":"n","members":["raed"],"reason":"r"}"#).contains("raed"));
        assert!(refused(r#"{"name":"n","when":["raed"],"members":["read"],"reason":"r"}"#).contains("raed"));
        assert!(refused(r#"{"name":"n","members":["read"],"reason":" "}"#).contains("no reason"));
        assert!(refused(r#"{"name":"n","members":[],"reason":"r"}"#).contains("no members"));
        assert!(refused(r#"{"name":"n","members":["read"],"reason":"r","x":1}"#).contains("unknown field"));
    }

    #[test]
    fn one_way_to_write_means_the_others_and_a_listener_may_accept_in_either_way() {
        let all = widened(&["pwrite64", "listen"]);
        assert!(["pwritev", "writev", "preadv2", "accept4", "accept", "sendmsg"].iter().all(|n| all.contains(*n)));
        assert!(!all.contains("connect") && !all.contains("execve"), "{all:?}");
    }

    #[test]
    fn who_was_never_seen_to_make_a_file_may_make_a_temporary_one_and_remove_it_but_no_program_of_it_and_no_symbolic_link()
     {
        let all = widened(&["openat"]);
        // A multipart body in Go, a NamedTemporaryFile in Python, sem_open(3) and shm_open(3) in the C library.
        for name in ["unlinkat", "fsync", "rename", "mkdir", "rmdir", "ftruncate", "fallocate", "link", "linkat"] {
            assert!(all.contains(name), "{name}");
        }
        for name in ["chmod", "fchmod", "fchmodat", "symlink", "symlinkat", "mknodat", "setxattr"] {
            assert!(!all.contains(name), "{name}");
        }
        assert!(widened(&["symlink"]).contains("symlinkat") && !widened(&["link"]).contains("symlink"));
    }

    #[test]
    fn whatever_was_learnt_the_tools_of_operators_have_what_they_need_and_nothing_that_an_intruder_needs() {
        let all = widened(&["openat"]);
        let tools =
            ["pipe2", "sendfile", "copy_file_range", "utimensat", "clone", "vfork", "wait4", "setpgid", "setsid"];
        let more = ["kill", "epoll_create1", "epoll_pwait", "eventfd2", "inotify_init", "inotify_add_watch", "dup2"];
        for name in tools.into_iter().chain(more) {
            assert!(all.contains(name), "{name}");
        }
        let not = ["chmod", "fchmodat", "fchmod", "symlink", "mknod", "setxattr", "socket", "connect", "bind"];
        for name in not.into_iter().chain(["splice", "tee", "clone3", "socketpair", "setuid", "setns", "unshare"]) {
            assert!(!all.contains(name), "{name}");
        }
    }

    #[test]
    fn names_of_the_32_bit_interface_come_with_it_only() {
        let mut all = BTreeSet::from(["openat".to_string()]);
        widen(&mut all, true);
        assert!(all.contains("stat64") && all.contains("mmap2"));
        assert!(!widened(&["openat"]).contains("stat64"));
    }

    #[test]
    fn no_family_brings_in_a_way_out() {
        const NEVER: [&str; 33] = [
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "mount",
            "umount2",
            "move_mount",
            "open_tree",
            "fsopen",
            "fsmount",
            "pivot_root",
            "chroot",
            "unshare",
            "setns",
            "add_key",
            "keyctl",
            "request_key",
            "bpf",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "userfaultfd",
            "perf_event_open",
            "memfd_create",
            "memfd_secret",
            "open_by_handle_at",
            "name_to_handle_at",
            "personality",
            "execveat",
            "pidfd_getfd",
            "vmsplice",
            "modify_ldt",
            "connect",
            "socket",
        ];
        for family in &FAMILIES.families {
            for never in NEVER {
                assert!(!family.members.contains(never), "{} of {}", never, family.name);
            }
        }
        // Nor all families together.
        let harmless: Vec<String> = FAMILIES.families.iter().flat_map(|f| f.members.iter().cloned()).collect();
        let all = widened(&harmless.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(NEVER.iter().all(|never| !all.contains(*never)));
        for name in &all {
            assert!(!super::super::baseline::forbids_call(name), "{name}");
        }
    }
}

//! `lithifyctl status`: one line a container. Must not: act on one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::learning::{self, Learning};
use super::{A_CELL, A_FIELD, A_SENTENCE, Call, Outcome, plain, short};
use crate::events::clock;
use crate::learn::presence;
use crate::policy::{Mode, values, word};
use crate::profile::Stage;
use crate::record::{Phase, ProcessRef, Record};

const HELP: &str = "\
usage: lithifyctl status [--json]

One line a container: id, workload, stage ('(set)' where a mode was chosen, so that it does not move by itself), rootfs, response,
generation, breaches, the path of the last breach with its age, the container's age, and its state: with the profile that is
enforced and the last refusal; while learning and observing with how far that has come, and what it waits for. Containers that a hook
records under another runtime are listed as well. UNPROTECTED means that the process which watches and answers is gone; the
exit status is 1 then, and when a record can't be read.
";

/// Whether a container is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Its supervisor lives.
    Watched,
    /// Its workload has ended; there is nothing to watch.
    Ended,
    /// Its supervisor is gone, and nobody said that the workload has ended.
    Gone,
}

/// Whether a process is still the one that was meant: alive, no zombie, and with the same start time.
pub fn lives(process: ProcessRef) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)) else { return false };
    // The program's name may hold anything, parentheses too: fields are counted after its last one (proc_pid_stat(5)).
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = fields.first().copied().unwrap_or("X");
    let start = fields.get(19).and_then(|f| f.parse::<u64>().ok());
    !matches!(state, "Z" | "X" | "x") && start == Some(process.start_time_ticks)
}

/// Whether the container of this record is watched at this moment.
pub fn guard(record: &Record) -> Guard {
    match record.phase {
        Phase::Stopped => Guard::Ended,
        Phase::Created | Phase::Running | Phase::Restarting | Phase::Paused if lives(record.supervisor) => {
            Guard::Watched
        }
        Phase::Created | Phase::Running | Phase::Restarting | Phase::Paused => Guard::Gone,
    }
}

/// Prints all containers.
///
/// # Errors
/// When the state folder can't be read, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    if let Some(given) = call.next(args)? {
        return Err(given.refuse(&[]));
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let settings = call.readable_settings();
    let records = Record::list(&settings.state_dir)?;
    // What can't be listed is nobody's: a container is none the worse for it.
    let mut collectors = presence::list(&settings.state_dir).unwrap_or_default();
    let mut learning: Vec<Option<Learning>> = Vec::new();
    for (_, record) in &records {
        learning.push(record.as_ref().ok().filter(|r| r.policy.mode.records()).map(|record| {
            let own = collectors.iter().position(|c| c.container == record.id && c.workload == record.workload);
            let own = own.map(|at| collectors.swap_remove(at));
            Learning::of(&settings, &record.workload, record.revision.as_deref(), own.as_ref())
        }));
    }
    let wrong = records.iter().any(|(_, r)| r.as_ref().map_or(true, |r| guard(r) == Guard::Gone));
    if call.json {
        let supervised = records.iter().zip(&learning).map(|((dir, record), learning)| as_json(dir, record, learning));
        let others = collectors.iter().map(|entry| learning::as_json(&settings, entry));
        let list: Vec<_> = supervised.chain(others).collect();
        call.print_json(&list)?;
    } else {
        let mut rows = vec![
            ["ID", "WORKLOAD", "STAGE", "ROOTFS", "RESPONSE", "GEN", "BREACHES", "LAST BREACH", "AGE", "STATE"]
                .map(String::from),
        ];
        for ((dir, record), learning) in records.iter().zip(&learning) {
            rows.push(match record {
                Ok(record) => row(record, learning.as_ref()),
                Err(e) => unreadable(dir, e),
            });
        }
        rows.extend(collectors.iter().map(|entry| learning::row(&settings, entry)));
        print_table(call, &rows)?;
    }
    Ok(if wrong { Outcome::Wrong } else { Outcome::Well })
}

fn row(r: &Record, learning: Option<&Learning>) -> [String; 10] {
    // What was only reported counts as well.
    let breach = r.last_breach.as_ref().map(|breach| (&breach.path, &breach.time));
    let refusal = r.last_refusal.as_ref().map(|refusal| (&refusal.what, &refusal.time));
    let last = breach.into_iter().chain(refusal).max_by_key(|(_, time)| clock::parse(time));
    let last = last.map_or("-".to_string(), |(what, time)| format!("{} ({} ago)", short(what, A_CELL), age(time)));
    let state = match guard(r) {
        Guard::Gone => "UNPROTECTED: supervisor is gone".to_string(),
        Guard::Watched | Guard::Ended => word(&r.phase),
    };
    let learning = learning.filter(|_| guard(r) == Guard::Watched).map(|l| l.text(r.policy.mode, r.policy.auto));
    let learning = learning.map(|text| format!(", {}", short(&text, A_SENTENCE)));
    let degraded = match guard(r) {
        Guard::Watched | Guard::Ended if !r.degraded.is_empty() => {
            let reasons: Vec<String> = r.degraded.iter().map(|reason| short(reason, A_FIELD)).collect();
            format!(", degraded: {}", reasons.join("; "))
        }
        Guard::Watched | Guard::Ended | Guard::Gone => String::new(),
    };
    let enforced = r.profile.as_ref().map(|profile| format!(", profile {}", as_named(profile)));
    let refused = r.last_refusal.as_ref().map(|last| {
        let plural = if r.refusals == 1 { "" } else { "s" };
        let (count, what, program) = (r.refusals, short(&last.what, A_CELL), short(&last.program, A_CELL));
        format!(", {count} refusal{plural}, the last {what} by {program} ({} ago)", age(&last.time))
    });
    let state =
        [state, enforced.unwrap_or_default(), refused.unwrap_or_default(), learning.unwrap_or_default(), degraded]
            .concat();
    [
        r.id.chars().take(12).collect(),
        r.workload.clone(),
        stage(r),
        word(&r.policy.rootfs),
        word(&r.response),
        r.generation.to_string(),
        r.breaches.to_string(),
        last,
        age(&r.created_at),
        state,
    ]
}

/// Where the container itself stands; its profile may have moved on since it began.
fn stage(r: &Record) -> String {
    let stage = match r.policy.mode {
        Mode::Learn => word(&Stage::Learning),
        Mode::Observe => word(&Stage::Observing),
        // Of immutability alone `enforcing` would promise too much.
        Mode::Enforce if r.profile.is_none() => "immutable".to_owned(),
        Mode::Enforce => word(&Stage::Enforcing),
        mode @ (Mode::Off | Mode::Auto) => word(&mode),
    };
    if r.policy.auto { stage } else { stage + " (set)" }
}

/// `WORKLOAD/REVISION` as the verbs of `profile` take it.
fn as_named(profile: &str) -> String {
    match profile.rsplit_once('/') {
        Some((workload, digest)) => format!("{workload}@{}", digest.get(..12).unwrap_or(digest)),
        None => profile.to_owned(),
    }
}

fn unreadable(dir: &std::path::Path, e: &anyhow::Error) -> [String; 10] {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut row = ["-"; 10].map(String::from);
    row[0] = name.chars().take(12).collect();
    row[9] = format!("UNREADABLE: {e:#}");
    row
}

fn as_json(dir: &PathBuf, record: &Result<Record>, learning: &Option<Learning>) -> serde_json::Value {
    match record {
        Ok(record) if learning.is_some() => {
            json!({"protected": guard(record) != Guard::Gone, "record": record, "learning": learning})
        }
        Ok(record) => json!({"protected": guard(record) != Guard::Gone, "record": record}),
        Err(e) => json!({"protected": false, "dir": dir, "error": format!("{e:#}")}),
    }
}

/// How long ago a time was, in its one or two largest units.
pub fn age(time: &str) -> String {
    let Some(then) = clock::parse(time) else { return "?".to_string() };
    let seconds = (clock::now_micros() - then).max(0) / 1_000_000;
    let rounded = match seconds {
        0..3600 => seconds,
        3600..86_400 => seconds / 60 * 60,
        _ => seconds / 3600 * 3600,
    };
    values::show_duration(Duration::from_secs(rounded as u64))
}

pub(super) fn print_table<const N: usize>(call: &mut Call<'_>, rows: &[[String; N]]) -> Result<()> {
    let cells: Vec<[String; N]> = rows.iter().map(|row| row.clone().map(|cell| plain(&cell))).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(60);
    for row in &cells {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(&format!("{cell:<width$}  ", width = width(column)));
        }
        writeln!(call.out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_not_taken_for_the_process_that_had_it() {
        let pid = std::process::id() as i32;
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let start = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
        assert!(lives(ProcessRef { pid, start_time_ticks: start }));
        assert!(!lives(ProcessRef { pid, start_time_ticks: start + 1 }));
        assert!(!lives(ProcessRef { pid: i32::MAX, start_time_ticks: start }));
    }
}

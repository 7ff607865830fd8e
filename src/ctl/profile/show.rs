//! `lithifyctl profile show WORKLOAD`: what it does, how sure that is, and why each entry is there. Must not: change it.

use anyhow::Result;
use serde_json::json;

use super::super::{Call, Outcome, plain, usage};
use super::{minute, resolve, short, words};
use crate::events::clock;
use crate::policy::{Auto, word};
use crate::profile::document::MAX_WITNESSES;
use crate::profile::estimate::percent_up;
use crate::profile::items::Section;
use crate::profile::{Behaviour, Profile, Progress, Support, stages};

const HELP: &str = "\
usage: lithifyctl profile show WORKLOAD[@REVISION]|FILE [--json]

What a workload was seen to do: each entry with how many generations and observation windows saw it, and when first; what
was done by sessions that were let in later (exec, health probes); what the baseline forbids, which is never learnt; and how
likely it is that something is still to come.
";

/// Widest name that the columns after it are aligned for.
const NAME_WIDTH: usize = 44;

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(given) = words(call, args, HELP, &mut [])? else { return Ok(Outcome::Well) };
    let [name] = given.as_slice() else { return Err(usage("expected one workload, or one file")) };
    let config = call.settings()?;
    let auto = &config.auto;
    let profile = resolve(&config, name)?;
    let progress = Progress::of(&profile);
    if call.json {
        call.print_json(&json!({
            "profile": profile,
            "progress": progress,
            "sentence": progress.to_string(),
            "waits-for": stages::waits_for(&profile, auto),
        }))?;
        return Ok(Outcome::Well);
    }
    head(call, &profile, &progress, auto)?;
    steering(call, &profile)?;
    behaviour(call, &profile, &profile.workload_behaviour, "")?;
    behaviour(call, &profile, &profile.exec_behaviour, "exec sessions: ")?;
    if !profile.forbidden.is_empty() {
        writeln!(call.out, "\nFORBIDDEN, and never learnt ({})", profile.forbidden.len())?;
        for (item, forbidden) in &profile.forbidden {
            line(call, &profile, item, &forbidden.seen, &forbidden.reason)?;
        }
    }
    Ok(Outcome::Well)
}

fn head(call: &mut Call<'_>, profile: &Profile, progress: &Progress, auto: &Auto) -> Result<()> {
    let revision = &profile.revision;
    let title = format!("{}, revision {}, {}", profile.workload, short(&revision.digest), word(&profile.stage));
    writeln!(call.out, "{}", plain(&title))?;
    let mut tell = |name: &str, value: String| -> Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        Ok(writeln!(call.out, "  {name:<13}{}", plain(&value))?)
    };
    let image = revision.image_name.as_ref().map_or(String::new(), |name| format!("{name}, "));
    tell("image", format!("{image}{}", revision.image))?;
    tell("args", revision.args.join(" "))?;
    tell("user", revision.user.clone())?;
    tell("mounts", revision.mounts.join("; "))?;
    let began = profile.generations.values().map(|g| g.started.as_str()).min().unwrap_or_default();
    let windows: u64 = profile.generations.values().map(|g| u64::from(g.windows)).sum();
    let cut = profile.generations.values().filter(|g| !g.ended).count();
    let mut seen = format!("{}, {}", count(profile.generations.len() as u64, "generation"), count(windows, "window"));
    if let Some(seconds) = progress.window_seconds {
        seen.push_str(&format!(" of {seconds} s"));
    }
    seen.push_str(&format!(", {} to {} UTC", minute(began), minute(profile.until().unwrap_or_default())));
    if cut > 0 {
        seen.push_str(&format!("; {cut} cut short or still running"));
    }
    tell("seen", seen)?;
    tell("next window", progress.to_string())?;
    let starts = progress.next_start;
    tell(
        "next start",
        match starts.bound < 1.0 {
            true => format!(
                "the chance that it shows something new is under {} % (95 % confidence)",
                percent_up(starts.bound)
            ),
            false => format!(
                "nothing can be said yet: {} too few",
                if starts.total == 1 { "1 start is".into() } else { format!("{} starts are", starts.total) }
            ),
        },
    )?;
    tell("partial", progress.partial.join("; "))?;
    let steering = &profile.steering;
    let waits = stages::waits_for(profile, auto).unwrap_or_default();
    for (line, wanted) in waits.split_inclusive(", ").enumerate() {
        tell(if line == 0 { "waits for" } else { "" }, wanted.trim_end().to_owned())?;
    }
    tell(
        "held",
        if steering.held { "somebody holds it; see 'lithifyctl profile hold --release'".into() } else { String::new() },
    )?;
    tell("demoted", steering.demoted.as_ref().map_or(String::new(), |d| format!("{} UTC, {}", minute(&d.at), d.why)))?;
    tell(
        "began with",
        steering.candidate.as_ref().map_or(String::new(), |d| format!("what revision {} was seen to do", short(d))),
    )?;
    tell(
        "quiet",
        steering.quiet.as_ref().map_or(String::new(), |quiet| {
            let windows: u64 = quiet.generations.values().map(|n| u64::from(*n)).sum();
            let generations = count(quiet.generations.len() as u64, "generation");
            format!("nothing new since {} UTC, in {generations} and {}", minute(&quiet.since), count(windows, "window"))
        }),
    )?;
    tell(
        "canary",
        steering
            .canary
            .as_ref()
            .filter(|_| stages::leader(profile, auto, clock::now_micros()).is_some())
            .map_or(String::new(), |canary| {
                format!("container {} enforces first, since {} UTC", canary.container, minute(&canary.since))
            }),
    )?;
    let peaks = [
        profile.peaks.memory_bytes.map(|bytes| format!("memory {}", size(bytes))),
        profile.peaks.pids.map(|pids| count(pids, "task")),
        profile.peaks.cpu_millis.map(|millis| format!("{}.{:03} CPU", millis / 1000, millis % 1000)),
    ];
    tell("peaks", peaks.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// What was decided about it.
fn steering(call: &mut Call<'_>, profile: &Profile) -> Result<()> {
    let steering = &profile.steering;
    let lists = [
        ("WAITING for somebody to 'allow' or 'deny' it", &steering.waiting),
        ("ALLOWED by hand", &steering.allowed),
        ("DENIED by hand", &steering.denied),
    ];
    for (title, items) in lists {
        if !items.is_empty() {
            writeln!(call.out, "\n{title} ({})", items.len())?;
        }
        for (item, decision) in items {
            writeln!(call.out, "  {}\n    {}, {}", plain(item), minute(&decision.at), plain(&decision.why))?;
        }
    }
    if !steering.history.is_empty() {
        writeln!(call.out, "\nhistory ({})", steering.history.len())?;
    }
    for step in &steering.history {
        let (from, to) = (word(&step.from), word(&step.to));
        writeln!(call.out, "  {}  {from} to {to}: {}", minute(&step.at), plain(&step.why))?;
    }
    Ok(())
}

fn behaviour(call: &mut Call<'_>, profile: &Profile, behaviour: &Behaviour<Support>, whose: &str) -> Result<()> {
    for section in Section::ALL {
        let items = behaviour.section(section);
        if items.is_empty() {
            continue;
        }
        let title = match section {
            Section::Syscalls => "system calls",
            Section::DeniedSyscalls => "system calls refused",
            Section::Arguments => "arguments",
            Section::Capabilities => "capabilities used",
            Section::Writes => "paths written",
            Section::Programs => "programs run",
            Section::Listens => "addresses listened on",
            Section::Connects => "addresses connected to",
        };
        let heading = format!("{whose}{title} ({})", items.len());
        writeln!(call.out, "\n{heading:<NAME_WIDTH$}  {:>9} {:>8}  FIRST SEEN", "STARTS", "WINDOWS")?;
        for (name, seen) in items {
            let detail = match section {
                Section::Writes => behaviour.writes.get(&name).map_or(String::new(), write_detail),
                Section::Programs => behaviour.programs.get(&name).map_or(String::new(), |program| {
                    let mut words: Vec<&str> = program.origins.iter().map(|o| o.name()).collect();
                    if program.privileged {
                        words.push("gains privileges");
                    }
                    words.join(", ")
                }),
                _ => String::new(),
            };
            line(call, profile, &name, seen, &detail)?;
        }
    }
    Ok(())
}

fn line(call: &mut Call<'_>, profile: &Profile, name: &str, seen: &Support, detail: &str) -> Result<()> {
    let witnesses = seen.generations.len();
    // Beyond this many, only that there were as many is known.
    let more = if witnesses == MAX_WITNESSES && profile.generations.len() > MAX_WITNESSES { "+" } else { "" };
    let starts = format!("{witnesses}{more}/{}", profile.generations.len());
    let windows: u64 = seen.generations.values().map(|n| u64::from(*n)).sum();
    let windows = format!("{windows}{more}");
    let name = plain(name);
    let width = NAME_WIDTH - 2;
    if name.chars().count() > width {
        writeln!(call.out, "  {name}\n  {:<width$}  {starts:>9} {windows:>8}  {}", "", minute(&seen.first))?;
    } else {
        writeln!(call.out, "  {name:<width$}  {starts:>9} {windows:>8}  {}", minute(&seen.first))?;
    }
    if !detail.is_empty() {
        writeln!(call.out, "    {}", plain(detail))?;
    }
    Ok(())
}

fn write_detail(write: &crate::profile::behaviour::Write<Support>) -> String {
    let mut parts: Vec<String> = vec![write.operations.iter().map(word).collect::<Vec<_>>().join(" ")];
    if write.size_bytes > 0 {
        parts.push(size(write.size_bytes));
    }
    if write.directory {
        parts.push("a directory".to_string());
    }
    if write.executed {
        parts.push("EXECUTED".to_string());
    }
    if !write.by.is_empty() {
        parts.push(format!("by {}", write.by.iter().cloned().collect::<Vec<_>>().join(" ")));
    }
    if !write.refused.is_empty() {
        let names: Vec<&str> = write.refused.iter().map(String::as_str).collect();
        let all = if write.succeeded { "at times " } else { "" };
        parts.push(format!("{all}refused with {}", names.join(" ")));
    }
    parts.join(", ")
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Bytes in the largest unit that leaves something before the point.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

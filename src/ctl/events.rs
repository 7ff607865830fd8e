//! `lithifyctl events`: the journal, for people and programs. Must not: change it.

use std::os::fd::AsFd;

use anyhow::Result;

use super::{A_FIELD, Call, Outcome, plain, short, text, usage};
use crate::events::reader::{Filter, Follower, Reader};
use crate::events::{Event, EventType, clock};
use crate::policy::suggest::{quote, remedy};
use crate::policy::{suggest, values};

const HELP: &str = "\
usage: lithifyctl events [--follow] [--container ID] [--since T] [--type T] [--json]

Prints what happened, oldest first.

  --follow         go on with what happens next
  --container ID   of one container; the beginning of its id is enough
  --since T        not before a time (2026-01-31T12:00:00Z) or a while ago (10m)
  --type T         started, breach, restarted, escalated, exited, exec, learnt, forbidden, would-refuse, promoted,
                   waiting, demoted, removed or degraded
  --json           one CloudEvents 1.0 object a line
";

/// Prints events.
///
/// # Errors
/// When the journal can't be read, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let mut filter = Filter::default();
    let mut follow = false;
    while let Some(given) = call.next(args)? {
        match &given {
            super::Given::Option(name) if name == "follow" || name == "f" => follow = true,
            super::Given::Option(name) if name == "container" => filter.container = Some(text(args)?),
            super::Given::Option(name) if name == "since" => filter.since_micros = Some(since(&text(args)?)?),
            super::Given::Option(name) if name == "type" => filter.event_type = Some(event_type(&text(args)?)?),
            _ => return Err(given.refuse(&["follow", "container", "since", "type"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let data_dir = call.readable_settings().data_dir;
    let skipped = if follow {
        let mut follower = Follower::open(&data_dir, filter)?;
        // A reader of ours that has gone is noticed without waiting for the next event to write.
        while let Some(event) = follower.next_event(Some(std::io::stdout().as_fd()))? {
            print(call, &event)?;
            call.out.flush()?;
        }
        follower.reader().skipped()
    } else {
        let mut reader = Reader::open(&data_dir, filter)?;
        while let Some(event) = reader.next_event()? {
            print(call, &event)?;
        }
        reader.skipped()
    };
    if skipped > 0 {
        eprintln!("lithifyctl: skipped {skipped} lines of the journal that are no events; a crash tears one");
    }
    Ok(Outcome::Well)
}

fn since(text: &str) -> Result<i64> {
    if let Some(time) = clock::parse(text) {
        return Ok(time);
    }
    let ago = values::duration(text).map_err(|_| {
        usage(format!("--since {}: write a time like 2026-01-31T12:00:00Z or a duration like 10m", quote(text)))
    })?;
    Ok(clock::now_micros() - ago.as_micros() as i64)
}

fn event_type(name: &str) -> Result<EventType> {
    let names = EventType::ALL.map(EventType::short_name);
    EventType::from_name(name)
        .ok_or_else(|| usage(format!("--type {}: no such type; {}", suggest::quote(name), remedy(name, &names))))
}

fn print(call: &mut Call<'_>, event: &Event) -> Result<()> {
    if call.json {
        call.out.write_all(&event.to_line())?;
        return Ok(());
    }
    let id: String = event.subject.chars().take(12).collect();
    let mut line = format!("{} {:<12} {:<9}", plain(&event.time), plain(&id), event.event_type.short_name());
    // What tells most comes first; most lists and objects are for --json.
    const FIRST: [&str; 7] = ["workload", "generation", "kind", "path", "exe", "cmdline", "response"];
    let first = FIRST.iter().filter_map(|key| event.data.get_key_value(*key));
    let rest = event.data.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()));
    for (key, value) in first.chain(rest) {
        let shown = match value {
            serde_json::Value::String(text) if text.contains([' ', '"']) => format!("{text:?}"),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
            // What ran, and what of it was refused, is what an exec is about.
            serde_json::Value::Array(words) if key == "cmdline" || key == "refused" => {
                let words: Vec<&str> = words.iter().filter_map(serde_json::Value::as_str).collect();
                format!("{:?}", words.join(" "))
            }
            _ => continue,
        };
        line.push_str(&format!(" {}={}", plain(key), short(&shown, A_FIELD)));
    }
    Ok(writeln!(call.out, "{line}")?)
}

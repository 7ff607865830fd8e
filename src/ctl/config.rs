//! `lithifyctl config check FILE`. Must not: change the file, or stop at the first mistake.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Call, Given, Outcome, plain, usage};
use crate::policy::config::Config;
use crate::policy::document::{KEYS, SECTIONS};

/// Explains every mistake in a file.
///
/// # Errors
/// When the file can't be read, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let mut words = Vec::new();
    while let Some(given) = call.next(args)? {
        match given {
            Given::Word(word) if words.len() < 2 => words.push(word),
            other => return Err(other.refuse(&[])),
        }
    }
    if call.helped(&help())? {
        return Ok(Outcome::Well);
    }
    let mut words = words.into_iter();
    if words.next().is_none_or(|word| word != "check") {
        return Err(usage("expected 'config check [FILE]'"));
    }
    let named = words.next().map(PathBuf::from);
    let named = named.or_else(|| call.config.clone());
    let path =
        named.unwrap_or_else(|| Config::locate(None, std::env::var_os("LITHIFY_CONFIG").as_deref().map(Path::new)).0);
    let mistakes = Config::parse(&Config::read(&path)?).err().unwrap_or_default();
    let shown = path.display().to_string();
    if call.json {
        let list: Vec<_> = mistakes.iter().map(|m| serde_json::json!({"line": m.line, "message": m.message})).collect();
        call.print_json(&serde_json::json!({"file": shown, "mistakes": list}))?;
    } else if mistakes.is_empty() {
        writeln!(call.out, "{}: no mistakes", plain(&shown))?;
    } else {
        for mistake in &mistakes {
            writeln!(call.out, "{}:{}: {}", plain(&shown), mistake.line, plain(&mistake.message))?;
        }
    }
    Ok(if mistakes.is_empty() { Outcome::Well } else { Outcome::Wrong })
}

fn help() -> String {
    let mut text = "usage: lithifyctl config check [FILE] [--json]\n\nExplains every mistake in a configuration file; exit status \
                    1 if there is one.\n\nkeys:\n"
        .to_string();
    let is_section = |name: &str| SECTIONS.iter().any(|(section, _)| *section == name);
    for (name, what, _) in KEYS.iter().filter(|(name, ..)| !is_section(name)) {
        text.push_str(&format!("  {name:<26} {what}\n"));
    }
    for (section, keys) in SECTIONS {
        for (name, what, _) in keys {
            text.push_str(&format!("  {:<26} {what}\n", format!("[{section}] {name}")));
        }
    }
    text
}

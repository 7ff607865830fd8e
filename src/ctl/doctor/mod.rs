//! `lithifyctl doctor`: what this host has and lacks, each lack with its remedy.
//!
//! Owns: the list of checks and how it is shown. Must not: change the host.

pub mod engines;
pub mod host;

use anyhow::Result;
use serde::Serialize;

use super::{Call, Outcome, plain};
use crate::policy::config::Config;

const HELP: &str = "\
usage: lithifyctl doctor [--json]

Tries out what protection needs of this host, looks for engines and low-level runtimes, and says for everything that is
missing what to do. Exit status 1 if something needed is missing.
";

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// For the reader to know; nothing to do.
    Info,
    /// Something works less well than it could.
    Warn,
    /// Something needed is missing.
    Missing,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// A check without a remedy.
    pub fn new(name: &str, verdict: Verdict, found: impl Into<String>) -> Check {
        Check { name: name.to_string(), verdict, found: found.into(), remedy: None }
    }

    /// Adds what to do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Check {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Prints all checks.
///
/// # Errors
/// When standard output can't be written, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    if let Some(given) = call.next(args)? {
        return Err(given.refuse(&[]));
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let (config, check) = match call.settings() {
        Ok(config) => (config, Check::new("configuration", Verdict::Ok, "no mistakes")),
        Err(e) => {
            let check = Check::new("configuration", Verdict::Missing, format!("{e:#}"));
            (Config::default(), check.remedy("run 'lithifyctl config check FILE'; until then no container starts"))
        }
    };
    let groups = [
        ("kernel", host::kernel()),
        ("limits", host::limits()),
        ("node", [vec![check, host::program()], host::folders(&config)].concat()),
        ("low-level runtimes", engines::runtimes(&config)),
        ("engines", engines::engines()),
    ];
    let missing = groups.iter().flat_map(|(_, checks)| checks).filter(|c| c.verdict == Verdict::Missing).count();
    if call.json {
        let all: Vec<_> = groups
            .iter()
            .flat_map(|(group, checks)| checks.iter().map(move |c| serde_json::json!({"group": group, "check": c})))
            .collect();
        call.print_json(&serde_json::json!({"missing": missing, "checks": all}))?;
    } else {
        for (group, checks) in &groups {
            writeln!(call.out, "{group}")?;
            for c in checks {
                let mark = match c.verdict {
                    Verdict::Ok => "ok",
                    Verdict::Info => "-",
                    Verdict::Warn => "warn",
                    Verdict::Missing => "MISSING",
                };
                writeln!(call.out, "  {mark:<8} {}: {}", plain(&c.name), plain(&c.found))?;
                if let Some(remedy) = &c.remedy {
                    writeln!(call.out, "           → {}", plain(remedy))?;
                }
            }
        }
        let end = if missing == 0 {
            "nothing needed is missing".into()
        } else {
            format!("{missing} needed things are missing")
        };
        writeln!(call.out, "{end}")?;
    }
    Ok(if missing == 0 { Outcome::Well } else { Outcome::Wrong })
}

//! `lithifyctl profile merge`: several profiles as one, on standard output or in a file. Must not: change the store; that
//! is `import`.

use anyhow::{Context, Result};

use super::super::{Call, Given, Outcome, text, usage};
use super::resolve;
use crate::policy::suggest::quote;
use crate::profile::merge::{Across, merge};
use crate::profile::store;
use crate::sys::durable;

const HELP: &str = "\
usage: lithifyctl profile merge A B... [--out FILE] [--across-revisions] [--across-workloads]

Joins profiles of one revision, from replicas or nodes, into one; each is WORKLOAD, WORKLOAD@REVISION or a file. The order
does not matter, and one that is given twice counts once. With --across-revisions and --across-workloads, profiles of
others are joined as well, and the first one's names stay.

  --out FILE   write it there instead of to standard output; 'lithifyctl profile import FILE' puts it into the store
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let (mut names, mut out, mut across) = (Vec::new(), None, Across::default());
    while let Some(given) = call.next(args)? {
        match given {
            Given::Word(word) => names
                .push(word.into_string().map_err(|w| usage(format!("{} is not UTF-8", quote(&w.to_string_lossy()))))?),
            Given::Option(name) if name == "out" => out = Some(text(args)?),
            Given::Option(name) if name == "across-revisions" => across.revisions = true,
            Given::Option(name) if name == "across-workloads" => across.workloads = true,
            other => return Err(other.refuse(&["out", "across-revisions", "across-workloads"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let [first, others @ ..] = names.as_slice() else { return Err(usage("expected profiles to merge")) };
    let config = call.settings()?;
    let mut joined = resolve(&config, first)?;
    for name in others {
        joined = merge(&joined, &resolve(&config, name)?, across)?;
    }
    let bytes = store::encode(&joined)?;
    match out {
        Some(path) => {
            durable::write(path.as_ref(), &bytes, 0o600).with_context(|| format!("failed to write {path}"))?
        }
        None => call.out.write_all(&bytes)?,
    }
    Ok(Outcome::Well)
}

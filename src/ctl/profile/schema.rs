//! `lithifyctl profile schema`: the JSON Schema of a document. Must not: say other than what is read.

use anyhow::Result;

use super::super::{Call, Outcome, usage};
use super::words;
use crate::policy::suggest::{quote, remedy};
use crate::profile::schema;

const HELP: &str = "\
usage: lithifyctl profile schema observation|profile

Prints the JSON Schema (2020-12) of a document.
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(given) = words(call, args, HELP, &mut [])? else { return Ok(Outcome::Well) };
    let text = match given.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["observation"] => schema::OBSERVATION,
        ["profile"] => schema::PROFILE,
        [] => return Err(usage("expected 'observation' or 'profile'")),
        [other, ..] => {
            return Err(usage(format!(
                "no schema of {}; {}",
                quote(other),
                remedy(other, &["observation", "profile"])
            )));
        }
    };
    call.out.write_all(text.as_bytes())?;
    Ok(Outcome::Well)
}

//! `lithifyctl profile export WORKLOAD[@REVISION] --format F`: what was learnt, for other tools. Must not: change a profile.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::super::{Call, Given, Outcome, plain, text, usage, value};
use crate::policy::suggest::{quote, remedy};
use crate::profile::Progress;
use crate::profile::export::{Document, Format, Plan, docker, kubernetes, oci_seccomp, spo};
use crate::sys::durable;

const HELP: &str = "\
usage: lithifyctl profile export WORKLOAD[@REVISION]|FILE --format FORMAT [OPTIONS]

Prints what a profile means for another tool, so that it holds without lithify. Notes go to standard error.

formats:
  oci-seccomp   linux.seccomp of an OCI configuration; docker and podman --security-opt seccomp=FILE
  kubernetes    a part of a pod's specification, YAML, and the filter that it names
  spo           a SeccompProfile of the Security Profiles Operator, YAML
  docker        flags of docker run, one line, and the filter that they name

options:
  --out DIR       write the files there, which must exist; without it only the format's own text is printed
  --runtime NAME  the low-level runtime, e.g. runc or crun-1.8.1; without it what all known ones need is allowed
  --force         export a partial profile as well: what was not seen will be refused
  --json          print the text, the files and the notes as JSON
";

/// Prints, and with `--out` writes, a profile in another tool's terms.
///
/// # Errors
/// When the profile is not there, can't be trusted, or is partial; a file can't be written; or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let (mut name, mut format, mut out, mut runtime, mut force) = (None, None, None, None, false);
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(option) if option == "format" => {
                let word = text(args)?;
                let known = || usage(format!("unknown format {}; {}", quote(&word), remedy(&word, &Format::WORDS)));
                format = Some(Format::parse(&word).ok_or_else(known)?);
            }
            Given::Option(option) if option == "out" => out = Some(PathBuf::from(value(args)?)),
            Given::Option(option) if option == "runtime" => runtime = Some(text(args)?),
            Given::Option(option) if option == "force" => force = true,
            Given::Word(word) if name.is_none() => name = Some(word.to_string_lossy().into_owned()),
            other => return Err(other.refuse(&["format", "out", "runtime", "force"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let Some(name) = name else { return Err(usage("expected a workload")) };
    let Some(format) = format else {
        return Err(usage(format!("expected --format, one of {}", Format::WORDS.join(", "))));
    };
    let profile = super::resolve(&call.settings()?, &name)?;
    let partial = Progress::of(&profile).partial;
    if !partial.is_empty() && !force {
        bail!(
            "failed to export {}: the profile is partial: {}; what was not seen would be refused: learn longer, or use --force",
            quote(&name),
            partial.join("; ")
        );
    }
    let plan = Plan::of(&profile, runtime.as_deref())?;
    let folder = match &out {
        Some(folder) => std::path::absolute(folder)?.to_str().context("--out is not UTF-8")?.to_owned(),
        None => ".".to_string(),
    };
    let (shown, files) = render(&plan, format, &folder);
    if let Some(out) = &out {
        for file in &files {
            write(out, file)?;
        }
    }
    if call.json {
        let all: serde_json::Map<String, serde_json::Value> =
            files.into_iter().map(|file| (file.name, file.text.into())).collect();
        call.print_json(&json!({"text": shown, "files": all, "notes": plan.notes}))?;
    } else {
        call.out.write_all(shown.as_bytes())?;
        for note in &plan.notes {
            eprintln!("lithifyctl: note: {}", plain(note));
        }
    }
    Ok(Outcome::Well)
}

/// What is printed, and the files that belong to it.
fn render(plan: &Plan, format: Format, folder: &str) -> (String, Vec<Document>) {
    match format {
        Format::OciSeccomp => {
            let file = oci_seccomp::document(plan);
            (file.text.clone(), vec![file])
        }
        Format::Spo => {
            let file = spo::document(plan);
            (file.text.clone(), vec![file])
        }
        Format::Kubernetes => {
            let (file, filter) = kubernetes::documents(plan);
            (file.text.clone(), vec![file, filter])
        }
        Format::Docker => {
            let (words, filter) = docker::flags(plan, folder);
            (docker::line(&words) + "\n", vec![filter])
        }
    }
}

fn write(folder: &Path, file: &Document) -> Result<()> {
    let path = folder.join(&file.name);
    durable::write(&path, file.text.as_bytes(), 0o644)
        .with_context(|| format!("failed to write {}; --out must be a folder that can be written", path.display()))
}

//! Learning under a plain runc or crun, by the hooks that are shipped in `hooks/`.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bare::Runtime;
use crate::corner::Corner;
use crate::images::Image;
use crate::learn::{
    CRUN, WORK, is_of_the_work, nothing_is_left, profile, session_under_podman, status, work_through, working_bundle,
};
use crate::podman::{Podman, Under};
use crate::setup::{RUNC, Setup};

/// A shipped hook definition, for this build and the corner's configuration.
fn hook(setup: &Setup, file: &str) -> Result<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks").join(file);
    let mut hook: Value = serde_json::from_slice(&fs::read(&path).with_context(|| path.display().to_string())?)?;
    let ours = |hook: &mut Value| -> Result<()> {
        hook["path"] = json!(env!("CARGO_BIN_EXE_lithifyctl"));
        let args = hook["args"].as_array_mut().context("no arguments")?;
        args.splice(1..1, [json!("--config"), json!(setup.config)]);
        Ok(())
    };
    if hook["hook"].is_object() {
        ours(&mut hook["hook"])?;
    } else {
        for stage in hook["hooks"].as_object_mut().context("no hooks")?.values_mut() {
            stage.as_array_mut().into_iter().flatten().try_for_each(ours)?;
        }
    }
    Ok(hook)
}

#[test]
fn a_bundles_own_hooks_learn_under_plain_runc_and_plain_crun() -> Result<()> {
    for (runtime, corner) in [(RUNC, Corner::new()?), (CRUN, Corner::without_unified()?)] {
        let setup = Setup::new(&corner)?;
        let before = corner.traces()?;
        let bundle = working_bundle(&corner, "hooked")?;
        let hooks = hook(&setup, "bundle.json")?;
        bundle.edit(|spec| spec["hooks"] = hooks["hooks"].clone())?;
        work_through(&bundle, &Runtime::plain(runtime))?;
        is_of_the_work(&profile(&setup)?).context(runtime)?;
        nothing_is_left(&corner, &before)?;
    }
    Ok(())
}

#[test]
fn hooks_of_podman_learn_under_plain_runc_what_an_annotation_names_and_nothing_else() -> Result<()> {
    for (kind, annotation) in [("annotated", true), ("always", false)] {
        let corner = Corner::new()?;
        let setup = Setup::new(&corner)?;
        let podman = Podman::new(&corner, &setup)?;
        podman.load(Image::Busybox)?;
        podman.run(Under::Runc, &["--rm"], Image::Busybox, &["true"])?.success()?;
        let before = corner.traces()?;
        let dir = corner.path("hooks.d");
        fs::create_dir(&dir)?;
        for name in ["lithify-learn.json", "lithify-learn-stop.json"] {
            let hook = hook(&setup, &format!("oci/{kind}/{name}"))?;
            fs::write(format!("{dir}/{name}"), serde_json::to_vec(&hook)?)?;
        }
        let run = |options: &[&str], argv: &[&str]| -> Result<()> {
            let (cgroup, image) = (corner.cgroup(), Image::Busybox.reference());
            let fixed = ["--hooks-dir", &dir, "run", "--cgroup-parent", &cgroup];
            podman.ok(Under::Runc, &[&fixed, options, &[image.as_str()], argv].concat()).map(drop)
        };
        let (learn, off) = (["--annotation", "lithify.dev/mode=learn"], ["--annotation", "lithify.dev/mode=off"]);
        // Another one, which is not to be in the store afterwards.
        run(&[&["--rm"][..], if annotation { &[][..] } else { &off }].concat(), &["true"])?;
        run(
            &[&["--detach", "--name", "work"][..], if annotation { &learn[..] } else { &[] }].concat(),
            &["sh", "-c", WORK],
        )?;
        session_under_podman(&podman, Under::Runc)?;
        let told = status(&corner, &setup)?;
        ensure!(told.contains("not under lithify, learning"), "{told}");
        podman.ok(Under::Runc, &["--hooks-dir", &dir, "rm", "--force", "--time", "0", "work"])?;
        is_of_the_work(&profile(&setup)?).context(kind)?;
        nothing_is_left(&corner, &before)?;
    }
    Ok(())
}

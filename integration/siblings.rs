//! What a new revision of a workload begins with, whatever others call theirs.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::bare::{Bundle, Runtime};
use crate::corner::Corner;
use crate::journal::STARTED;
use crate::setup::Setup;

const RUN: &str = "$R run --bundle $B $ID </dev/null; code=$?; $R delete --force $ID 2>/dev/null; exit $code";

/// A pod's container that calls its workload `payments`.
fn pod<'c>(corner: &'c Corner, id: &str, namespace: &str) -> Result<Bundle<'c>> {
    let bundle = Bundle::new(corner, id, "echo worked")?;
    bundle.annotate("workload", "payments")?;
    bundle.edit(|spec| {
        spec["annotations"]["io.kubernetes.cri.container-type"] = json!("container");
        spec["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!(namespace);
    })?;
    Ok(bundle)
}

#[test]
fn a_new_revision_begins_with_what_is_enforced_whatever_was_learnt_since_in_another_namespace_or_by_hand() -> Result<()>
{
    let corner = Corner::new()?;
    let setup = Setup::with(&corner, "mode = \"auto\"\n")?;
    let before = corner.traces()?;
    let learn = |bundle: &Bundle<'_>| bundle.bash(&Runtime::lithify(&setup, &["--mode", "learn"]), RUN)?.success();
    let ours = pod(&corner, "ours", "shop")?;
    ensure!(learn(&ours)? == "worked");
    let ctl =
        |args: &[&str]| corner.run(&[&[env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config], args].concat());
    ctl(&["profile", "promote", "shop/payments", "--to", "enforcing", "--force"])?.success()?;
    let profiles = setup.data().join("profiles/shop%2Fpayments");
    let known: Vec<_> = fs::read_dir(&profiles)?.flatten().map(|file| file.file_name()).collect();
    let digest = known[0].to_string_lossy().replace(".json", "");

    // Another tenant's, and somebody's shell in ours.
    let theirs = pod(&corner, "theirs", "evil")?;
    ensure!(learn(&theirs)? == "worked");
    ensure!(fs::read_dir(setup.data().join("profiles/evil%2Fpayments"))?.count() == 1);
    ours.edit(|spec| spec["process"]["args"] = json!(["echo", "worked"]))?;
    ensure!(learn(&ours)? == "worked");
    fs::write(profiles.join("00000000000000000000000000000000.json"), "{")?;

    ours.edit(|spec| spec["process"]["args"] = json!(["sh", "-c", "echo next"]))?;
    let next = ours.bash(&Runtime::lithify(&setup, &[]), RUN)?.success()?;
    ensure!(next == "next", "{next}");
    let steps = setup.journal().of("dev.lithify.profile.promoted", &ours.id)?;
    ensure!(steps.len() == 1 && steps[0]["data"]["candidate"] == digest, "{steps:#?}");
    let started = setup.journal().of(STARTED, &ours.id)?;
    let started = started.last().map(|event| event["data"].clone()).unwrap_or_default();
    ensure!(started["mode"] == "observe", "{started:#?}");
    let degraded = started["degraded"].to_string();
    ensure!(degraded.contains("00000000000000000000000000000000.json"), "what was passed over is told: {started:#?}");

    let named = pod(&corner, "named", "evil")?;
    named.annotate("workload", "shop/payments")?;
    let refused = named.bash(&Runtime::lithify(&setup, &[]), RUN)?;
    ensure!(refused.code != 0 && refused.stderr.contains("within its Kubernetes namespace"), "{refused:?}");
    for bundle in [&ours, &theirs, &named] {
        fs::remove_dir_all(&bundle.path)?;
    }
    corner.left_nothing_since(&before)
}

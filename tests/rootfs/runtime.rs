//! The low-level runtimes with a sealed root: every mount point that they would make is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lithify::rootfs::mount_sealed;

use crate::support::*;

/// A busybox image with little more in it than the program, as an engine's root, and a bundle with runc's own config.json.
fn bundle(host: &Host) -> (PathBuf, PathBuf) {
    let base = host.make("image");
    fs::create_dir(base.join("bin")).unwrap();
    fs::create_dir(base.join("run")).unwrap();
    fs::create_dir(base.join("var")).unwrap();
    fs::copy("/bin/busybox", base.join("bin/busybox")).expect("these tests need busybox-static");
    for name in ["sh", "cat", "ls", "touch", "mount", "mkdir"] {
        std::os::unix::fs::symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    std::os::unix::fs::symlink("/run", base.join("var/run")).unwrap();
    let empty = host.make("empty");
    let (merged, _) = host.engine(&[base, empty], "");
    let bundle = host.make("bundle");
    let made = Command::new("runc").arg("spec").current_dir(&bundle).status().expect("these tests need runc");
    assert!(made.success());
    (merged, bundle)
}

fn run_sealed(runtime: &str) {
    let host = Host::new();
    // crun refuses a hybrid cgroup hierarchy; in this test's own mount namespace there is none.
    let _ = nix::mount::umount("/sys/fs/cgroup/unified");
    let (merged, bundle) = bundle(&host);
    fs::write(host.path("hosts"), "127.0.0.1 here\n").unwrap();
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["root"] = serde_json::json!({ "path": merged, "readonly": false });
    config["process"]["terminal"] = false.into();
    config["process"]["cwd"] = "/srv/work".into();
    // Root with every right to mount that the test itself has.
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = serde_json::json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    }
    config["process"]["rlimits"] = serde_json::json!([]);
    config["linux"]["cgroupsPath"] = format!("/lithify-test-{}-{runtime}", std::process::id()).into();
    // The three writes and the remount are refused, the last write is not.
    let script = "pwd; cat /etc/hosts; ls /run/secrets; touch /x; mount -o remount,rw /; touch /x; mkdir /etc/y; touch /data/ok && echo wrote";
    config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["type"] != "cgroup");
    let bind = |source: PathBuf, destination: &str| serde_json::json!({ "destination": destination, "source": source, "type": "bind", "options": ["rbind", "rw"] });
    fs::write(host.make("token").join("token"), "t").unwrap();
    mounts.push(bind(host.path("hosts"), "/etc/hosts"));
    mounts.push(bind(host.path("token"), "/var/run/secrets"));
    mounts
        .push(serde_json::json!({ "destination": "/data", "source": "tmpfs", "type": "tmpfs", "options": ["nosuid"] }));
    let points: Vec<_> = mounts
        .iter()
        .map(|m| {
            let destination = m["destination"].as_str().unwrap();
            if destination == "/etc/hosts" { file(destination) } else { dir(destination) }
        })
        .collect();
    fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();

    let layers = host.layers(&merged);
    let staging = host.staging();
    let skeleton = staging.ground(&layers, None).unwrap().skeleton(&layers, &points, Path::new("/srv/work")).unwrap();
    mount_sealed(&layers, &skeleton, &staging, &merged).unwrap();
    let id = format!("lithify-test-{}", std::process::id());
    let out = Command::new(runtime)
        .arg("--root")
        .arg(host.make("state"))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(&id)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(stdout, "/srv/work\n127.0.0.1 here\ntoken\nwrote\n", "{stderr}");
    assert_eq!(stderr.matches("Read-only file system").count(), 4, "{stderr}");
    assert_eq!(fs::read_dir(host.path("upper")).unwrap().count(), 0, "the engine's upper is untouched");
}

#[test]
fn runc_runs_on_a_sealed_root_and_root_in_it_can_write_nowhere_but_in_mounts() {
    run_sealed("runc");
}

#[test]
fn crun_runs_on_a_sealed_root_and_root_in_it_can_write_nowhere_but_in_mounts() {
    run_sealed("crun");
}

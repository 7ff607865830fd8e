//! What lithifyctl install does to engines' files, below a root folder of the test's own. Needs containerd.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ctl(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lithifyctl"));
    let output = command.args(args).env_remove("LITHIFY_CONFIG").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {} {}", ran.out, ran.err))
}

/// A root folder with engines' files.
struct Etc(tempfile::TempDir);

impl Etc {
    fn new(files: &[(&str, &str)]) -> Etc {
        let etc = Etc(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = etc.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        etc
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok()
    }

    fn install(&self, args: &[&str]) -> Ran {
        let root = self.0.path().to_str().unwrap();
        ctl(&[&["install", "--root", root, "--binary", env!("CARGO_BIN_EXE_lithify")], args].concat())
    }

    /// Installs, checks, installs again, uninstalls; gives back the text in between.
    fn round_trip(&self, engine: &str, file: &str) -> String {
        let before = self.read(file);
        let dry = self.install(&[engine, "--dry-run"]);
        assert_eq!((dry.code, self.read(file)), (0, before.clone()), "{}", dry.err);
        let ran = self.install(&[engine]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("+++ b/etc/") && ran.out.contains("was changed"), "{}", ran.out);
        let diff = |out: &str| out.lines().filter(|l| !l.contains("changed;")).collect::<Vec<_>>().join("\n");
        assert_eq!(diff(&dry.out), diff(&ran.out), "a dry run shows what happens");
        let installed = self.read(file).unwrap();
        let again = self.install(&[engine]);
        assert_eq!(again.out, format!("{file} is as it should be; nothing to do\n"));
        assert_eq!(self.read(file).as_ref(), Some(&installed));
        assert_eq!(self.install(&[engine, "--uninstall"]).code, 0);
        assert_eq!(self.read(file), before, "to the byte");
        assert!(self.install(&[engine, "--uninstall"]).out.contains("is as it should be"));
        installed
    }
}

const CONTAINERD: &str = "/etc/containerd/config.toml";
const DOCKER: &str = "/etc/docker/daemon.json";

#[test]
fn containerds_file_gains_a_block_and_loses_it_again() {
    for user in [
        "version = 2\n# mine\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true",
        "#disabled_plugins = [\"cri\"]\nroot = \"/x\"\n",
        "version = 3\n",
    ] {
        let installed = Etc::new(&[(CONTAINERD, user)]).round_trip("--containerd", CONTAINERD);
        assert!(installed.starts_with(user));
        assert!(installed.contains("pod_annotations = [\"lithify.dev/*\"]"));
        assert_eq!(installed.matches("SystemdCgroup").count(), user.matches("SystemdCgroup").count() * 2);
    }
    let fresh = Etc::new(&[]);
    assert!(fresh.round_trip("--containerd", CONTAINERD).contains("version = 2\n"));
}

#[test]
fn containerd_itself_reads_the_runtime_and_keeps_the_users_settings() {
    for user in [
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/mine/cni\"\n",
        "[plugins.cri.cni]\n  bin_dir = \"/mine/cni\"\n",
    ] {
        let etc = Etc::new(&[(CONTAINERD, user)]);
        assert_eq!(etc.install(&["--containerd"]).code, 0);
        let dump = Command::new("containerd").arg("-c").arg(etc.path(CONTAINERD)).args(["config", "dump"]).output();
        let dump: toml::Table = String::from_utf8(dump.unwrap().stdout).unwrap().parse().unwrap();
        let cri = &dump["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(cri["cni"]["bin_dir"].as_str(), Some("/mine/cni"));
        let runtime = &cri["containerd"]["runtimes"]["lithify"];
        assert_eq!(runtime["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
        assert_eq!(runtime["options"]["BinaryName"].as_str(), Some(env!("CARGO_BIN_EXE_lithify")));
        let default = Command::new("containerd").args(["config", "default"]).output().unwrap().stdout;
        let default: toml::Table = String::from_utf8(default).unwrap().parse().unwrap();
        let plain = &default["plugins"]["io.containerd.grpc.v1.cri"]["containerd"];
        assert_eq!(cri["containerd"]["runtimes"]["runc"]["runtime_type"], plain["runtimes"]["runc"]["runtime_type"]);
        assert_eq!(cri["containerd"]["default_runtime_name"], plain["default_runtime_name"]);
    }
}

#[test]
fn containerd_2_with_its_drop_in_folder_imported_gets_a_drop_in() {
    let user = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
    let etc = Etc::new(&[(CONTAINERD, user)]);
    let drop_in = etc.round_trip("--containerd", "/etc/containerd/conf.d/99-lithify.toml");
    assert!(drop_in.contains("version = 3") && drop_in.contains("io.containerd.cri.v1.runtime"));
    assert_eq!(etc.read(CONTAINERD).as_deref(), Some(user));
}

#[test]
fn a_containerd_file_that_can_not_be_extended_is_left_alone_and_said_so() {
    for user in ["version = 2\nplugins = { a = 1 }\n", "version = 9\n", "version = \n"] {
        let etc = Etc::new(&[(CONTAINERD, user)]);
        let ran = etc.install(&["--containerd"]);
        assert!(ran.code == 1 && ran.err.contains("failed to edit /etc/containerd/config.toml"), "{}", ran.err);
        assert_eq!(etc.read(CONTAINERD).as_deref(), Some(user));
    }
}

#[test]
fn dockers_file_gains_an_entry_and_loses_it_again() {
    let user = "{\n\t\"log-driver\" : \"journald\",\n\t\"runtimes\": { \"kata\": {\"path\": \"/k\"} }\n}";
    let installed = Etc::new(&[(DOCKER, user)]).round_trip("--docker", DOCKER);
    let value: serde_json::Value = serde_json::from_str(&installed).unwrap();
    assert_eq!(value["runtimes"]["lithify"]["path"], env!("CARGO_BIN_EXE_lithify"));
    assert_eq!(value["runtimes"]["kata"]["path"], "/k");
    Etc::new(&[]).round_trip("--docker", DOCKER);
    let broken = Etc::new(&[(DOCKER, "{ // no\n}")]);
    assert!(broken.install(&["--docker"]).err.contains("not valid JSON"));
}

#[test]
fn podman_and_crio_get_drop_ins_and_foreign_files_in_their_place_are_left_alone() {
    let podman = "/etc/containers/containers.conf.d/lithify.conf";
    let crio = "/etc/crio/crio.conf.d/99-lithify.conf";
    for (engine, file) in [("--podman", podman), ("--crio", crio)] {
        let installed: toml::Table = Etc::new(&[]).round_trip(engine, file).parse().unwrap();
        assert!(!installed.is_empty());
        let foreign = Etc::new(&[(file, "# mine\n")]);
        for args in [&[engine][..], &[engine, "--uninstall"]] {
            assert_eq!(foreign.install(args).code, 1);
        }
        assert_eq!(foreign.read(file).as_deref(), Some("# mine\n"));
    }
}

#[test]
fn no_symbolic_link_leads_a_write_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("daemon.json");
    std::fs::write(&victim, "{}").unwrap();
    let etc = Etc::new(&[(CONTAINERD, "version = 2\n")]);
    // A folder that is a link to an absolute path means that path below the root, where it does not exist.
    std::os::unix::fs::symlink(outside.path(), etc.path("/etc/docker")).unwrap();
    let ran = etc.install(&["--docker"]);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "{}", "{}{}", ran.out, ran.err);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    std::fs::remove_file(etc.path("/etc/docker")).unwrap();
    std::fs::create_dir(etc.path("/etc/docker")).unwrap();
    std::os::unix::fs::symlink(&victim, etc.path(DOCKER)).unwrap();
    let ran = etc.install(&["--docker"]);
    assert!(ran.code == 1 && ran.err.contains("symbolic link"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "{}");
}

#[test]
fn an_edited_file_keeps_its_owner_and_mode() {
    use std::os::unix::fs::MetadataExt;
    let etc = Etc::new(&[(DOCKER, "{}")]);
    let path = etc.path(DOCKER);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
    assert_eq!(etc.install(&["--docker"]).code, 0);
    let meta = path.metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 7, 8));
}

#[test]
fn what_install_prints_as_json_says_what_was_written() {
    let etc = Etc::new(&[(DOCKER, "{}")]);
    let told = json(&etc.install(&["--docker", "--json", "--dry-run"]));
    assert_eq!((&told["changed"], &told["written"]), (&true.into(), &false.into()));
    let told = json(&etc.install(&["--docker", "--json"]));
    assert_eq!((&told["written"], &told["file"]), (&true.into(), &DOCKER.into()));
    assert!(told["diff"].as_str().unwrap().starts_with("--- a/etc/docker/daemon.json\n"));
}

#[test]
fn a_runtime_that_is_not_there_is_not_registered() {
    let etc = Etc::new(&[]);
    let root = etc.0.path().to_str().unwrap().to_string();
    let ran = ctl(&["install", "--docker", "--root", &root, "--binary", "/no/such/lithify"]);
    assert!(ran.code == 1 && ran.err.contains("use --binary"), "{}", ran.err);
    assert!(!Path::new(&root).join("etc").exists());
    assert_eq!(ctl(&["install", "--docker", "--podman"]).code, 2);
    assert_eq!(ctl(&["install"]).code, 2);
}

//! Containers of the tests: a process in a mount namespace of its own that waits, is armed, and then executes an act.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use lithify::guard::Refusal;
use lithify::sensor::guard::{Guard, Rules};
use lithify::sensor::reading::Facts;
use lithify::sensor::{Armed, Options, Place, Reading, Sensor};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::act;

/// A sensor of the test's own: its state folder, and so its pins, are nobody else's.
pub struct World {
    pub place: Place,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Place::of(dir.path());
        place.loader = loader();
        World { place, _dir: dir }
    }

    pub fn sensor(&self) -> Sensor {
        Sensor::open(&self.place).unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Runs one act in a container, to its end, and reads what was seen of it.
    pub fn seen_of(&self, act: &[&str]) -> Reading {
        let (armed, mut container) = self.armed(act);
        container.go();
        assert_eq!(container.end(), 0, "the act {act:?} failed");
        let reading = armed.read().unwrap();
        armed.disarm().unwrap();
        reading
    }

    pub fn armed(&self, act: &[&str]) -> (Armed, Container) {
        let container = Container::new(act);
        let armed = self.sensor().arm(container.pid(), options()).unwrap_or_else(|e| panic!("{e:#}"));
        (armed, container)
    }

    pub fn guard(&self) -> Guard {
        Guard::open(&self.place).unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Arms a container with rules, lets it act to its end, and takes what was refused.
    pub fn refused_to(&self, mut container: Container, rules: &Rules) -> Vec<Refusal> {
        let mut guarded = self.guard().arm(container.pid(), rules).unwrap_or_else(|e| panic!("{e:#}"));
        container.go();
        assert_eq!(container.end(), 0);
        let refused = guarded.take();
        assert_eq!(guarded.lost(), 0, "{refused:?}");
        guarded.disarm().unwrap();
        refused
    }

    /// Whether anything of this sensor is in bpffs.
    pub fn is_loaded(&self) -> bool {
        self.place.pins.exists() || self.place.loading().exists()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = ctl(&["sensor", "unload", "--force", "--state-dir"], &self.place).output();
        let _ = ctl(&["sensor", "unload", "--guard", "--force", "--state-dir"], &self.place).output();
    }
}

pub fn loader() -> PathBuf {
    std::env::var_os("LITHIFY_CTL").map_or_else(|| env!("CARGO_BIN_EXE_lithifyctl").into(), PathBuf::from)
}

/// lithifyctl with these arguments and the state folder.
pub fn ctl(args: &[&str], place: &Place) -> Command {
    let mut command = Command::new(&place.loader);
    command.args(args).arg(place.state_dir());
    command
}

pub fn options() -> Options {
    Options { table_entries: 8192, bell: false }
}

/// A process that waits before it executes its act.
pub struct Container {
    child: Child,
    go: Option<OwnedFd>,
}

impl Container {
    pub fn new(act: &[&str]) -> Container {
        Container::made("wait", act, Stdio::inherit())
    }

    /// One whose standard output is ours to read.
    pub fn heard(act: &[&str]) -> Container {
        Container::made("wait", act, Stdio::piped())
    }

    /// One that shares our mount namespace.
    pub fn sharing(act: &[&str]) -> Container {
        Container::made("wait-here", act, Stdio::inherit())
    }

    /// One whose root is an overlay made in `dir`: this program is `/program` there, in the lower layer.
    pub fn in_overlay(dir: &Path, act: &[&str]) -> Container {
        Container::overlaid(dir, act, Stdio::inherit())
    }

    /// The same, whose standard output is ours to read.
    pub fn heard_in_overlay(dir: &Path, act: &[&str]) -> Container {
        Container::overlaid(dir, act, Stdio::piped())
    }

    fn overlaid(dir: &Path, act: &[&str], output: Stdio) -> Container {
        for part in ["lower", "upper", "work", "root"] {
            std::fs::create_dir(dir.join(part)).unwrap();
        }
        for part in ["lower/usr", "lower/lib", "lower/lib64", "lower/target", "lower/scratch", "lower/proc"] {
            std::fs::create_dir(dir.join(part)).unwrap();
        }
        std::fs::copy("/proc/self/exe", dir.join("lower/program")).unwrap();
        std::fs::write(dir.join("lower/file"), "image").unwrap();
        let words = [&["in", dir.to_str().unwrap()], act].concat();
        Container::made("wait-overlay", &words, output)
    }

    fn made(how: &str, act: &[&str], output: Stdio) -> Container {
        let mut command = Command::new("/proc/self/exe");
        // The shell of it: waits in its own namespace until it is told to go, and executes what follows.
        command.args([act::WORD, how]).args(act).stdout(output);
        let (wait, go) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        command.stdin(Stdio::from(wait));
        let child = command.spawn().unwrap();
        let container = Container { child, go: Some(go) };
        if how != "wait-here" {
            container.until_apart();
        }
        if how == "wait-overlay" {
            // The last of its mounts, seen from its root.
            let mounts = format!("/proc/{}/mountinfo", container.pid());
            within(|| std::fs::read_to_string(&mounts).is_ok_and(|m| m.contains(" /scratch ")));
        }
        container
    }

    /// Until it is in its own mount namespace: what it executes before is not the container's program.
    fn until_apart(&self) {
        let ours = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let theirs = format!("/proc/{}/ns/mnt", self.child.id());
        within(|| std::fs::read_link(&theirs).is_ok_and(|ns| ns != ours));
    }

    /// Its standard output, of one that is [`Container::heard`].
    pub fn output(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.child.stdout.take().expect("a pipe"))
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its mount namespace, which exists for as long as it is held.
    pub fn namespace(&self) -> File {
        File::open(format!("/proc/{}/ns/mnt", self.pid())).unwrap()
    }

    /// Until it has executed its act: it waits no more.
    pub fn until_program(&self) {
        let (words, state) = (format!("/proc/{}/cmdline", self.pid()), format!("/proc/{}/stat", self.pid()));
        // A new program has no words for a moment, before the kernel says that it begins; one that sleeps has begun.
        let has_begun = || {
            let new = std::fs::read(&words).is_ok_and(|w| !w.is_empty() && !w.windows(5).any(|w| w == b"\0wait"));
            new && std::fs::read_to_string(&state).is_ok_and(|s| s.contains(") S "))
        };
        within(has_begun);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for a line of its standard output, of one that is [`Container::heard`].
    pub fn hears(&mut self, line: &str) {
        let mut output = self.output();
        let mut heard = String::new();
        std::io::BufRead::read_line(&mut output, &mut heard).unwrap();
        assert_eq!(heard.trim_end(), line);
    }

    /// Lets it execute its act.
    pub fn go(&mut self) {
        self.tell("g");
    }

    /// Writes to its standard input.
    pub fn tell(&mut self, text: &str) {
        nix::unistd::write(self.go.as_ref().expect("it lives"), text.as_bytes()).unwrap();
    }

    /// Waits for its end; its exit status.
    pub fn end(&mut self) -> i32 {
        self.go = None;
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The waiting half: runs in the child.
pub fn wait_and_execute(apart: bool, act: &[String]) -> ! {
    if apart {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    }
    let mut byte = [0];
    nix::unistd::read(std::io::stdin(), &mut byte).unwrap();
    std::io::stdout().flush().unwrap();
    let error = std::os::unix::process::CommandExt::exec(Command::new("/proc/self/exe").arg(act::WORD).args(act));
    panic!("{error}")
}

/// The same, in an overlay for a root.
pub fn wait_in_overlay(act: &[String]) -> ! {
    let [_, dir, act @ ..] = act else { panic!("no folder") };
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let options = format!("lowerdir={dir}/lower,upperdir={dir}/upper,workdir={dir}/work");
    let root = format!("{dir}/root");
    mount(Some("overlay"), root.as_str(), Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
    // The libraries that the program names; not everywhere are all of them folders.
    for library in ["usr", "lib", "lib64"].iter().filter(|l| Path::new("/").join(l).is_dir()) {
        let (from, to) = (format!("/{library}"), format!("{root}/{library}"));
        mount(Some(from.as_str()), to.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    mount(Some("none"), format!("{root}/scratch").as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    // As a low-level runtime does where the root is an initramfs, which can't be pivoted away.
    std::env::set_current_dir(&root).unwrap();
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).unwrap();
    nix::unistd::chroot(".").unwrap();
    std::env::set_current_dir("/").unwrap();
    nix::unistd::read(std::io::stdin(), &mut [0]).unwrap();
    let error = std::os::unix::process::CommandExt::exec(Command::new("/program").arg(act::WORD).args(act));
    panic!("{error}")
}

/// Runs an act as a session in a container's mount namespace, to its end.
pub fn session(container: &Container, act: &[&str]) -> i32 {
    session_in(&container.namespace(), act)
}

/// The same, in a mount namespace that is held open.
pub fn session_in(ns: &File, act: &[&str]) -> i32 {
    session_of(ns, &format!("/proc/{}/exe", std::process::id()), act)
}

/// The same, by a program of the container's, such as `/program` of one in an overlay.
pub fn session_of(ns: &File, program: &str, act: &[&str]) -> i32 {
    use lithify::sys::process::{self, Fork};
    match process::fork().unwrap() {
        Fork::Parent(pid) => process::wait_pid(pid).unwrap().shell_code(),
        Fork::Child => {
            // By another process than this one, as a low-level runtime's `exec` is.
            match process::fork().unwrap() {
                Fork::Parent(pid) => process::exit_now(process::wait_pid(pid).map_or(99, |e| e.shell_code())),
                Fork::Child => {
                    nix::sched::setns(ns, CloneFlags::CLONE_NEWNS).unwrap();
                    let exe = std::ffi::CString::new(program).unwrap();
                    let words = [c"sensor".to_owned(), std::ffi::CString::new(act::WORD).unwrap()];
                    let rest = act.iter().map(|a| std::ffi::CString::new(*a).unwrap());
                    let args: Vec<_> = words.into_iter().chain(rest).collect();
                    let _ = nix::unistd::execv(&exe, &args);
                    process::exit_now(98)
                }
            }
        }
    }
}

/// Waits, up to ten seconds, for something that no descriptor tells.
pub fn within(mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "not within ten seconds");
        std::thread::yield_now();
    }
}

/// Whether a call by x86-64 number is among those seen.
pub fn called(facts: &Facts, number: i64) -> bool {
    use lithify::sensor::reading::{Abi, Syscall};
    facts.syscalls.contains_key(&Syscall { abi: Abi::Native, number: number as u32 })
}

//! What a refusal weighs: whether it is news at all, and what is asked for in answer to it.
//!
//! Owns: that judgement, from what the profile and the policy say. Pure. Must not: know what is possible now; that is the
//! supervisor's.

use crate::guard::{Limits, Refusal, Refused};
use crate::policy::{ExecRule, Policy, Response};
use crate::profile::behaviour::Origin;
use crate::profile::{baseline, doubtful, generalise, items};

/// By containment.
pub(super) fn strength(response: Response) -> u8 {
    match response {
        Response::Report => 0,
        Response::Pause => 1,
        Response::Restart => 2,
        Response::Stop => 3,
    }
}

/// A program of the image in a workload of scripts, whose months have other programs than its minutes, or beside helpers of the
/// workload: it was not stopped, and it could only do what was learnt. Or a name for what was not there to be renamed: nobody's write, and told all the same,
/// because the same name is not told again when it is somebody's.
pub(super) fn is_only_told(limits: &Limits, refusal: &Refusal) -> bool {
    match &refusal.refused {
        refused if is_denied_habit(limits, refused) => true,
        Refused::Program { path, origin, killed: false } => {
            (limits.runs_scripts || doubtful::is_helper(&limits.helpers, path)) && origin == "image"
        }
        Refused::Write { of_nothing, .. } => *of_nothing,
        Refused::Program { killed: true, .. } | Refused::Syscall { .. } | Refused::Capability { .. } => false,
    }
}

/// Somebody denied it by hand: that it is refused now is no sign that the profile lacks something.
pub(super) fn is_denied(limits: &Limits, refusal: &Refusal) -> bool {
    let item = items::of_refused(&refusal.refused);
    item.is_some_and(|item| limits.denied.iter().any(|pattern| generalise::covers(pattern, &item)))
}

/// Somebody denied what the workload was known to do: it will go on trying.
pub(super) fn is_denied_habit(limits: &Limits, refused: &Refused) -> bool {
    let is_habit = |item: &String| limits.denied_habits.iter().any(|pattern| generalise::covers(pattern, item));
    !limits.denied_habits.is_empty() && items::of_refused(refused).is_some_and(|item| is_habit(&item))
}

/// No foreign program is of these: one that was killed was denied.
pub(super) fn is_of_image(origin: &str) -> bool {
    origin == Origin::Image.name() || origin == Origin::Root.name()
}

/// What is to follow. A session is somebody's who was let in: what it is refused says nothing of the workload.
pub(super) fn response_to(policy: &Policy, limits: &Limits, refusal: &Refusal) -> Response {
    match &refusal.refused {
        _ if refusal.session || is_only_told(limits, refusal) => Response::Report,
        Refused::Syscall { .. } | Refused::Capability { .. } | Refused::Program { killed: false, .. } => {
            policy.on_refused_syscall
        }
        Refused::Write { .. } => policy.on_refused_write,
        Refused::Program { killed: true, origin, .. } if is_of_image(origin) => policy.on_refused_syscall,
        Refused::Program { killed: true, .. } => policy.on_write,
    }
}

/// Whether an honest start-up might need what it was refused, one that has changed since it was learnt: an ordinary call or
/// capability, a write of its own, another program of its image. What the baseline forbids or tells is none of these, nor is
/// what is not of the image, or another interface of the kernel than the native one.
pub(super) fn may_be_honest(refused: &Refused) -> bool {
    match refused {
        Refused::Syscall { name, arguments, .. } => {
            let is_native = !name.contains(':') && !name.starts_with('#');
            is_native && !baseline::told(name) && baseline::forbids_arguments(name, arguments).is_none()
        }
        Refused::Write { path, .. } => {
            path.starts_with('/') && baseline::protected(path).is_none() && baseline::kernel_file(path).is_none()
        }
        Refused::Capability { name } => baseline::capability(name).is_none(),
        Refused::Program { origin, killed, .. } => !killed && is_of_image(origin),
    }
}

/// What learning saw already, or what somebody allowed: no news. Nor is that a program tidies up after a life that left nothing:
/// on a writable root, where it was learnt, that is no write at all.
pub(super) fn is_known(limits: &Limits, exec: ExecRule, refusal: &Refusal) -> bool {
    let covered = |patterns: &std::collections::BTreeSet<String>, path: &str| {
        let item = generalise::escape(path);
        patterns.iter().any(|pattern| generalise::covers(pattern, &item))
    };
    match &refusal.refused {
        Refused::Syscall { name, arguments, .. } => refusal.session && asks_for_names(name, arguments),
        Refused::Program { killed: true, .. } => false,
        Refused::Write { operation, of_nothing: true, .. } if operation == "remove" || operation == "rename" => true,
        Refused::Write { path, .. } => covered(&limits.known_writes, path),
        Refused::Capability { name } => !limits.withheld_capabilities.contains(name),
        // Where any session is let in, what it runs is the `exec` event's to tell.
        Refused::Program { path, .. } if refusal.session => {
            exec == ExecRule::Allow || covered(&limits.session_programs, path) || covered(&limits.programs, path)
        }
        Refused::Program { path, .. } => covered(&limits.programs, path),
    }
}

/// The socket by which glibc asks a name service daemon for users and hosts (`id`, `ls -l`, `ps`), before it reads the files
/// themselves: refused, and missed by nobody.
fn asks_for_names(name: &str, arguments: &[u64]) -> bool {
    let stream = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
    name == "socket" && arguments.get(..3) == Some(&[libc::AF_UNIX as u64, stream, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(refused: Refused, session: bool) -> Refusal {
        Refusal { refused, pid: 1, program: "/bin/sh".to_owned(), session, count: 1 }
    }

    fn refused_write(path: &str, operation: &str, of_nothing: bool) -> Refused {
        Refused::Write { path: path.to_owned(), operation: operation.to_owned(), of_nothing }
    }

    fn program(path: &str, killed: bool) -> Refused {
        Refused::Program { path: path.to_owned(), origin: "image".to_owned(), killed }
    }

    fn limits() -> Limits {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Limits {
            known_writes: set(&["/app/__pycache__/*", "/srv/a\\052b"]),
            withheld_capabilities: set(&["CAP_CHOWN"]),
            programs: set(&["/usr/bin/*", "/app/run"]),
            session_programs: set(&["/bin/probe"]),
            ..Limits::default()
        }
    }

    #[test]
    fn what_learning_saw_is_silent_and_what_it_did_not_see_is_not() {
        let known = |refused: Refused| is_known(&limits(), ExecRule::Allow, &refusal(refused, false));
        let write = |path: &str| refused_write(path, "write", false);
        assert!(known(write("/app/__pycache__/x.pyc")) && !known(write("/app/__pycache__")) && !known(write("/etc/x")));
        assert!(known(write("/srv/a*b")) && !known(write("/srv/aXb")), "a star in a name is no pattern");
        let capability = |name: &str| Refused::Capability { name: name.to_owned() };
        assert!(!known(capability("CAP_CHOWN")) && known(capability("CAP_SYS_ADMIN")), "the engine withheld it");
        assert!(known(program("/usr/bin/id", false)) && !known(program("/srv/sh", false)));
        assert!(!known(program("/usr/bin/id", true)), "what was killed is always told");
        assert!(!known(Refused::Syscall { name: "mkdir".to_owned(), arguments: vec![], path: None }));
    }

    #[test]
    fn a_session_that_is_refused_to_ask_for_names_is_no_news_and_any_other_socket_of_it_is() {
        let socket = |family: u64, kind: u64| Refused::Syscall {
            name: "socket".to_owned(),
            arguments: vec![family, kind, 0, 9, 9, 9],
            path: None,
        };
        let known = |refused, session| is_known(&limits(), ExecRule::Allow, &refusal(refused, session));
        assert!(known(socket(1, 0x80801), true) && !known(socket(1, 0x80801), false));
        assert!(!known(socket(1, 1), true) && !known(socket(2, 0x80801), true) && !known(socket(16, 3), true));
    }

    #[test]
    fn to_remove_what_is_not_there_is_no_news_and_to_remove_what_is_there_or_to_make_anything_is() {
        use crate::policy::{Config, resolve};
        let none = std::collections::BTreeMap::new();
        let usual =
            resolve(&Config::default(), &Default::default(), &none, None).expect("a policy without annotations");
        let policy = Policy { on_refused_write: Response::Restart, ..usual };
        let judged = |operation: &str, of_nothing: bool| {
            let refusal = refusal(refused_write("/srv/app.pid", operation, of_nothing), false);
            let response = response_to(&policy, &limits(), &refusal);
            (!is_known(&limits(), ExecRule::Allow, &refusal)).then_some(response)
        };
        for operation in ["remove", "rename"] {
            assert_eq!(judged(operation, true), None);
            assert_eq!(judged(operation, false), Some(Response::Restart));
        }
        assert_eq!(judged("create", true), Some(Response::Report), "what was to be renamed to this was not there");
        assert_eq!(judged("create", false), Some(Response::Restart));
    }

    #[test]
    fn a_denied_program_of_the_image_is_no_intruders_and_its_end_no_sign_that_the_profile_lacks_it() {
        use crate::policy::{Config, resolve};
        let none = std::collections::BTreeMap::new();
        let usual =
            resolve(&Config::default(), &Default::default(), &none, None).expect("a policy without annotations");
        let policy = Policy { on_refused_syscall: Response::Report, on_write: Response::Stop, ..usual };
        let limits = Limits { denied: ["program /usr/bin/id".to_owned()].into(), ..limits() };
        let denied = |path: &str| refusal(program(path, true), false);
        assert_eq!(response_to(&policy, &limits, &denied("/usr/bin/id")), Response::Report);
        let answered = Policy { on_refused_syscall: Response::Restart, ..policy.clone() };
        assert_eq!(response_to(&answered, &limits, &denied("/usr/bin/id")), Response::Restart, "never seen before");
        let habit = Limits { denied_habits: limits.denied.clone(), ..limits.clone() };
        assert_eq!(response_to(&answered, &habit, &denied("/usr/bin/id")), Response::Report, "it is known to try");
        assert!(is_denied(&limits, &denied("/usr/bin/id")) && !is_denied(&limits, &denied("/usr/bin/other")));
    }

    #[test]
    fn another_helper_of_the_image_is_only_told_and_one_that_was_put_there_or_was_killed_is_not() {
        let limits = Limits { helpers: ["/usr/lib/postfix/sbin".to_owned()].into(), ..limits() };
        let only_told = |path: &str, origin: &str, killed| {
            let refused = Refused::Program { path: path.to_owned(), origin: origin.to_owned(), killed };
            is_only_told(&limits, &refusal(refused, false))
        };
        let bounce = "/usr/lib/postfix/sbin/bounce";
        assert!(only_told(bounce, "image", false));
        assert!(!only_told(bounce, "upper", false) && !only_told(bounce, "image", true));
        assert!(!only_told("/bin/sh", "image", false) && !only_told("/usr/lib/postfix/sbin/a/b", "image", false));
    }

    #[test]
    fn what_was_denied_as_a_pattern_of_files_is_a_habit_under_each_of_their_names() {
        let limits = Limits { denied_habits: ["write /etc/web/*".to_owned()].into(), ..limits() };
        let is_habit = |path: &str| is_denied_habit(&limits, &refused_write(path, "create", false));
        assert!(is_habit("/etc/web/sedAb3dEf") && !is_habit("/etc/passwd") && !is_habit("/etc/web/a/b"));
    }

    #[test]
    fn what_a_session_runs_is_news_only_where_sessions_have_a_profile() {
        let known = |exec, path| is_known(&limits(), exec, &refusal(program(path, false), true));
        assert!(known(ExecRule::Allow, "/srv/anything"));
        assert!(known(ExecRule::Profile, "/bin/probe") && !known(ExecRule::Profile, "/srv/anything"));
    }

    #[test]
    fn what_no_honest_start_up_needs_is_told_from_what_one_may_need() {
        let call = |name: &str, arguments: &[u64]| {
            let arguments = arguments.to_vec();
            may_be_honest(&Refused::Syscall { name: name.to_owned(), arguments, path: None })
        };
        let (new_user, packet, traceme, attach) = (0x1000_0000, 17, 0, 16);
        for (name, arguments) in [
            ("mkdir", [1, 2, 3]),
            ("socket", [2, 0x8_0001, 6]),
            ("clone", [0x11, 0, 0]),
            ("ptrace", [traceme, 0, 0]),
            ("ioctl", [0, 0x5401, 0]),
        ] {
            assert!(call(name, &arguments), "{name}");
        }
        for (name, arguments) in [
            ("mount", [0; 3]),
            ("pidfd_getfd", [0; 3]),
            ("keyctl", [0; 3]),
            ("io_uring_setup", [0; 3]),
            ("init_module", [0; 3]),
            ("ptrace", [attach, 1, 0]),
            ("socket", [packet, 3, 0]),
            ("socket", [2, 0x8_0003, 1]),
            ("unshare", [new_user, 0, 0]),
            ("clone", [new_user | 0x11, 0, 0]),
            ("ioctl", [0, 0x5412, 0]),
            ("i386:mkdir", [0; 3]),
            ("#1073741907", [0; 3]),
        ] {
            assert!(!call(name, &arguments), "{name} {arguments:?}");
        }
        let write = |path: &str| may_be_honest(&refused_write(path, "write", false));
        assert!(write("/var/cache/app/x") && write("/srv/x"));
        for path in ["/proc/1/mem", "/etc/crontab", "/usr/bin/id", "/proc/sys/kernel/core_pattern", "nowhere"] {
            assert!(!write(path), "{path}");
        }
        let program = |origin: &str, killed| {
            may_be_honest(&Refused::Program { path: "/x".to_owned(), origin: origin.to_owned(), killed })
        };
        assert!(program("image", false) && !program("image", true) && !program("volume", false));
        let capability = |name: &str| may_be_honest(&Refused::Capability { name: name.to_owned() });
        assert!(capability("CAP_CHOWN") && !capability("CAP_SYS_ADMIN"));
    }

    #[test]
    fn another_program_of_the_image_is_only_told_where_scripts_run_and_one_that_was_killed_is_answered() {
        use crate::policy::{Config, resolve};
        let none = std::collections::BTreeMap::new();
        let usual =
            resolve(&Config::default(), &Default::default(), &none, None).expect("a policy without annotations");
        let policy = Policy { on_refused_syscall: Response::Restart, on_write: Response::Stop, ..usual };
        let scripts = Limits { runs_scripts: true, ..limits() };
        let response = |limits: &Limits, refused: Refused| response_to(&policy, limits, &refusal(refused, false));
        assert_eq!(response(&limits(), program("/bin/tail", false)), Response::Restart);
        assert_eq!(response(&scripts, program("/bin/tail", false)), Response::Report);
        let killed = Refused::Program { path: "/tmp/tail".to_owned(), origin: "tmpfs".to_owned(), killed: true };
        assert_eq!(response(&scripts, killed), Response::Stop);
        let foreign = Refused::Program { path: "/data/x".to_owned(), origin: "volume".to_owned(), killed: false };
        assert_eq!(response(&scripts, foreign), Response::Restart, "it is not of the image");
    }
}

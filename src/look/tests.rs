use std::os::unix::fs::MetadataExt;

use super::answers::Question;
use super::*;

#[test]
fn what_is_there_is_found_and_what_is_not_says_why() {
    let own = std::process::id() as i32;
    let given = std::ffi::CString::new("/srv/plant").expect("no NUL inside");
    let at = given.as_ptr() as u64;
    assert_eq!(text(own, at, 100), Ok(b"/srv/plant".to_vec()));
    assert_eq!(text(own, at, 4), Ok(b"/srv".to_vec()));
    assert_eq!(text(own, 8, 100), Err(Unseen::No(Errno::EFAULT)));
    assert_eq!(text(i32::MAX, at, 100), Err(Unseen::No(Errno::ESRCH)));
    assert_eq!(command_line(own).ok(), std::fs::read("/proc/self/cmdline").ok());
    let exe = std::fs::metadata("/proc/self/exe").expect("a program");
    assert_eq!(program(own), Ok((exe.dev(), exe.ino())));
    let here = place(own, Path::new("/proc/self/status")).expect("a place");
    assert_eq!((here.missing, here.mounted.magic), (None, nix::sys::statfs::PROC_SUPER_MAGIC.0));
    let nowhere = place(own, Path::new("/proc/none/at/all")).expect("a place");
    assert_eq!((nowhere.missing, nowhere.mounted.id), (Some(Errno::ENOENT), here.mounted.id));
    assert_ne!(nowhere.mounted.id, nowhere.root.id);
    assert_eq!(place(i32::MAX, Path::new("/")), Err(Unseen::No(Errno::ENOENT)));
    assert_eq!(take_unanswered(), 0);
}

#[test]
fn one_that_was_killed_is_replaced_and_one_that_rests_leaves_nothing() {
    let own = std::process::id() as i32;
    assert!(command_line(own).is_ok());
    let pid = LOOKING.with_borrow(|looking| Some(looking.looker.as_ref()?.child.as_ref()?.pid)).expect("a process");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).expect("sent");
    assert_eq!(command_line(own), Err(Unseen::Unanswered), "it was stopped");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it can be killed, and was");
    assert_eq!(take_unanswered(), 1);
    assert!(command_line(own).is_ok(), "another answers");
    let pid = LOOKING.with_borrow(|looking| Some(looking.looker.as_ref()?.child.as_ref()?.pid)).expect("a process");
    rest();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn who_never_answers_is_not_waited_for_for_ever() {
    let now = Instant::now();
    let mut looking = Looking::new(now);
    for left in (0..MISSES).rev() {
        assert!(looking.may_miss(now));
        looking.misses.0 = left;
    }
    assert!(!looking.may_miss(now), "nothing is looked at");
    assert!(looking.may_miss(now + MISS_EARNED), "but after a while");
    assert!(looking.may_miss(now + MISS_EARNED * 1000) && looking.misses.0 == MISSES);
}

#[test]
fn questions_cross_the_socket_as_they_were_asked() {
    let path = Path::new("/srv/\u{fc}/x");
    for question in [
        Question::Text { pid: 7, address: u64::MAX, most: 4096 },
        Question::CommandLine { pid: -1 },
        Question::Program { pid: i32::MAX },
        Question::Place { init: 1, path },
    ] {
        assert_eq!(Question::decode(&question.encode()), Some(question));
    }
    assert_eq!(Question::decode(b""), None);
    assert_eq!(Question::decode(&[b'x'; 64]), None);
}

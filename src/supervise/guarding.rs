//! The guard of one container, over its generations: writes, capabilities and programs that are refused without a filter.
//!
//! Owns: when it is loaded, armed and let go, and that its absence is said. Must not: let a container fail for want of it, or
//! judge what it tells.

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::supervisor::Supervisor;
use super::weight::is_known;
use crate::guard::{Limits, Refusal};
use crate::profile::syscalls::capability_number;
use crate::sensor::Place;
use crate::sensor::guard::{Guard, Guarded, Rules};
use crate::sensor::place::Pinned;
use crate::sys::fds;
use crate::sys::process::{self, Fork};
use crate::sys::spawn::Child;

/// How long a start waits for the node's guard to be loaded; that has been under way since before `create`.
const LOAD_PATIENCE: Duration = Duration::from_secs(2);

/// The same refusal is told again after this, then after twice as long, and so on: an hour at most.
const QUIET_SECONDS: u32 = 60;

/// See the module.
#[derive(Default)]
pub(super) struct Guarding {
    /// The process that loads the node's guard.
    loader: Option<Child>,
    guarded: Option<Guarded>,
    /// The last generation's, which looks at nothing any more: letting it go takes the kernel a grace period, and where it
    /// is the node's only one, the programs with it.
    spent: Option<Guarded>,
    /// It was loaded, or asked to be, for this container, and is not armed for it.
    prepared: bool,
}

impl Guarding {
    /// Begins to load the guard where that has not been done on this node: in a process of its own, because it takes longer
    /// than anything else, while the low-level runtime works.
    fn prepare(&mut self, place: &Place) {
        if self.loader.is_some() || matches!(place.guard().pinned(), Ok(Pinned::Ours)) {
            return;
        }
        match process::fork() {
            Ok(Fork::Parent(pid)) => {
                self.prepared = true;
                self.loader = process::pidfd_open(pid).ok().map(|pidfd| Child { pid, pidfd });
            }
            Ok(Fork::Child) => {
                let _ = process::set_parent_death_signal(libc::SIGKILL);
                // All that is open is the supervisor's; nothing of it is used here again.
                let _ = fds::close_all_except(&[0, 1, 2]);
                // Whoever arms it says why it could not be had.
                let _ = Guard::open(place);
                process::exit_now(0)
            }
            // It is loaded when it is needed.
            Err(_) => {}
        }
    }

    /// Readable when something has been refused.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.guarded.as_ref().map(AsFd::as_fd)
    }
}

fn rules(limits: &Limits) -> Rules {
    let numbers = limits.withheld_capabilities.iter().filter_map(|name| capability_number(name));
    Rules {
        kill_foreign: limits.kill_foreign,
        allowed: limits.programs.iter().chain(&limits.session_programs).cloned().collect(),
        by_hand: Limits::programs_of(&limits.allowed).map(str::to_owned).collect(),
        denied: Limits::programs_of(&limits.denied).map(str::to_owned).collect(),
        may_drop: limits.drops_capabilities,
        capabilities: numbers.fold(0, |set, number| set | 1 << number),
        quiet_seconds: QUIET_SECONDS,
    }
}

impl Supervisor {
    /// Before a generation is created.
    pub(super) fn prepare_guard(&mut self) {
        if self.plan.limits.needs_guard() {
            self.guarding.prepare(&self.plan.sensor);
        }
    }

    /// Before the workload's first instruction, with its init there.
    pub(super) fn arm_guard(&mut self) {
        let Some(init) = self.init.as_ref().map(|init| init.pid).filter(|_| self.guarding.guarded.is_none()) else {
            return;
        };
        if !self.plan.limits.needs_guard() {
            return;
        }
        if let Some(loader) = self.guarding.loader.take() {
            let ended = self.wait_readable(&[loader.pidfd.as_fd()], Instant::now() + LOAD_PATIENCE);
            if !ended.unwrap_or(false) {
                self.guarding.loader = Some(loader);
                self.tell_unguarded(&format!("it could not be loaded within {} s", LOAD_PATIENCE.as_secs()));
                return;
            }
            let _ = process::reap_pidfd(loader.pidfd.as_fd());
        }
        let armed = Guard::open(&self.plan.sensor)
            .and_then(|guard| Ok((guard.unseen(), guard.arm(init, &rules(&self.plan.limits))?)));
        match armed {
            Ok((unseen, guarded)) => {
                self.guarding.guarded = Some(guarded);
                self.guarding.prepared = false;
                if !unseen.is_empty() {
                    self.tell_failures(vec![format!("the guard does not see on this kernel: {}", unseen.join(", "))]);
                }
            }
            Err(error) => {
                self.guarding.prepared = true;
                self.tell_unguarded(&format!("{error:#}"));
            }
        }
    }

    fn tell_unguarded(&mut self, reason: &str) {
        self.tell_failures(vec![format!(
            "no guard, so that refused writes and foreign programs are not told: {reason}"
        )]);
    }

    /// What the guard has to tell.
    pub(super) fn take_guarded(&mut self) -> Vec<Refusal> {
        let Some(guarded) = &mut self.guarding.guarded else { return Vec::new() };
        let (limits, exec) = (&self.plan.limits, self.plan.policy.exec);
        let taken = guarded.take_news(|refusal| is_known(limits, exec, refusal));
        if guarded.has_lost() {
            self.tell_lost();
        }
        taken
    }

    /// Says it where the guard has gone meanwhile. Asking costs more than most refusals do: once a generation.
    pub(super) fn check_guard(&mut self) {
        if self.guarding.guarded.as_ref().is_some_and(|guarded| guarded.lost() > 0) {
            self.tell_lost();
        }
    }

    fn tell_lost(&mut self) {
        self.tell_failures(vec![
            "the guard could not tell all that was refused in a generation: it was too much, or the guard is gone"
                .to_owned(),
        ]);
    }

    /// The generation is over, and all that was refused has been taken. Another follows, and does not wait for this.
    pub(super) fn set_guard_aside(&mut self) {
        let Some(guarded) = self.guarding.guarded.take() else { return };
        let ended = guarded.end();
        let spent = self.guarding.spent.replace(guarded);
        self.tell_kept(ended.and(spent.map_or(Ok(()), Guarded::disarm)));
    }

    /// What the last generation had, and the kernel takes a grace period to let go of: all at once, so that they share it,
    /// and not while the workload waits.
    pub(super) fn let_go_of_last(&mut self) {
        let (root, watches, spent) = (&mut self.root, &mut self.watches, &mut self.guarding.spent);
        let mut disarm = || spent.take().map_or(Ok(()), Guarded::disarm);
        let disarmed = thread::scope(|scope| {
            let _ = thread::Builder::new().spawn_scoped(scope, || watches.let_go());
            let disarmed = thread::Builder::new().spawn_scoped(scope, &mut disarm);
            root.let_go();
            disarmed.ok().and_then(|thread| thread.join().ok()).unwrap_or(Ok(()))
        });
        // A node that is out of tasks has no threads for it: then it is done here, one after the other.
        let disarmed = disarmed.and(disarm());
        self.watches.let_go();
        self.tell_kept(disarmed);
    }

    fn tell_kept(&mut self, let_go: Result<()>) {
        if let Err(error) = let_go {
            self.tell_failures(vec![format!("the guard was not let go: {error:#}")]);
        }
    }

    /// The container is over, or never came to be: a guard that was loaded for it and armed for nobody is let go, too.
    /// Nobody watches any more.
    pub(super) fn leave_guard(&mut self) {
        self.set_guard_aside();
        // Closing them waits as long as letting the guard go does: side by side.
        let watches = std::mem::take(&mut self.watches);
        let closing = thread::Builder::new().spawn(|| drop(watches));
        self.let_go_of_last();
        self.leave_unarmed_guard();
        let _ = closing.map(thread::JoinHandle::join);
    }

    fn leave_unarmed_guard(&mut self) {
        if !std::mem::take(&mut self.guarding.prepared) {
            return;
        }
        if let Some(loader) = self.guarding.loader.take() {
            let _ = self.wait_readable(&[loader.pidfd.as_fd()], Instant::now() + LOAD_PATIENCE);
            let _ = process::reap_pidfd(loader.pidfd.as_fd());
        }
        let place = &self.plan.sensor;
        if matches!(place.guard().pinned(), Ok(Pinned::Ours))
            && let Err(error) = Guard::open(place).and_then(Guard::leave)
        {
            self.tell_failures(vec![format!("the guard was not let go: {error:#}")]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_of_programs_on_both_sides_and_of_withheld_capabilities() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let limits = Limits {
            programs: set(&["/bin/a"]),
            session_programs: set(&["/bin/b"]),
            withheld_capabilities: set(&["CAP_CHOWN", "CAP_KILL", "no capability"]),
            allowed: set(&["program /tmp/c", "syscall mkdir"]),
            denied: set(&["program /bin/d", "write /e"]),
            kill_foreign: true,
            ..Limits::default()
        };
        let rules = rules(&limits);
        assert_eq!((rules.by_hand, rules.denied), (vec!["/tmp/c".to_owned()], vec!["/bin/d".to_owned()]));
        assert_eq!((rules.allowed, rules.capabilities), (vec!["/bin/a".to_owned(), "/bin/b".to_owned()], 0b10_0001));
        assert!(rules.kill_foreign && limits.needs_guard() && !Limits::default().needs_guard());
    }
}

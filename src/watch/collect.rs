//! From the kernel's many small events to one change per operation.
//!
//! Overlay does one user's write in several steps: a temporary in `work/`, attributes on the directory above, a link
//! or a rename into `upper/`. What was touched is collected by final path; each path then says what it makes of it
//! ([`Touch::decide`]), and what only happened for the sake of another change is left out.
//!
//! Owns: that collection. Must not: read events, or look at files itself (it asks a [`View`]).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::touch::{ARRIVED, CREATED, MOVED_FROM, MOVED_TO, Touch, View};
use super::{Change, ChangeKind};

/// Paths that one drain keeps apart; more is an overflow.
pub(super) const MAX_PATHS: usize = 4096;

/// What was touched since the last report.
#[derive(Debug, Default)]
pub(super) struct Collector {
    touches: Vec<Touch>,
    index: HashMap<PathBuf, usize>,
    /// Something happened in the work directory, so something in the upper is about to.
    work_seen: bool,
    /// Something changed in a directory that is gone and was never seen.
    lost: bool,
    overflow: bool,
}

/// A change with the pid that did it.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) change: Change,
    pub(super) pid: i32,
    /// Where a rename came from, byte for byte (the change tells it in words).
    pub(super) old: Option<PathBuf>,
    weak: bool,
    /// A directory whose new time comes from a name that arrived in it: overlay is about to put the time back.
    passing: bool,
}

impl Verdict {
    /// Whether it lasts for as long as overlay takes from one step of a copy-up to the next.
    pub(super) fn is_passing(&self) -> bool {
        self.weak && self.passing
    }

    /// Whether it may be a by-product of a change that is not told yet.
    pub(super) fn is_weak(&self) -> bool {
        self.weak
    }
}

impl Collector {
    /// Whether nothing was seen at all.
    pub(super) fn is_empty(&self) -> bool {
        self.touches.is_empty() && !self.work_seen && !self.lost
    }

    /// The processes that were at work, as often as they touched a path.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.touches.iter().map(|touch| touch.pid)
    }

    /// Whether more paths were touched than are kept.
    pub(super) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// An event at `path`, relative to the upper. `target` is the object's handle where the kernel gives it.
    pub(super) fn touch(&mut self, path: PathBuf, bits: u32, pid: i32, target: Option<&[u8]>) {
        let at = match self.index.get(&path) {
            Some(at) => *at,
            None if self.touches.len() >= MAX_PATHS => {
                self.overflow = true;
                return;
            }
            None => {
                self.index.insert(path.clone(), self.touches.len());
                self.touches.push(Touch { path, bits: 0, pid, target: None, old: None });
                self.touches.len() - 1
            }
        };
        let touch = &mut self.touches[at];
        touch.bits |= bits;
        if touch.pid == 0 {
            touch.pid = pid;
        }
        if let Some(target) = target {
            touch.target = Some(target.into());
        }
    }

    /// A rename within the upper.
    pub(super) fn rename(&mut self, old: PathBuf, new: PathBuf, pid: i32, target: Option<&[u8]>) {
        self.touch(new.clone(), MOVED_TO, pid, target);
        if let Some(at) = self.index.get(&new) {
            self.touches[*at].old = Some(old.clone());
        }
        self.touch(old, MOVED_FROM, pid, None);
    }

    /// Handles of the files that were given names.
    pub(super) fn named(&self) -> impl Iterator<Item = &[u8]> {
        self.touches.iter().filter(|t| t.bits & CREATED != 0).filter_map(|t| t.target.as_deref())
    }

    /// An event on a name in overlay's work directory.
    pub(super) fn work(&mut self) {
        self.work_seen = true;
    }

    /// An event in a directory whose path nobody knows.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// The changes as far as they can be told now, in the order of their first events, and whether more events are
    /// needed to tell them well.
    pub(super) fn verdicts(&self, view: &dyn View) -> (Vec<Verdict>, bool) {
        let mut links: HashMap<&[u8], usize> = HashMap::new();
        for target in self.named() {
            *links.entry(target).or_default() += 1;
        }
        let arrived = self.touches.iter().filter(|t| t.bits & ARRIVED != 0);
        let arrived_in: HashSet<&Path> = arrived.filter_map(|t| t.path.parent()).collect();
        let mut verdicts = Vec::new();
        for touch in &self.touches {
            let Some((kind, detail, weak)) = touch.decide(view) else { continue };
            // Another name of the same file tells more: a link made, or the name given to a file that had none.
            let own = usize::from(touch.bits & CREATED != 0);
            let target = touch.target.as_deref().filter(|_| weak);
            if target.is_some_and(|t| links.get(t).is_some_and(|n| *n > own) || own == 0 && view.was_named(t)) {
                continue;
            }
            let change = Change { kind, path: Path::new("/").join(&touch.path), detail, culprit: None };
            let old = touch.old.as_ref().filter(|_| kind == ChangeKind::Rename).map(|old| Path::new("/").join(old));
            let passing = arrived_in.contains(touch.path.as_path());
            verdicts.push(Verdict { change, pid: touch.pid, old, weak, passing });
        }
        let mut unclear = verdicts.iter().all(|v| v.weak);
        // A directory is copied up, and its times are set, for the sake of what changes below it.
        let mut above: HashSet<PathBuf> = HashSet::new();
        for verdict in &verdicts {
            let names = [Some(verdict.change.path.as_path()), verdict.old.as_deref()];
            for name in names.into_iter().flatten() {
                // Once an ancestor is known, so are all above it.
                let _ = name.ancestors().skip(1).all(|ancestor| above.insert(ancestor.to_path_buf()));
            }
        }
        let is_above = |v: &Verdict| v.change.kind == ChangeKind::Attributes && above.contains(&v.change.path);
        verdicts.retain(|v| !(v.weak && above.contains(&v.change.path)));
        // A time of what is in the middle of being copied up; the rest of it is a moment away.
        unclear |= verdicts.iter().any(|v| v.weak);
        // It was touched first for the sake of what is below it.
        verdicts.sort_by_key(is_above);
        if verdicts.is_empty() && self.lost {
            let detail = Some("something in a directory that is gone".to_owned());
            let change = Change { kind: ChangeKind::Delete, path: PathBuf::from("/"), detail, culprit: None };
            verdicts.push(Verdict { change, pid: 0, old: None, weak: true, passing: false });
        }
        (verdicts, unclear)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::FileStat;
    use proptest::prelude::*;

    use super::super::touch::{ATTRIBUTES, DELETED, MODIFIED, Now};
    use super::*;

    /// Files by name: what begins with `i` is in the image, what ends with `w` is a whiteout, with `x` is gone.
    struct Names;

    fn name(path: &Path) -> String {
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn stat(path: &Path) -> Box<FileStat> {
        let any = if name(path).contains("dir") { "/" } else { "/proc/self/exe" };
        Box::new(nix::sys::stat::stat(any).expect("it exists"))
    }

    impl View for Names {
        fn now(&self, path: &Path) -> Now {
            match name(path).chars().last() {
                Some('w') => Now::Whiteout,
                Some('x') => Now::Absent,
                _ => Now::Present { stat: stat(path), opaque: false },
            }
        }

        fn image(&self, path: &Path) -> Option<FileStat> {
            name(path).starts_with('i').then(|| *stat(path))
        }

        fn looks_as_before(&self, _: &Path) -> bool {
            false
        }

        fn xattrs_differ(&self, _: &Path) -> bool {
            false
        }

        fn was_named(&self, _: &[u8]) -> bool {
            false
        }
    }

    fn told(collector: &Collector) -> Vec<(ChangeKind, String)> {
        let (verdicts, _) = collector.verdicts(&Names);
        verdicts.into_iter().map(|v| (v.change.kind, v.change.path.display().to_string())).collect()
    }

    #[test]
    fn a_directory_that_changed_too_is_told_after_what_changed_below_it() {
        let mut collector = Collector::default();
        collector.touch("newdir".into(), ATTRIBUTES, 1, None);
        collector.touch("newdir/f".into(), CREATED, 1, None);
        // It is not in the image, so that its attributes are what differs by themselves.
        let order: Vec<String> = told(&collector).into_iter().map(|(_, path)| path).collect();
        assert_eq!(order.first().map(String::as_str), Some("/newdir/f"), "{order:?}");
    }

    #[test]
    fn a_directory_s_own_event_gives_way_to_what_changed_in_it() {
        let mut collector = Collector::default();
        collector.touch("idir".into(), ARRIVED | ATTRIBUTES, 1, None);
        assert_eq!(told(&collector), [(ChangeKind::Attributes, "/idir".to_owned())]);
        assert!(collector.verdicts(&Names).1, "more may come");
        collector.touch("idir/f".into(), CREATED | MODIFIED, 1, None);
        assert_eq!(told(&collector), [(ChangeKind::Create, "/idir/f".to_owned())]);
        assert!(!collector.verdicts(&Names).1);
    }

    #[test]
    fn the_file_that_was_copied_up_to_be_linked_is_not_told() {
        let mut collector = Collector::default();
        collector.touch("i1".into(), CREATED, 1, Some(b"inode"));
        collector.touch("other".into(), CREATED, 1, Some(b"inode"));
        assert_eq!(told(&collector), [(ChangeKind::Create, "/other".to_owned())]);
    }

    #[test]
    fn what_was_lost_is_told_when_nothing_else_is() {
        let mut collector = Collector::default();
        collector.lost();
        assert_eq!(told(&collector), [(ChangeKind::Delete, "/".to_owned())]);
    }

    #[test]
    fn more_paths_than_are_kept_are_an_overflow() {
        let mut collector = Collector::default();
        (0..=MAX_PATHS).for_each(|i| collector.touch(format!("{i}n").into(), CREATED, 1, None));
        assert!(collector.overflowed());
        assert_eq!(told(&collector).len(), MAX_PATHS);
    }

    proptest! {
        #[test]
        fn whatever_was_created_written_or_deleted_is_told_at_or_below_its_path(
            touches in proptest::collection::vec(("i?(dir)?(/[ab]){0,2}[nwx]", 1u32..64), 1..12)
        ) {
            let mut collector = Collector::default();
            for (path, bits) in &touches {
                collector.touch(path.into(), *bits, 1, None);
            }
            let told = told(&collector);
            for (path, bits) in touches.iter().filter(|(_, bits)| bits & (CREATED | MODIFIED | DELETED) != 0) {
                let path = Path::new("/").join(path);
                prop_assert!(told.iter().any(|(_, p)| Path::new(p).starts_with(&path)), "{path:?} {bits} {told:?}");
            }
        }
    }
}

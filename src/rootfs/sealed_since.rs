//! Since when a container's writable layer is the container's own: what changed there before is the engine's.
//!
//! Owns: the mark that says so. It is an extended attribute of the folder that holds the layer (Docker's and Podman's
//! `<layer>/`, containerd's `snapshots/<n>/`): overlayfs shows the layer and never what holds it, so that no right in the
//! container reaches the mark, while `trusted.*` attributes of the layer itself are its root user's to set. It is made and
//! it goes with the layer. Must not: take a word of the layer itself for true, or keep a container from starting: what can't
//! be told is that nothing is the engine's.
//!
//! Not made durable by itself: a filesystem's journal has it before whatever the container writes later.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{OFlag, openat, readlink};
use nix::sys::stat::Mode;

use crate::sys::statx::statx;
use crate::sys::{proc_fd, xattr};

/// The attribute's name begins so and ends with the layer's own name, as one folder may hold several layers.
pub const SEALED: &str = "trusted.lithify.sealed";

/// How long after a layer was made an engine may still write to it. A container may have run before without us, and nothing
/// on it tells that time from the engine's: past this, what is there counts as the container's.
const ENGINE_WRITES: Duration = Duration::from_secs(10 * 60);

/// Since when a layer is its container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// What changed later is not the engine's for certain.
    pub instant: SystemTime,
    /// When the container was first started under us: what changed between the two may be anybody's.
    pub first_start: SystemTime,
}

/// What a mark says.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    /// `None`: nothing in the layer is known to be the engine's.
    instant: Option<SystemTime>,
    first_start: SystemTime,
    /// Which directory the layer was, and which one held it.
    upper: String,
    holder: String,
}

/// Marks a writable layer as the container's from `now` on, or tells what it was marked with before.
///
/// # Errors
/// Why nothing in it may be taken for the engine's, for whoever is to be told. The container can start without.
pub fn seal_mark(upper: BorrowedFd<'_>, now: SystemTime) -> Result<Since> {
    told(upper, now).context(
        "what the engine wrote before the first start is not part of the root; create the container again if it needs that",
    )
}

fn told(upper: BorrowedFd<'_>, now: SystemTime) -> Result<Since> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let holder = openat(upper, "..", flags, Mode::empty()).context("failed to open what holds the writable layer")?;
    let key = key(upper)?;
    let shown = key.display();
    let fresh = fresh(upper, &holder, now)?;
    // Another start of the same layer may come first: then its mark counts.
    match xattr::create(&holder, &key, fresh.text()?.as_bytes()) {
        Ok(()) => return said(&fresh),
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
        Err(e) => return Err(e).with_context(|| format!("failed to set {shown} beside the writable layer")),
    }
    let value =
        xattr::get(&holder, &key).with_context(|| format!("failed to read {shown} beside the writable layer"))?;
    let value = value.unwrap_or_default();
    let mark = Mark::parse(&value).with_context(|| {
        let start = String::from_utf8_lossy(&value[..value.len().min(64)]);
        format!("{shown} beside the writable layer is no mark of ours: {start:?}")
    })?;
    let replace = |mark: &Mark| {
        let set = xattr::set(&holder, &key, mark.text()?.as_bytes());
        set.with_context(|| format!("failed to set {shown} beside the writable layer"))
    };
    if mark.upper != fresh.upper {
        ensure!(
            mark.holder == fresh.holder,
            "the writable layer is a copy of another one, whose times it does not have"
        );
        // Somebody put another layer in its place.
        replace(&fresh)?;
        return said(&fresh);
    }
    if mark.instant.is_some() && mark.first_start > now {
        // What is written now would seem to be from before: for good, as the clock may be set forward again.
        replace(&Mark { instant: None, ..mark })?;
        bail!("the container was first started later than the clock says it is: the clock was set back");
    }
    said(&mark)
}

fn said(mark: &Mark) -> Result<Since> {
    let instant = mark.instant.context(
        "it is not known when the writable layer became the container's: an earlier version marked it where the container \
         could, its filesystem keeps no time of birth, or the clock was set back",
    )?;
    Ok(Since { instant, first_start: mark.first_start })
}

fn key(upper: BorrowedFd<'_>) -> Result<OsString> {
    let path = PathBuf::from(
        readlink(proc_fd::path(upper).as_str()).context("failed to find the path of the writable layer")?,
    );
    let name = path.file_name().with_context(|| format!("writable layer {} has no name", path.display()))?;
    let mut key = OsString::from(SEALED);
    key.push(".");
    key.push(name);
    Ok(key)
}

/// The mark of a layer that has none.
fn fresh(upper: BorrowedFd<'_>, holder: &OwnedFd, now: SystemTime) -> Result<Mark> {
    // What is compared later is what was written: SystemTime may be finer than the text.
    let now = read_time(&time(now)?).context("the clock can't be told in nanoseconds")?;
    let status = statx(upper).context("failed to look at the writable layer")?;
    // Whoever finds this on a layer without a mark had it from an earlier version, or from the container.
    let marked_before = xattr::get(upper, SEALED.as_ref()).context("failed to look at the writable layer")?.is_some();
    let born = status.born.filter(|_| !marked_before).map(SystemTime::from);
    let instant = born.and_then(|born| born.checked_add(ENGINE_WRITES)).map(|last| last.min(now));
    Ok(Mark { instant, first_start: now, upper: identity(upper)?, holder: identity(holder.as_fd())? })
}

/// A directory's inode number is used again, together with its time of birth it is not.
fn identity(dir: BorrowedFd<'_>) -> Result<String> {
    let status = statx(dir).context("failed to look at the writable layer")?;
    let born = status.born.map(|at| format!("{}.{:09}", at.secs, at.nanos));
    Ok(format!("{}@{}", status.ino, born.as_deref().unwrap_or("-")))
}

fn time(at: SystemTime) -> Result<String> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970; set it")?;
    Ok(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

fn read_time(text: &str) -> Option<SystemTime> {
    let (secs, nanos) = text.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if nanos.len() != 9 || !digits(nanos) || !digits(secs) {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(secs.parse().ok()?, nanos.parse().ok()?))
}

impl Mark {
    /// `instant first-start upper holder`, times as seconds and nanoseconds since 1970, `s.nnnnnnnnn`; `-` for no instant.
    fn text(&self) -> Result<String> {
        let instant = self.instant.map_or(Ok("-".to_owned()), time)?;
        Ok(format!("{instant} {} {} {}", time(self.first_start)?, self.upper, self.holder))
    }

    fn parse(value: &[u8]) -> Option<Mark> {
        let words: Vec<&str> = std::str::from_utf8(value).ok()?.split(' ').collect();
        let [instant, first_start, upper, holder] = words[..] else { return None };
        let instant = if instant == "-" { None } else { Some(read_time(instant)?) };
        let first_start = read_time(first_start)?;
        // An instant after the first start is none of ours.
        let fits = instant.is_none_or(|instant| instant <= first_start);
        fits.then(|| Mark { instant, first_start, upper: upper.to_owned(), holder: holder.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn at(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn layer(dir: &Path) -> PathBuf {
        let upper = dir.join("diff");
        fs::create_dir_all(&upper).unwrap();
        upper
    }

    fn reason(upper: &Path, now: SystemTime) -> String {
        let error = format!("{:#}", seal_mark(at(upper).as_fd(), now).unwrap_err());
        assert!(error.contains("create the container again"), "{error}");
        error
    }

    const KEY: &str = "trusted.lithify.sealed.diff";

    #[test]
    fn a_mark_is_read_as_written_and_nothing_else_is() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::new(secs, 5);
        for instant in [Some(at(1_700_000_000)), None] {
            let mark =
                Mark { instant, first_start: at(1_700_000_001), upper: "7@1.000000000".into(), holder: "8@-".into() };
            assert_eq!(Mark::parse(mark.text().unwrap().as_bytes()), Some(mark));
        }
        let time = "1700000000.000000005";
        for bad in ["", "x", time, "- - 7@- 8@-", "-1.000000000 1.000000000 7@- 8@-", "2.000000000 1.000000000 7@- 8@-"]
        {
            assert_eq!(Mark::parse(bad.as_bytes()), None, "{bad}");
        }
        for bad in ["1700000000", "1700000000.5", "+1.000000000", "1.00000000x", "99999999999999999999.000000000"] {
            assert_eq!(read_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_mark_stays_and_lies_beside_the_layer_not_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let upper = layer(dir.path());
        let first = seal_mark(at(&upper).as_fd(), SystemTime::now()).unwrap();
        assert_eq!(first.instant, first.first_start);
        assert_eq!(seal_mark(at(&upper).as_fd(), SystemTime::now()).unwrap(), first);
        let named = |path: &Path| {
            xattr::list(at(path)).unwrap().iter().any(|name| name.as_bytes().starts_with(SEALED.as_bytes()))
        };
        assert!(named(dir.path()) && !named(&upper));
    }

    #[test]
    fn a_layer_that_is_old_at_its_first_start_is_the_engines_for_its_first_minutes_only() {
        let dir = tempfile::tempdir().unwrap();
        let upper = layer(dir.path());
        let born = SystemTime::from(statx(at(&upper).as_fd()).unwrap().born.expect("a time of birth"));
        let now = born + Duration::from_secs(86400);
        let since = seal_mark(at(&upper).as_fd(), now).unwrap();
        assert_eq!((since.instant, since.first_start), (born + ENGINE_WRITES, now));
    }

    #[test]
    fn a_mark_on_the_layer_itself_makes_nothing_of_it_the_engines_and_one_that_came_later_changes_nothing() {
        for value in ["4102444800.000000000", "1.000000000", "garbage"] {
            let dir = tempfile::tempdir().unwrap();
            let upper = layer(dir.path());
            xattr::set(at(&upper), SEALED.as_ref(), value.as_bytes()).unwrap();
            reason(&upper, SystemTime::now());
            xattr::set(at(&upper), SEALED.as_ref(), b"1.000000000").unwrap();
            reason(&upper, SystemTime::now());
            let other = dir.path().join("other");
            fs::create_dir(&other).unwrap();
            let first = seal_mark(at(&other).as_fd(), SystemTime::now()).unwrap();
            xattr::set(at(&other), SEALED.as_ref(), value.as_bytes()).unwrap();
            assert_eq!(seal_mark(at(&other).as_fd(), SystemTime::now()).unwrap(), first, "{value}");
        }
    }

    #[test]
    fn a_first_start_in_the_future_gives_the_instant_up_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let upper = layer(dir.path());
        let now = SystemTime::now();
        seal_mark(at(&upper).as_fd(), now + Duration::from_secs(60)).unwrap();
        assert!(reason(&upper, now).contains("set back"));
        assert!(reason(&upper, now + Duration::from_secs(120)).contains("not known"));
    }

    #[test]
    fn a_mark_that_is_none_of_ours_is_told_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let upper = layer(dir.path());
        xattr::set(at(dir.path()), KEY.as_ref(), b"\xff".repeat(3000).as_slice()).unwrap();
        assert!(reason(&upper, SystemTime::now()).contains("no mark of ours"));
    }

    #[test]
    fn a_copy_of_a_layer_has_nothing_of_the_engines_and_a_new_layer_in_an_old_ones_place_has() {
        let dir = tempfile::tempdir().unwrap();
        let (first, copy) = (dir.path().join("first"), dir.path().join("copy"));
        let (upper, copied) = (layer(&first), layer(&copy));
        let since = seal_mark(at(&upper).as_fd(), SystemTime::now()).unwrap();
        let mark = xattr::get(at(&first), KEY.as_ref()).unwrap().unwrap();
        xattr::set(at(&copy), KEY.as_ref(), &mark).unwrap();
        assert!(reason(&copied, SystemTime::now()).contains("copy"));
        let moved = dir.path().join("moved");
        fs::rename(&first, &moved).unwrap();
        assert_eq!(seal_mark(at(&moved.join("diff")).as_fd(), SystemTime::now()).unwrap(), since, "moved, not copied");
        fs::rename(moved.join("diff"), dir.path().join("away")).unwrap();
        let again = seal_mark(at(&layer(&moved)).as_fd(), SystemTime::now()).unwrap();
        assert!(again.first_start > since.first_start);
    }
}

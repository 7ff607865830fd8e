//! A path inside a root, as the low-level runtime will resolve it (runc's securejoin): symbolic links lead nowhere but
//! into the root, absolute ones begin at it, `..` stops at it, and what does not exist is taken by its name.
//!
//! No name is ever handed to the kernel as more than one component that is not followed, so nothing that an image has
//! in it can lead out.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use crate::sys::statx::statx;

/// Symbolic links that one path may lead through, as in runc's securejoin and the kernel's own limit times six.
const MAX_LINKS: usize = 255;

/// Components that one path may lead through, links' targets included: a bound on time, far over `PATH_MAX`.
const MAX_STEPS: usize = 16 * 1024;

/// Where a path leads.
#[derive(Debug)]
pub struct Resolved {
    /// Without symbolic links, relative to the root, empty for the root itself.
    pub path: PathBuf,
    /// What is there.
    pub found: Found,
}

/// What is where a path leads.
#[derive(Debug)]
pub enum Found {
    /// It exists; `O_PATH`, possibly not a directory, never a symbolic link.
    Whole(OwnedFd),
    /// Its end does not exist.
    Part {
        /// The directory that does, relative to the root.
        existing: PathBuf,
        /// The components that do not.
        missing: PathBuf,
    },
    /// Something on the way is neither a directory nor a link: nothing can be made there.
    Blocked,
    /// The way leads into a place that something else will cover; `path` is as far as it was followed.
    Covered,
}

enum Node {
    Dir(OwnedFd),
    Other(OwnedFd),
    Missing,
    Blocked,
}

/// Resolves `path` inside the directory `root`. `covered` says of a resolved path that something will be mounted there,
/// so that what the root has beneath it does not count.
///
/// # Errors
/// Too many links or components, a component that is too long, or an error of the filesystem.
pub fn resolve(root: BorrowedFd<'_>, path: &Path, covered: impl Fn(&Path) -> bool) -> Result<Resolved> {
    let mut walked: Vec<(OsString, Node)> = Vec::new();
    let mut ahead: VecDeque<OsString> = VecDeque::new();
    push_front(&mut ahead, path);
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = ahead.pop_front() {
        steps += 1;
        if steps > MAX_STEPS {
            bail!(
                "failed to resolve {} in the root: it leads through more than {MAX_STEPS} components",
                path.display()
            );
        }
        if name == ".." {
            walked.pop();
            continue;
        }
        let parent = match walked.last() {
            None => root,
            Some((_, Node::Dir(fd))) => fd.as_fd(),
            Some((_, Node::Missing)) => {
                walked.push((name, Node::Missing));
                continue;
            }
            Some((_, Node::Other(_) | Node::Blocked)) => {
                walked.push((name, Node::Blocked));
                continue;
            }
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let node = match openat(parent, name.as_os_str(), flags, Mode::empty()) {
            Ok(fd) => {
                let status =
                    statx(fd.as_fd()).with_context(|| format!("failed to read {} in the root", path.display()))?;
                match status.kind() {
                    libc::S_IFDIR => Node::Dir(fd),
                    libc::S_IFLNK => {
                        links += 1;
                        if links > MAX_LINKS {
                            bail!(
                                "failed to resolve {} in the root: more than {MAX_LINKS} symbolic links",
                                path.display()
                            );
                        }
                        let target = PathBuf::from(
                            readlinkat(fd, "")
                                .with_context(|| format!("failed to read a link of {} in the root", path.display()))?,
                        );
                        if target.is_absolute() {
                            walked.clear();
                        }
                        push_front(&mut ahead, &target);
                        continue;
                    }
                    _ => Node::Other(fd),
                }
            }
            Err(Errno::ENOENT) => Node::Missing,
            Err(e) => return Err(e).with_context(|| format!("failed to resolve {} in the root", path.display())),
        };
        walked.push((name, node));
        let here = joined(&walked);
        if covered(&here) {
            return Ok(Resolved { path: here, found: Found::Covered });
        }
    }
    let path = joined(&walked);
    if covered(&path) {
        return Ok(Resolved { path, found: Found::Covered });
    }
    let missing = walked.iter().position(|(_, node)| matches!(node, Node::Missing)).unwrap_or(walked.len());
    let found = match walked.last() {
        Some((_, Node::Blocked)) => Found::Blocked,
        Some((_, Node::Missing)) => {
            Found::Part { existing: joined(&walked[..missing]), missing: joined(&walked[missing..]) }
        }
        Some((_, Node::Dir(_) | Node::Other(_))) | None => match walked.pop() {
            Some((_, Node::Dir(fd) | Node::Other(fd))) => Found::Whole(fd),
            _ => Found::Whole(root.try_clone_to_owned().context("failed to duplicate the root's descriptor")?),
        },
    };
    Ok(Resolved { path, found })
}

fn joined(nodes: &[(OsString, Node)]) -> PathBuf {
    nodes.iter().map(|(name, _)| name).collect()
}

fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root(dir: &Path) -> OwnedFd {
        fs::File::open(dir).unwrap().into()
    }

    fn plain(root: &OwnedFd, path: &str) -> Resolved {
        resolve(root.as_fd(), Path::new(path), |_| false).unwrap()
    }

    #[test]
    fn an_absolute_link_begins_at_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("run")).unwrap();
        fs::create_dir_all(dir.path().join("var")).unwrap();
        symlink("/run", dir.path().join("var/run")).unwrap();
        let got = plain(&root(dir.path()), "/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(got.path, Path::new("run/secrets/kubernetes.io/serviceaccount"));
        let Found::Part { existing, missing } = got.found else { panic!("{:?}", got.found) };
        assert_eq!(
            (existing.as_path(), missing.as_path()),
            (Path::new("run"), Path::new("secrets/kubernetes.io/serviceaccount"))
        );
    }

    #[test]
    fn hostile_symlinks_stay_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        symlink("../../../../../../etc", top.join("up")).unwrap();
        symlink("/etc/passwd", top.join("abs")).unwrap();
        symlink("loop2", top.join("loop1")).unwrap();
        symlink("loop1", top.join("loop2")).unwrap();
        let root = root(top);
        assert_eq!(plain(&root, "up/shadow").path, Path::new("etc/shadow"));
        assert_eq!(plain(&root, "abs").path, Path::new("etc/passwd"));
        assert_eq!(plain(&root, "../../x/../y").path, Path::new("y"));
        let error = resolve(root.as_fd(), Path::new("loop1"), |_| false).unwrap_err();
        assert!(error.to_string().contains("more than 255 symbolic links"), "{error}");
    }

    #[test]
    fn a_file_on_the_way_blocks_and_the_root_is_the_empty_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let root = root(dir.path());
        assert!(matches!(plain(&root, "file/below").found, Found::Blocked));
        assert!(matches!(plain(&root, "file").found, Found::Whole(_)));
        let top = plain(&root, "/..");
        assert!(top.path.as_os_str().is_empty() && matches!(top.found, Found::Whole(_)));
    }

    #[test]
    fn a_covered_place_ends_the_walk_even_where_the_image_has_a_link_beneath() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        symlink("/etc", dir.path().join("data/link")).unwrap();
        let got = resolve(root(dir.path()).as_fd(), Path::new("/data/link/x"), |p| p == Path::new("data")).unwrap();
        assert!(matches!(got.found, Found::Covered));
        assert_eq!(got.path, Path::new("data"));
    }

    #[derive(Debug, Clone)]
    enum Entry {
        Dir(String),
        File(String),
        Link(String, String),
    }

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
    }

    fn some_path() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec!["a", "b", "c", "..", ".", "", "etc"]);
        (any::<bool>(), prop::collection::vec(part, 1..7))
            .prop_map(|(abs, parts)| format!("{}{}", if abs { "/" } else { "" }, parts.join("/")))
    }

    fn tree() -> impl Strategy<Value = Vec<Entry>> {
        let place = || prop::collection::vec(name(), 1..4).prop_map(|p| p.join("/"));
        let entry = prop_oneof![
            2 => place().prop_map(Entry::Dir),
            1 => place().prop_map(Entry::File),
            4 => (place(), some_path()).prop_map(|(p, t)| Entry::Link(p, t)),
        ];
        prop::collection::vec(entry, 0..14)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]
        /// The kernel's own RESOLVE_IN_ROOT is the oracle: what it finds, we find; what we find lies in the root.
        #[test]
        fn whatever_the_tree_resolution_agrees_with_the_kernels(entries in tree(), path in some_path()) {
            let dir = tempfile::tempdir().unwrap();
            for entry in entries {
                // Names that are taken, or lie beneath a file, are left out: any tree will do.
                let _ = match &entry {
                    Entry::Dir(p) => fs::create_dir_all(dir.path().join(p)),
                    Entry::File(p) => fs::write(dir.path().join(p), ""),
                    Entry::Link(p, target) if !target.is_empty() => symlink(target, dir.path().join(p)),
                    Entry::Link(..) => Ok(()),
                };
            }
            let root = root(dir.path());
            let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
            let kernel = openat2(&root, path.as_str(), how);
            let ours = resolve(root.as_fd(), Path::new(&path), |_| false);
            if let Ok(kernel) = &kernel {
                let found = &ours.as_ref().unwrap().found;
                let Found::Whole(fd) = found else { panic!("the kernel finds it, we do not: {found:?}") };
                prop_assert_eq!(statx(kernel.as_fd()).unwrap().ino, statx(fd.as_fd()).unwrap().ino);
            }
            if let Ok(ours) = &ours {
                prop_assert!(ours.path.components().all(|c| matches!(c, Component::Normal(_))), "{:?}", ours.path);
                // The resolved path has no link in it: resolving it again changes nothing.
                prop_assert_eq!(&resolve(root.as_fd(), &ours.path, |_| false).unwrap().path, &ours.path);
            }
        }
    }
}

//! Whether the path of a refused write leads to where its text says. What learning knew is known by its text, and a link that
//! the container itself has made gives any file a text that is known.
//!
//! Owns: that walk, name by name in the container's root. Must not: follow a link that something in the container could have
//! made, cross out of that root, or wait for a file system that is somebody's process or far away.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};

use super::absent::Root;
use crate::mountinfo;
use crate::sys::statx::statx_cached;

/// Links that one path may go through, as in the kernel.
const MOST_LINKS: usize = 40;
/// Names, those of links among them.
const MOST_NAMES: usize = 512;
/// File systems that ask nobody.
const NEAR: [&str; 9] = ["overlay", "tmpfs", "ext4", "xfs", "btrfs", "squashfs", "erofs", "proc", "sysfs"];
/// Linux 5.12: only what the kernel has in memory, without waiting; else `EAGAIN`.
const CACHED: ResolveFlag = ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);

/// The mounts of a container.
#[derive(Debug)]
pub(super) struct Mounted {
    init: i32,
    /// By the number that the kernel gives each.
    mounts: BTreeMap<u64, Mount>,
}

#[derive(Debug, Clone, Copy)]
struct Mount {
    read_only: bool,
    near: bool,
}

/// What a walk has come to: the open file or folder, its mount's number, and its name.
struct Step {
    at: OwnedFd,
    mount: u64,
    name: OsString,
}

impl Mounted {
    /// From the mountinfo of the container's init.
    pub(super) fn parse(init: i32, mountinfo: &[u8]) -> Mounted {
        let has = |options: &OsStr| options.as_bytes().split(|byte| *byte == b',').any(|option| option == b"ro");
        let mounts = mountinfo::parse(mountinfo).entries.into_iter().map(|entry| {
            let read_only = has(&entry.options) || has(&entry.super_options);
            (u64::from(entry.id), Mount { read_only, near: NEAR.iter().any(|name| entry.fs_type == *name) })
        });
        Mounted { init, mounts: mounts.collect() }
    }

    /// Where `path`, as its caller wrote it, leads, if that is on a read-only mount and by no link but those that are on such
    /// mounts themselves; `None`: elsewhere, or that can't be told.
    pub(super) fn read_only_place(&mut self, root: &Root, path: &[u8]) -> Option<PathBuf> {
        let first = Step { at: root.again().ok()?, mount: 0, name: "/".into() };
        let mut steps = vec![Step { mount: statx_cached(first.at.as_fd()).ok()?.mount_id?, ..first }];
        let mut left: Vec<OsString> = names(path);
        let (mut links, mut seen) = (0, 0);
        while let Some(name) = left.pop() {
            seen += 1;
            if seen > MOST_NAMES {
                return None;
            }
            if name == ".." {
                steps.truncate(steps.len().saturating_sub(1).max(1));
                continue;
            }
            let folder = steps.last()?;
            let mount = self.mount(folder.mount)?;
            let at = match open(folder, &name, mount.near) {
                // Nothing can come to be there.
                Err(Errno::ENOENT) if mount.read_only && !left.iter().any(|name| name == "..") => {
                    let below: PathBuf = std::iter::once(name).chain(left.into_iter().rev()).collect();
                    return Some(whole(&steps).join(below));
                }
                opened => opened.ok()?,
            };
            let status = statx_cached(at.as_fd()).ok()?;
            if status.kind() != libc::S_IFLNK {
                steps.push(Step { at, mount: status.mount_id?, name });
                continue;
            }
            links += 1;
            if !mount.read_only || !mount.near || links > MOST_LINKS {
                return None;
            }
            let target = readlinkat(&at, "").ok()?.into_vec();
            if target.starts_with(b"/") {
                steps.truncate(1);
            }
            left.extend(names(&target));
        }
        let place = whole(&steps);
        self.mount(steps.last()?.mount)?.read_only.then_some(place)
    }

    /// The mount with this number; the table is read again for one that was made since.
    fn mount(&mut self, number: u64) -> Option<Mount> {
        if !self.mounts.contains_key(&number) {
            let mountinfo = std::fs::read(format!("/proc/{}/mountinfo", self.init)).ok()?;
            *self = Mounted::parse(self.init, &mountinfo);
        }
        self.mounts.get(&number).copied()
    }
}

/// The names of a path, the last one first.
fn names(path: &[u8]) -> Vec<OsString> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

fn whole(steps: &[Step]) -> PathBuf {
    steps.iter().map(|step| Path::new(&step.name)).collect()
}

fn open(folder: &Step, name: &OsStr, near: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = |resolve| OpenHow::new().flags(flags).resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&folder.at, name, how(CACHED)) {
        // Before Linux 5.12 the flag is none (EINVAL).
        Err(Errno::EAGAIN | Errno::EINVAL) if near => openat2(&folder.at, name, how(ResolveFlag::empty())),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_end_and_dots_are_left_out() {
        let of =
            |path: &'static [u8]| names(path).into_iter().map(|n| n.into_string().expect("text")).collect::<Vec<_>>();
        assert_eq!(of(b"/a//./b/../c/"), ["c", "..", "b", "a"]);
        assert!(of(b"/").is_empty());
    }
}

//! What may be asked, as it crosses the socket, and how it is answered.
//!
//! Owns: the looks themselves. Must not: be called by a process that has anything else to do: each may wait for ever.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys::{memory, statx};

/// Most bytes of memory or of a path (`PATH_MAX`): an answer fits into one message.
const MOST: usize = 4096;
/// Fixed part of a question: kind, pid, two numbers.
const HEAD: usize = 1 + 4 + 8 + 8;

/// One question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question<'a> {
    Text { pid: i32, address: u64, most: usize },
    CommandLine { pid: i32 },
    Program { pid: i32 },
    Place { init: i32, path: &'a Path },
}

impl<'a> Question<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, pid, numbers, text): (u8, i32, [u64; 2], &[u8]) = match self {
            Question::Text { pid, address, most } => (b't', *pid, [*address, *most as u64], b""),
            Question::CommandLine { pid } => (b'c', *pid, [0; 2], b""),
            Question::Program { pid } => (b'p', *pid, [0; 2], b""),
            // One that is too long leads nowhere, as the kernel has it.
            Question::Place { init, path } => {
                let bytes = path.as_os_str().as_bytes();
                (b'f', *init, [0; 2], &bytes[..bytes.len().min(MOST)])
            }
        };
        let mut message = vec![kind];
        message.extend(pid.to_ne_bytes());
        numbers.iter().for_each(|number| message.extend(number.to_ne_bytes()));
        message.extend(text);
        message
    }

    /// `None`: it is none, or nobody asks any more.
    pub(super) fn decode(message: &'a [u8]) -> Option<Question<'a>> {
        let (head, text) = message.split_at_checked(HEAD)?;
        let pid = i32::from_ne_bytes(head[1..5].try_into().ok()?);
        let (address, most) = Numbers(&head[5..]).pair()?;
        Some(match head[0] {
            b't' => Question::Text { pid, address, most: usize::try_from(most).ok()? },
            b'c' => Question::CommandLine { pid },
            b'p' => Question::Program { pid },
            b'f' => Question::Place { init: pid, path: Path::new(std::ffi::OsStr::from_bytes(text)) },
            _ => return None,
        })
    }

    pub(super) fn answer(&self) -> Result<Vec<u8>, Errno> {
        match self {
            Question::Text { pid, address, most } => {
                memory::string_of(*pid, *address, (*most).min(MOST)).map_err(|error| errno_of(&error))
            }
            Question::CommandLine { pid } => {
                let mut bytes = Vec::new();
                let file = File::open(format!("/proc/{pid}/cmdline")).map_err(|error| errno_of(&error))?;
                // A process that ends while it is read leaves what was read so far, which is all there is to know.
                let _ = file.take(MOST as u64).read_to_end(&mut bytes);
                Ok(bytes)
            }
            Question::Program { pid } => {
                let facts = std::fs::metadata(format!("/proc/{pid}/exe")).map_err(|error| errno_of(&error))?;
                Ok([facts.dev().to_ne_bytes(), facts.ino().to_ne_bytes()].concat())
            }
            Question::Place { init, path } => Place::find(*init, path).map(|place| place.encode()),
        }
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Numbers of an answer.
pub(super) struct Numbers<'a>(pub &'a [u8]);

impl Numbers<'_> {
    pub(super) fn pair(&self) -> Option<(u64, u64)> {
        match self.all().as_slice() {
            [one, other] => Some((*one, *other)),
            _ => None,
        }
    }

    fn all(&self) -> Vec<u64> {
        self.0.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes).collect()
    }
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Why there is nothing; `None`: there is.
    pub missing: Option<Errno>,
    /// The mount that it is on; where there is nothing, that of the nearest folder above it that is there.
    pub mounted: Mounted,
    /// The mount of the container's root.
    pub root: Mounted,
}

/// A mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mounted {
    /// As in the first field of mountinfo; `None` before Linux 5.8.
    pub id: Option<u64>,
    /// Type of its file system, `*_MAGIC` of `linux/magic.h`.
    pub magic: i64,
    /// No program on it is run.
    pub noexec: bool,
}

impl Place {
    /// Whether nothing is there for sure.
    pub fn is_missing(&self) -> bool {
        matches!(self.missing, Some(Errno::ENOENT | Errno::ENOTDIR))
    }

    fn find(init: i32, path: &Path) -> Result<Place, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let root = open(format!("/proc/{init}/root").as_str(), flags | OFlag::O_DIRECTORY, Mode::empty())?;
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let lookup = |path: &Path| openat2(&root, path, OpenHow::new().flags(flags).resolve(resolve));
        let (found, missing): (Option<OwnedFd>, _) = match lookup(path) {
            Ok(fd) => (Some(fd), None),
            Err(errno) => (path.ancestors().skip(1).find_map(|above| lookup(above).ok()), Some(errno)),
        };
        let of_root = Mounted::of(root.as_fd())?;
        let mounted = found.map_or(Ok(of_root), |fd| Mounted::of(fd.as_fd()))?;
        Ok(Place { missing, mounted, root: of_root })
    }

    fn encode(&self) -> Vec<u8> {
        let missing = self.missing.map_or(0, |errno| errno as i32 as u64);
        let numbers = [&[missing][..], &self.mounted.numbers(), &self.root.numbers()].concat();
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    pub(super) fn decode(message: &[u8]) -> Option<Place> {
        let numbers: [u64; 7] = Numbers(message).all().try_into().ok()?;
        let [missing, a, b, c, d, e, f] = numbers;
        let missing = (missing != 0).then(|| Errno::from_raw(missing as i32));
        Some(Place { missing, mounted: Mounted::from([a, b, c]), root: Mounted::from([d, e, f]) })
    }
}

impl Mounted {
    fn of(fd: BorrowedFd<'_>) -> Result<Mounted, Errno> {
        let id = statx::statx(fd).map_err(|error| errno_of(&error))?.mount_id;
        let magic = fstatfs(fd)?.filesystem_type().0;
        Ok(Mounted { id, magic, noexec: fstatvfs(fd)?.flags().contains(FsFlags::ST_NOEXEC) })
    }

    fn numbers(self) -> [u64; 3] {
        [self.id.map_or(0, |id| id + 1), self.magic as u64, u64::from(self.noexec)]
    }

    fn from([id, magic, noexec]: [u64; 3]) -> Mounted {
        Mounted { id: id.checked_sub(1), magic: magic as i64, noexec: noexec != 0 }
    }
}

//! The mount calls of Linux 5.2: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A filesystem that is being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

/// `MOUNT_ATTR_*` of fsmount(2): what a mount, not its filesystem, allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttributes(u64);

impl MountAttributes {
    /// No attribute: read-write, relatime, everything allowed.
    pub const NONE: Self = Self(0);
    /// Read-only.
    pub const RDONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Set-user-id bits and file capabilities have no effect.
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// Device files can't be opened.
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Programs can't be executed.
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);
    /// Reading updates no access time.
    pub const NOATIME: Self = Self(libc::MOUNT_ATTR_NOATIME);
    /// Reading always updates the access time.
    pub const STRICTATIME: Self = Self(libc::MOUNT_ATTR_STRICTATIME);
    /// Reading directories updates no access time.
    pub const NODIRATIME: Self = Self(libc::MOUNT_ATTR_NODIRATIME);
    /// Symbolic links are not followed (5.10).
    pub const NOSYMFOLLOW: Self = Self(libc::MOUNT_ATTR_NOSYMFOLLOW);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every attribute of `other` is in this set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl FsContext {
    /// Begins a filesystem of a type.
    ///
    /// # Errors
    /// ENODEV: the kernel has no such filesystem; EPERM: no CAP_SYS_ADMIN; ENOSYS before Linux 5.2.
    pub fn open(fstype: &CStr) -> io::Result<Self> {
        // SAFETY: `fstype` is a C string that outlives the call; nothing else is passed by address.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), libc::FSOPEN_CLOEXEC) };
        owned(fd).map(Self)
    }

    /// Sets a parameter that has a value (at most 255 bytes, which is the kernel's limit).
    ///
    /// # Errors
    /// EINVAL: the filesystem does not know the parameter, or not this value; [`Self::messages`] may say more.
    pub fn set(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        // SAFETY: both are C strings that outlive the call.
        let code = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                libc::FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        };
        done(code)
    }

    /// Sets a parameter that has no value.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn flag(&self, key: &CStr) -> io::Result<()> {
        let null = std::ptr::null::<libc::c_char>();
        // SAFETY: `key` is a C string that outlives the call; a flag's value has to be null.
        let code = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), libc::FSCONFIG_SET_FLAG, key.as_ptr(), null, 0)
        };
        done(code)
    }

    /// Creates the filesystem.
    ///
    /// # Errors
    /// What mount(2) would say; [`Self::messages`] may say more.
    pub fn create(&self) -> io::Result<()> {
        let null = std::ptr::null::<libc::c_char>();
        // SAFETY: the command takes neither key nor value: both have to be null.
        let code =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), libc::FSCONFIG_CMD_CREATE, null, null, 0) };
        done(code)
    }

    /// A mount of the created filesystem that is attached nowhere. It vanishes with the last descriptor of it, unless
    /// [`attach`] gave it a place.
    ///
    /// # Errors
    /// What fsmount(2) says.
    pub fn mount(&self, attributes: MountAttributes) -> io::Result<OwnedFd> {
        // SAFETY: only integers are passed.
        let fd = unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes.0 as libc::c_uint)
        };
        owned(fd)
    }

    /// What the filesystem said while it was configured: one message a line, without the leading class letter. Empty
    /// where it said nothing.
    #[must_use]
    pub fn messages(&self) -> String {
        let mut lines = Vec::new();
        // The kernel keeps at most eight messages.
        for _ in 0..8 {
            let mut buffer = [0u8; 512];
            match nix::unistd::read(&self.0, &mut buffer) {
                Ok(n) if n > 0 => {
                    let text = String::from_utf8_lossy(&buffer[..n]);
                    lines.push(text.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start().to_owned());
                }
                _ => break,
            }
        }
        lines.join("; ")
    }
}

/// Puts a detached mount on top of what `target` (an `O_PATH` directory) is.
///
/// # Errors
/// EINVAL: the target is in another mount namespace; ENOENT: it was removed.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are static empty C strings, which together with the flags mean the descriptors themselves.
    let code = unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), c"".as_ptr(), target.as_raw_fd(), c"".as_ptr(), flags)
    };
    done(code)
}

/// A detached copy of the mount that `fd` lies on, with `fd` as its root; mounts beneath it are not copied.
///
/// # Errors
/// EINVAL: `fd` is in another mount namespace, or unbindable.
pub fn clone_mount(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the path is a static empty C string, which together with AT_EMPTY_PATH means the descriptor itself.
    let new = unsafe { libc::syscall(libc::SYS_open_tree, fd.as_raw_fd(), c"".as_ptr(), flags) };
    owned(new)
}

/// Takes a mount away from where it is attached; who still holds a descriptor of it can go on reading (umount2(2),
/// `MNT_DETACH`).
///
/// # Errors
/// EINVAL: `root` is not the root of a mount of this namespace.
pub fn detach(root: impl AsFd) -> nix::Result<()> {
    nix::mount::umount2(super::proc_fd::path(root.as_fd()).as_str(), nix::mount::MntFlags::MNT_DETACH)
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn done(code: libc::c_long) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

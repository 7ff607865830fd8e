//! The tmpfs that is mounted where a workload is known to write, so that it looks as the image's directory: where it really
//! goes, and with which options.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::listing::names;
use super::resolve::{Found, resolve};
use super::skeleton::MountPoint;
use crate::policy::Scratch;
use crate::policy::values::is_protected;
use crate::sys::statx::statx;

/// The low-level runtimes' option for a tmpfs that begins as what it hides.
const COPY_UP: &str = "tmpcopyup";

/// One scratch mount, worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchMount {
    /// Absolute path in the container, no part of which is a link of the image.
    pub destination: PathBuf,
    /// tmpfs options.
    pub options: Vec<String>,
}

impl ScratchMount {
    /// The low-level runtime copies what the image has there.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        self.options.iter().any(|option| option == COPY_UP)
    }
}

/// Where a scratch path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// To a place of the image.
    Here(ScratchMount),
    /// To where config.json mounts something.
    Taken,
    /// Into something that config.json mounts there: what is in it, links too, is somebody else's to say.
    Into(PathBuf),
}

/// Where the mounts of config.json really go, relative to the root. `image` is as in [`scratch_mount`].
///
/// # Errors
/// When one can't be resolved.
pub fn mounted_places(image: BorrowedFd<'_>, mounts: &[MountPoint]) -> Result<Vec<PathBuf>> {
    let mut places: Vec<PathBuf> = Vec::new();
    for mount in mounts {
        let at = resolve(image, &mount.destination, |path| places.iter().any(|place| place == path))?;
        if !matches!(at.found, Found::Covered) && !at.path.as_os_str().is_empty() {
            places.push(at.path);
        }
    }
    Ok(places)
}

/// The mount for a scratch path: where its links in the image lead, with owner, mode and sticky bit of the image's directory,
/// and `tmpcopyup` where that has content. Where the image lacks it, `owner` (the process's user and group) gets it, with
/// mode 1777 for `/tmp` and `/var/tmp` and 0755 for others. `image` is from [`super::Ground::view`];
/// `mounted` is from [`mounted_places`].
///
/// # Errors
/// When the path is the root itself, leads into a system folder that it does not name, is not a directory in the image, or
/// can't be resolved.
pub fn scratch_mount(
    image: BorrowedFd<'_>,
    scratch: &Scratch,
    default_size_bytes: u64,
    owner: (u32, u32),
    mounted: &[PathBuf],
) -> Result<Leads> {
    let shown = scratch.path.display();
    let at = resolve(image, &scratch.path, |path| mounted.iter().any(|place| place == path))
        .with_context(|| format!("failed to look for scratch path {shown}"))?;
    if at.path.as_os_str().is_empty() {
        bail!("failed to set up scratch path {shown}: it is the root of the container; name a directory in it");
    }
    let destination = Path::new("/").join(&at.path);
    // An image's author must not say which system folder can be written to.
    ensure!(
        is_named(&scratch.path, &destination),
        "failed to set up scratch path {shown}: in the image it leads to {}, in a system folder; name that, if it is meant",
        destination.display()
    );
    let missing =
        (owner, if [Path::new("tmp"), Path::new("var/tmp")].contains(&&*at.path) { 0o1777 } else { 0o755 }, false);
    let ((uid, gid), mode, copy_up) = match at.found {
        Found::Whole(dir) => {
            let status =
                statx(dir.as_fd()).with_context(|| format!("failed to read scratch path {shown} of the image"))?;
            if !status.is_dir() {
                bail!("failed to set up scratch path {shown}: the image has a file there; name a directory");
            }
            let content = names(dir.as_fd(), 1).with_context(|| format!("failed to list scratch path {shown}"))?;
            ((status.uid, status.gid), status.mode & 0o7777, !content.is_empty())
        }
        Found::Blocked => bail!("failed to set up scratch path {shown}: the image has a file on the way to it"),
        Found::Covered if destination == scratch.path => return Ok(Leads::Taken),
        Found::Covered => return Ok(Leads::Into(destination)),
        Found::Part { .. } => missing,
    };
    let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
    if !scratch.exec {
        options.push("noexec".to_owned());
    }
    options.push(format!("size={}", scratch.size_bytes.unwrap_or(default_size_bytes)));
    options.push(format!("mode={mode:o}"));
    options.push(format!("uid={uid}"));
    options.push(format!("gid={gid}"));
    if copy_up {
        options.push(COPY_UP.to_owned());
    }
    Ok(Leads::Here(ScratchMount { destination, options }))
}

/// Whether a path that leads to `destination` may: in a system folder it has to be its name, with `/lib` and its like in
/// `/usr` as images have them today.
fn is_named(path: &Path, destination: &Path) -> bool {
    let in_usr = || destination.strip_prefix("/usr").is_ok_and(|rest| Path::new("/").join(rest) == path);
    !is_protected(destination) || destination == path || is_protected(path) && in_usr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn options(root: &Path, path: &str, exec: bool) -> Result<String> {
        let image: OwnedFd = fs::File::open(root).unwrap().into();
        let scratch = Scratch { path: path.into(), size_bytes: None, exec, learnt: false };
        match scratch_mount(image.as_fd(), &scratch, 1 << 20, (101, 102), &[])? {
            Leads::Here(mount) => Ok(mount.options.join(",")),
            other => panic!("{other:?}"),
        }
    }

    fn leads(root: &Path, path: &str, mounts: &[&str]) -> Result<Leads> {
        let image: OwnedFd = fs::File::open(root).unwrap().into();
        let point = |path: &&str| MountPoint { destination: path.into(), is_file: false };
        let mounted = mounted_places(image.as_fd(), &mounts.iter().map(point).collect::<Vec<_>>())?;
        let scratch = Scratch { path: path.into(), size_bytes: None, exec: false, learnt: false };
        scratch_mount(image.as_fd(), &scratch, 1 << 20, (0, 0), &mounted)
    }

    #[test]
    fn scratch_has_mode_owner_and_content_of_the_images_directory() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("var/cache/web");
        fs::create_dir_all(&cache).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o3770)).unwrap();
        std::os::unix::fs::chown(&cache, Some(33), Some(34)).unwrap();
        symlink("/var/cache/web", dir.path().join("link")).unwrap();
        let empty = "nosuid,nodev,noexec,size=1048576,mode=3770,uid=33,gid=34";
        assert_eq!(options(dir.path(), "/link", false).unwrap(), empty);
        fs::write(cache.join("seed"), "x").unwrap();
        assert_eq!(options(dir.path(), "/var/cache/web", false).unwrap(), format!("{empty},tmpcopyup"));
    }

    #[test]
    fn scratch_that_the_image_lacks_belongs_to_the_process() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(options(dir.path(), "/tmp", true).unwrap(), "nosuid,nodev,size=1048576,mode=1777,uid=101,gid=102");
        assert!(options(dir.path(), "/data/x", true).unwrap().contains("mode=755,uid=101,gid=102"));
    }

    #[test]
    fn scratch_on_a_file_or_the_root_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        assert!(options(dir.path(), "/f", false).unwrap_err().to_string().contains("name a directory"));
        assert!(options(dir.path(), "/f/x", false).unwrap_err().to_string().contains("a file on the way"));
        assert!(options(dir.path(), "/..", false).unwrap_err().to_string().contains("name a directory in it"));
    }

    #[test]
    fn no_link_of_an_image_makes_a_system_folder_writable_and_others_lead_where_they_say() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc/app", "usr/lib/x", "run", "var", "data"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for (link, target) in [
            ("opt", "/etc"),
            ("srv", "usr/lib"),
            ("lib", "usr/lib"),
            ("var/run", "../run"),
            ("way", "opt/app"),
            ("new", "/etc/none/yet"),
            ("etc/elsewhere", "/usr/lib"),
            ("all", "/"),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        let refused = ["/opt", "/opt/app", "/opt/none", "/srv", "/srv/x", "/way", "/new", "/etc/elsewhere", "/all/etc"];
        for path in refused {
            let error = leads(dir.path(), path, &[]).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("system folder; name that"), "{path}: {error}");
        }
        for (path, place) in
            [("/var/run/x", "/run/x"), ("/lib/x", "/usr/lib/x"), ("/etc/app", "/etc/app"), ("/data", "/data")]
        {
            match leads(dir.path(), path, &[]).unwrap() {
                Leads::Here(mount) => assert_eq!(mount.destination, Path::new(place), "{path}"),
                other => panic!("{path}: {other:?}"),
            }
        }
    }

    #[test]
    fn scratch_is_never_put_into_what_the_engine_mounts_by_whichever_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("data/in")).unwrap();
        symlink("/data", dir.path().join("link")).unwrap();
        for mounts in [["/data", "/"], ["/link", "/data/in"]] {
            assert_eq!(leads(dir.path(), "/data", &mounts).unwrap(), Leads::Taken);
            for path in ["/link", "/data/in", "/data/none", "/link/in"] {
                assert_eq!(leads(dir.path(), path, &mounts).unwrap(), Leads::Into("/data".into()), "{path} {mounts:?}");
            }
        }
        assert!(matches!(leads(dir.path(), "/data", &["/data/in"]).unwrap(), Leads::Here(_)));
    }
}

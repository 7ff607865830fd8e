//! Options of the tmpfs that is mounted where a workload is known to write, so that it looks as the image's directory.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::listing::names;
use super::resolve::{Found, resolve};
use crate::policy::Scratch;
use crate::sys::statx::statx;

/// Mount options for config.json: owner, mode and sticky bit of the image's directory, `tmpcopyup` where it has content.
/// Where the image lacks it, `owner` (the process's user and group) gets it, with mode 1777 for `/tmp` and `/var/tmp`
/// and 0755 for others. `image` is the root of the image, from [`super::Staging::image`].
///
/// # Errors
/// When the path is the root itself, not a directory in the image, or can't be resolved.
pub fn scratch_options(
    image: BorrowedFd<'_>,
    scratch: &Scratch,
    default_size_bytes: u64,
    owner: (u32, u32),
) -> Result<Vec<String>> {
    let shown = scratch.path.display();
    let at =
        resolve(image, &scratch.path, |_| false).with_context(|| format!("failed to look for scratch path {shown}"))?;
    if at.path.as_os_str().is_empty() {
        bail!("failed to set up scratch path {shown}: it is the root of the container; name a directory in it");
    }
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
        Found::Part { .. } | Found::Covered => missing,
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
        options.push("tmpcopyup".to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn options(root: &Path, path: &str, exec: bool) -> Result<String> {
        let image: OwnedFd = fs::File::open(root).unwrap().into();
        let scratch = Scratch { path: path.into(), size_bytes: None, exec };
        scratch_options(image.as_fd(), &scratch, 1 << 20, (101, 102)).map(|o| o.join(","))
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
}

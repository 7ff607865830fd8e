//! The test images, made once by `integration/images` and shared by all tests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command::run;

/// An image made from Debian packages.
#[derive(Debug, Clone, Copy)]
pub enum Image {
    /// A shell, and `/srv/file`, `/srv/dir/nested` to attack.
    Busybox,
    /// Serves `/srv/www/index.html` on port 80; writes to /run and /var/lib/nginx.
    Nginx,
    /// In memory, as user redis.
    Redis,
    /// A cluster in /var/lib/postgresql/data, as user postgres; its socket is in /run/postgresql.
    Postgres,
}

impl Image {
    fn name(self) -> &'static str {
        match self {
            Image::Busybox => "busybox",
            Image::Nginx => "nginx",
            Image::Redis => "redis",
            Image::Postgres => "postgres",
        }
    }

    /// The name that engines know it by.
    pub fn reference(self) -> String {
        format!("localhost/{}:lithify", self.name())
    }

    /// Its docker-archive, for `load` and `import`.
    pub fn archive(self) -> Result<String> {
        Ok(folder()?.join(format!("{}.tar", self.name())).display().to_string())
    }

    /// Its unpacked root filesystem; never to be written to.
    pub fn rootfs(self) -> Result<PathBuf> {
        Ok(folder()?.join(self.name()).join("rootfs"))
    }
}

/// The folder of the images; the script that makes them returns at once when they are there.
pub fn folder() -> Result<PathBuf> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = package.join("target/integration");
    run(Command::new(package.join("integration/images")).arg(&folder))?.success()?;
    Ok(folder)
}

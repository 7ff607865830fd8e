//! The test images, made once by `integration/images` and shared by all tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::command::run_within;

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
    /// A front on port 8080 and two servers behind it, as user haproxy.
    Haproxy,
    /// On port 11211, as user memcache.
    Memcached,
    /// http.server with sqlite3 on port 8080, as root; writes to /srv/app/data and /var/log/app, and tries .pyc files.
    Python,
    /// The same service in Node.js, as user app.
    Node,
    /// The same service in Java, as user app.
    Java,
    /// cron under a shell, as root, with CGI scripts on port 8080; writes to /var/lib/service.
    Cron,
    /// Apache with PHP on port 8080, a process for each connection, as www-data.
    Apache,
    /// A Python application under gunicorn on port 8080, as user app.
    Gunicorn,
}

impl Image {
    /// The name of its folder, and of its loads.
    pub fn name(self) -> &'static str {
        match self {
            Image::Busybox => "busybox",
            Image::Nginx => "nginx",
            Image::Redis => "redis",
            Image::Postgres => "postgres",
            Image::Haproxy => "haproxy",
            Image::Memcached => "memcached",
            Image::Python => "python",
            Image::Node => "node",
            Image::Java => "java",
            Image::Cron => "cron",
            Image::Apache => "apache",
            Image::Gunicorn => "gunicorn",
        }
    }

    /// Whether it is one of those in `integration/services`, which are made only for whoever asks.
    fn is_on_demand(self) -> bool {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/services").join(self.name()).exists()
    }

    /// The name that engines know it by.
    pub fn reference(self) -> String {
        format!("localhost/{}:lithify", self.name())
    }

    /// Its docker-archive, for `load` and `import`.
    pub fn archive(self) -> Result<String> {
        Ok(self.made()?.join(format!("{}.tar", self.name())).display().to_string())
    }

    /// Its unpacked root filesystem; never to be written to.
    pub fn rootfs(self) -> Result<PathBuf> {
        Ok(self.made()?.join(self.name()).join("rootfs"))
    }

    /// The folder of the images, with this one in it.
    fn made(self) -> Result<PathBuf> {
        let name = self.name();
        if self.is_on_demand() { make(&[name]) } else { make(&[]) }
    }
}

/// The folder of the images; the script that makes them returns at once when they are there.
pub fn folder() -> Result<PathBuf> {
    make(&[])
}

fn make(on_demand: &[&str]) -> Result<PathBuf> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = package.join("target/integration");
    // Packages are downloaded and unpacked the first time.
    let patience = Duration::from_secs(300);
    run_within(Command::new(package.join("integration/images")).arg(&folder).args(on_demand), patience)?.success()?;
    Ok(folder)
}

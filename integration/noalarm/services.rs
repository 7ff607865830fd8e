//! The services that must not be alarmed about: how each is run, asked, probed, and told to open its log again.
//!
//! Owns: that table. Must not: start anything.

use crate::images::Image;

/// How a log that was put aside is opened anew.
#[derive(Debug, Clone, Copy)]
pub enum Reopen {
    /// By a signal.
    Signal(&'static str),
    /// By a command in a session.
    Session(&'static str),
}

/// A log in a folder of the host's.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The folder in the container.
    pub folder: &'static str,
    /// Its file there.
    pub file: &'static str,
    /// How it is opened anew.
    pub reopen: Reopen,
}

/// One service.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Its image.
    pub image: Image,
    /// Its argv; empty: the image's own.
    pub argv: &'static [&'static str],
    /// Its load in `integration/loads`; another one of that name is in `integration/loads/other`.
    pub load: &'static str,
    /// The health probe: a line for the image's shell.
    pub probe: &'static str,
    /// A folder for which its own image would declare a volume.
    pub data: Option<&'static str>,
    /// Its log, if that is not its stdout.
    pub log: Option<Log>,
    /// Its exit status after the engine's stop, which is what it is without lithify.
    pub stopped: i64,
    /// Seconds of learning that it takes at the least to see all that its load does.
    pub cycle_seconds: u64,
}

const HEALTH: &str = "wget -q -O /dev/null http://127.0.0.1:8080/health";
const APP_LOG: Option<Log> = Some(Log { folder: "/var/log/app", file: "access.log", reopen: Reopen::Signal("HUP") });

pub const NGINX: Service = Service {
    image: Image::Nginx,
    argv: &["/usr/sbin/nginx", "-c", "/etc/nginx/logged.conf"],
    load: "nginx",
    probe: "wget -q -O /dev/null http://127.0.0.1/",
    data: None,
    log: Some(Log { folder: "/var/log/nginx", file: "access.log", reopen: Reopen::Signal("USR1") }),
    stopped: 0,
    cycle_seconds: 0,
};

pub const REDIS: Service = Service {
    image: Image::Redis,
    argv: &["/usr/bin/redis-server", "/etc/redis/redis.conf", "--logfile", "/var/log/redis/redis.log"],
    load: "redis",
    probe: "redis-cli ping",
    data: None,
    // It opens its log for every line: there is nothing to be told. A signal that it ignores stands for that.
    log: Some(Log { folder: "/var/log/redis", file: "redis.log", reopen: Reopen::Signal("HUP") }),
    stopped: 0,
    cycle_seconds: 0,
};

pub const POSTGRES: Service = Service {
    image: Image::Postgres,
    argv: &[
        "/usr/bin/postgres",
        "--logging_collector=on",
        "--log_directory=/var/log/postgresql",
        "--log_filename=postgresql.log",
        "--log_connections=on",
    ],
    load: "postgres",
    probe: "psql --host /run/postgresql --command 'select 1'",
    data: Some("/var/lib/postgresql/data"),
    log: Some(Log {
        folder: "/var/log/postgresql",
        file: "postgresql.log",
        reopen: Reopen::Session("psql --host /run/postgresql --command 'select pg_rotate_logfile()'"),
    }),
    stopped: 0,
    cycle_seconds: 0,
};

pub const HAPROXY: Service = Service {
    image: Image::Haproxy,
    argv: &[],
    load: "haproxy",
    probe: HEALTH,
    data: None,
    log: None,
    stopped: 0,
    cycle_seconds: 0,
};

pub const MEMCACHED: Service = Service {
    image: Image::Memcached,
    argv: &[],
    load: "memcached",
    probe: "echo version | nc 127.0.0.1 11211 | grep VERSION",
    data: None,
    log: None,
    stopped: 0,
    cycle_seconds: 0,
};

pub const PYTHON: Service = Service {
    image: Image::Python,
    argv: &[],
    load: "notes",
    probe: HEALTH,
    data: None,
    log: APP_LOG,
    stopped: 0,
    cycle_seconds: 0,
};

pub const NODE: Service = Service { image: Image::Node, ..PYTHON };

/// The JVM ends by the signal's number after its shutdown hooks.
pub const JAVA: Service = Service { image: Image::Java, stopped: 128 + 15, ..PYTHON };

pub const CRON: Service = Service {
    image: Image::Cron,
    argv: &[],
    load: "cron",
    probe: "pidof cron && test -s /var/lib/service/done",
    data: None,
    log: None,
    stopped: 0,
    // cron has nothing shorter than a minute.
    cycle_seconds: 75,
};

/// A quiet start shows a few of its processes, and none of its uploads.
pub const APACHE: Service = Service {
    image: Image::Apache,
    load: "apache",
    probe: "wget -q -O /dev/null http://127.0.0.1:8080/page.html",
    log: Some(Log { folder: "/var/log/apache2", file: "access.log", reopen: Reopen::Signal("USR1") }),
    ..MEMCACHED
};

pub const GUNICORN: Service = Service {
    image: Image::Gunicorn,
    load: "gunicorn",
    log: Some(Log { folder: "/var/log/app", file: "access.log", reopen: Reopen::Signal("USR1") }),
    ..PYTHON
};

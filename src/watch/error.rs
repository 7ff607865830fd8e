//! Why a watch could not be set up, in a shape the supervisor can act on.
//!
//! Owns: the typed error and its words. Must not: choose the fallback.

use std::fmt;
use std::io;

/// Why a watch can't be had, or has ended.
#[derive(Debug)]
pub enum WatchError {
    /// A limit of this node is used up; raising it is the remedy.
    LimitReached {
        /// The sysctl's name, e.g. `fs.inotify.max_user_instances`; for a limit of our own, the name of the setting.
        sysctl: &'static str,
        /// Its value now, where it can be read.
        current: Option<u64>,
    },
    /// This kernel, filesystem or privilege can't do it; another watch has to stand in.
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// Anything else, with its context.
    Other(anyhow::Error),
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WatchError::LimitReached { sysctl, current } if !sysctl.starts_with("fs.") => {
                let current = current.unwrap_or(0);
                write!(f, "failed to watch: the limit {sysctl} is used up at {current}; raise it, or use a tripwire")
            }
            WatchError::LimitReached { sysctl, current: Some(current) } => {
                write!(f, "failed to watch: {sysctl} = {current} is used up; raise it with 'sysctl -w {sysctl}=…'")
            }
            WatchError::LimitReached { sysctl, current: None } => {
                write!(f, "failed to watch: {sysctl} is used up; raise it with 'sysctl -w {sysctl}=…'")
            }
            WatchError::Unsupported { what, .. } => write!(f, "failed to watch: {what} is not available here"),
            WatchError::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WatchError::LimitReached { .. } => None,
            WatchError::Unsupported { cause, .. } => Some(cause),
            WatchError::Other(error) => error.source(),
        }
    }
}

impl From<anyhow::Error> for WatchError {
    fn from(error: anyhow::Error) -> Self {
        WatchError::Other(error)
    }
}

impl WatchError {
    /// `EMFILE` has two causes: the node's limit of `sysctl`, or this process's limit of open files.
    pub(super) fn too_many(sysctl: &'static str, cause: io::Error) -> WatchError {
        match std::fs::File::open("/dev/null") {
            Err(e) if e.raw_os_error() == Some(libc::EMFILE) => WatchError::Other(
                anyhow::Error::from(cause)
                    .context("failed to open a watch: this process's limit of open files is used up"),
            ),
            _ => WatchError::limit(sysctl),
        }
    }

    /// A node limit, with its value of this moment. `sysctl` is a dotted name below `/proc/sys`.
    pub(super) fn limit(sysctl: &'static str) -> WatchError {
        let current = std::fs::read_to_string(format!("/proc/sys/{}", sysctl.replace('.', "/")))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        WatchError::LimitReached { sysctl, current }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_with_its_name_its_value_and_the_remedy() {
        let text = WatchError::limit("fs.inotify.max_user_instances").to_string();
        assert!(text.contains("fs.inotify.max_user_instances = "), "{text}");
        assert!(text.contains("sysctl -w fs.inotify.max_user_instances="), "{text}");
    }

    #[test]
    fn the_cause_stays_in_the_source() {
        let error = WatchError::Unsupported { what: "fanotify", cause: io::Error::from_raw_os_error(libc::EPERM) };
        assert!(!error.to_string().contains("permitted"));
        assert!(std::error::Error::source(&error).is_some_and(|s| s.to_string().contains("permitted")));
    }
}

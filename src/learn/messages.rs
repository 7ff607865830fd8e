//! What is said on a collector's socket: JSON, one message a packet, one answer a request.
//!
//! ```text
//! {"arm":{"pid":4711,"generation":1}}   →  {"armed":{"degraded":[]}}
//! {"end":{}}                            →  {"written":{"observation":"0190…","degraded":[]}}
//! the socket's end: finish and exit (where nobody stays, see Subject::unattended, it means nothing)
//! ```

use serde::{Deserialize, Serialize};

/// To the collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Record from this init's next `execve` on. To be sent before the init is let go.
    Arm {
        /// Container init, in our pid namespace.
        pid: i32,
        /// 1 for the first life.
        generation: u64,
    },
    /// The generation has ended, or is about to: one last look, then write.
    End {},
}

/// From the collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Reply {
    /// The container may go.
    Armed {
        /// What will not be seen, in words; empty when nothing.
        degraded: Vec<String>,
    },
    /// The observation is on disk, as far as `degraded` does not say otherwise.
    Written {
        /// Its id; `None` when there was nothing to write, or it could not be written.
        observation: Option<String>,
        /// What went wrong, in words.
        degraded: Vec<String>,
    },
}

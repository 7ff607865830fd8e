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

/// Most bytes of one answer's reasons as JSON; with what is around them they fit a packet.
const MAX_REASONS_BYTES: usize = 7 << 10;

impl Reply {
    /// The same, as long as a packet may be: the first reasons tell most.
    pub(super) fn bounded(&self) -> Reply {
        let mut left = MAX_REASONS_BYTES;
        let mut cut = |reasons: &[String]| -> Vec<String> {
            let cut_one = |reason: &String| {
                left = left.checked_sub(3)?;
                let kept = reason.chars().take_while(|c| match left.checked_sub(json_bytes(*c)) {
                    Some(rest) => {
                        left = rest;
                        true
                    }
                    None => false,
                });
                Some(kept.collect())
            };
            reasons.iter().map_while(cut_one).collect()
        };
        match self {
            Reply::Armed { degraded } => Reply::Armed { degraded: cut(degraded) },
            Reply::Written { observation, degraded } => {
                Reply::Written { observation: observation.clone(), degraded: cut(degraded) }
            }
        }
    }
}

/// What a character takes in JSON, at most (RFC 8259, 7).
fn json_bytes(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    #[test]
    fn messages_are_written_as_the_other_side_reads_them() {
        let json = |value: &Reply| serde_json::to_string(value).expect("JSON");
        assert_eq!(json(&Reply::Armed { degraded: vec!["x".to_owned()] }), r#"{"armed":{"degraded":["x"]}}"#);
        let written = Reply::Written { observation: None, degraded: Vec::new() };
        assert_eq!(json(&written), r#"{"written":{"observation":null,"degraded":[]}}"#);
        let arm: Request = serde_json::from_str(r#"{"arm":{"pid":7,"generation":2}}"#).expect("a request");
        assert_eq!(arm, Request::Arm { pid: 7, generation: 2 });
        assert_eq!(serde_json::from_str::<Request>(r#"{"end":{}}"#).expect("a request"), Request::End {});
    }

    #[test]
    fn an_answer_fits_a_packet_whatever_went_wrong() {
        for text in ["x", "\u{1}", "\u{10ffff}"] {
            let degraded = vec![text.repeat(10_000); 100];
            let reply = Reply::Written { observation: Some("0".repeat(32)), degraded }.bounded();
            assert!(serde_json::to_vec(&reply).expect("JSON").len() <= socket::MAX_MESSAGE, "{text:?}");
        }
    }
}

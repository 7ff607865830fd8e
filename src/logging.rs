//! How a failure of ours reaches the engine: one line in `--log`, as runc writes it, and the same words on stderr.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;

use crate::events::clock;

/// Tells an error, its causes in one line. Engines take `msg` of the last JSON line whose `level` is `error`.
pub fn report(log: Option<&Path>, json: bool, error: &anyhow::Error) {
    let message = format!("{error:#}");
    if let Some(log) = log {
        let time = clock::format(clock::now_micros());
        let line = if json {
            format!("{}\n", json!({ "level": "error", "msg": message, "time": time }))
        } else {
            format!("time={time:?} level=error msg={message:?}\n")
        };
        // One write: engines and the low-level runtime may append at the same time. Non-blocking: nobody may read a fifo.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = std::fs::OpenOptions::new().append(true).create(true).custom_flags(flags).open(log);
        if let Ok(mut file) = file {
            let _ = file.write_all(line.as_bytes());
        }
    }
    let _ = writeln!(std::io::stderr(), "{message}");
}

//! Values as they are written in annotations, for messages. Must not: read any.

use super::{ExecRule, Mode, Response, RestartLimit, RootfsKind, values};

/// A value as it is written in an annotation.
pub(super) trait Show {
    fn show(&self) -> String;
}

impl Show for Mode {
    fn show(&self) -> String {
        super::word(self)
    }
}

impl Show for RootfsKind {
    fn show(&self) -> String {
        super::word(self)
    }
}

impl Show for Response {
    fn show(&self) -> String {
        super::word(self)
    }
}

impl Show for ExecRule {
    fn show(&self) -> String {
        super::word(self)
    }
}

impl Show for RestartLimit {
    fn show(&self) -> String {
        format!("{}/{}", self.count, values::show_duration(self.window))
    }
}

impl Show for Option<std::time::Duration> {
    fn show(&self) -> String {
        self.map_or("off".to_string(), values::show_duration)
    }
}

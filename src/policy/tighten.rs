//! Which of two values is the stricter, key by key. Must not: know where the values come from.
//!
//! Each function says whether `new` is at least as strict as `node`.

use std::time::Duration;

use super::{ExecRule, Mode, Response, RestartLimit, RootfsKind};

/// off < learn < observe < auto < enforce.
pub fn mode(new: Mode, node: Mode) -> bool {
    new >= node
}

/// engine < tripwire < sealed.
pub fn rootfs(new: RootfsKind, node: RootfsKind) -> bool {
    let rank = |kind| match kind {
        RootfsKind::Engine => 0,
        RootfsKind::Tripwire => 1,
        RootfsKind::Sealed => 2,
    };
    rank(new) >= rank(node)
}

/// report < pause < stop = restart: after either of the last two nothing of the breach runs on.
pub fn response(new: Response, node: Response) -> bool {
    let rank = |response| match response {
        Response::Report => 0,
        Response::Pause => 1,
        Response::Stop | Response::Restart => 2,
    };
    rank(new) >= rank(node)
}

/// allow < profile < deny.
pub fn exec(new: ExecRule, node: ExecRule) -> bool {
    new >= node
}

/// Stricter: no more restarts in one burst, and no more of them per time.
pub fn restart_limit(new: RestartLimit, node: RestartLimit) -> bool {
    let rate = |a: RestartLimit, b: RestartLimit| u128::from(a.count) * b.window.as_millis();
    new.count <= node.count && rate(new, node) <= rate(node, new)
}

/// off < a long time < a short time.
pub fn renew_every(new: Option<Duration>, node: Option<Duration>) -> bool {
    match (new, node) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(new), Some(node)) => new <= node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_with_a_lower_rate_but_a_larger_burst_is_not_stricter() {
        let limit = |count, s| RestartLimit { count, window: Duration::from_secs(s) };
        assert!(restart_limit(limit(5, 60), limit(5, 60)));
        assert!(restart_limit(limit(2, 30), limit(5, 60)));
        assert!(!restart_limit(limit(1, 10), limit(5, 60)));
        assert!(!restart_limit(limit(100, 86_400), limit(5, 60)));
    }

    #[test]
    fn every_order_is_reflexive() {
        for m in Mode::ALL {
            assert!(mode(m, m));
        }
        assert!(Mode::ALL.windows(2).all(|pair| mode(pair[1], pair[0]) && !mode(pair[0], pair[1])));
        for r in [Response::Report, Response::Pause, Response::Stop, Response::Restart] {
            assert!(response(r, r));
        }
        assert!(response(Response::Stop, Response::Restart) && response(Response::Restart, Response::Stop));
        assert!(!response(Response::Pause, Response::Stop) && !response(Response::Report, Response::Pause));
        assert!(!renew_every(None, Some(Duration::from_secs(1))));
    }
}

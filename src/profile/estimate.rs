//! When is learning done? The unseen-species problem: the chance that the next observation window, or the next start, shows
//! something new, from how often what was seen was seen.
//!
//! Owns: the estimate, its bound, and how they are said. Must not: decide what risk is acceptable.
//!
//! # The estimate
//!
//! Call a window *lonely* if it saw an item that no other window of any generation saw. Leave any one of `m` windows out,
//! and the chance that it shows something that the others have not is the chance that it is lonely: with `S` lonely windows,
//! `S / m` is Good and Turing's estimate, unbiased for `m - 1` windows, whatever the items' rates are, and however many
//! items come together. It takes windows to be exchangeable. Start-ups are not, which is why the same is said of whole
//! generations; and what no load has exercised yet, no statistics can know.
//!
//! # The bound
//!
//! What a user relies on is the chance *given* what was seen, so the bound has to hold for that: over all histories, in at
//! least 95 % of them, the true remaining chance is at most
//!
//! ```text
//! (S + 10 + 5·√S) / m        and never more than 1
//! ```
//!
//! The rule of three (`3 / m` where nothing is lonely) does not hold here. Take `K` items that each come at the rate `a / m`:
//! those unseen are Poisson with mean `λ = K·exp(-a)`, those seen once Poisson with mean `a·λ`, independently. With `S = 0`,
//! one unseen item of rate `a > c` breaks a bound `c / m`, and that history has the chance `exp(-aλ)·(1 - exp(-λ))`, at most
//! `(c / (c + 1))^c / (c + 1)`: 10.5 % for `c = 3`, 4.9 % for 7, 3.5 % for 10; the histories with `S > 0` add theirs. For large
//! `S`, the standard deviation of (unseen rate · m − S) is `√((1 + a)·S)`, where `a` can be as large as the logarithm of the
//! number of kinds: `5·√S` is 1.645 of them for `a ≤ 8.2`, enough for 10,000 kinds of items, where `4·√S` is not.
//!
//! Computed over one to four classes of items, up to 10,000 kinds at any rates, the worst mixture breaks the bound in
//! 3.8 % of histories (about 2,500 kinds at the rate `10 / m`); `7` and `4` in place of `10` and `5` would break in 5.6 %. With a
//! million kinds it is 5.8 %. The tests simulate it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::Profile;
use super::document::Generation;
use super::observation::Loss;

/// What stands for 95 % where nothing is lonely: see the module's text.
const ALONE: f64 = 10.0;
/// How the bound widens with the root of the lonely ones.
const SPREAD: f64 = 5.0;
/// In [`super::document::Generation::unseen`]: the sensor did not run at all.
pub const UNSEEN_EVERYTHING: &str = "everything";

/// The chance that the next one shows something new.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    /// How many there were: windows, or generations.
    pub total: u64,
    /// How many of them saw something that no other did.
    pub lonely: u64,
    /// The most likely chance, 0 to 1; 1 where there were none.
    pub point: f64,
    /// With 95 % confidence, the chance is not larger, 0 to 1.
    pub bound: f64,
}

impl Estimate {
    /// From `lonely` of `total`.
    pub fn new(lonely: u64, total: u64) -> Estimate {
        if total == 0 {
            return Estimate { total, lonely, point: 1.0, bound: 1.0 };
        }
        let m = total as f64;
        Estimate { total, lonely, point: (lonely as f64 / m).min(1.0), bound: (weight(lonely) / m).min(1.0) }
    }

    /// How many more it takes, none of them with anything new, until the bound is within `risk` (over 0 to 1).
    pub fn missing(&self, risk: f64) -> u64 {
        ((weight(self.lonely) / risk).ceil() as u64).saturating_sub(self.total)
    }
}

/// What the bound is, times the number there were.
fn weight(lonely: u64) -> f64 {
    let s = lonely as f64;
    s + ALONE + SPREAD * s.sqrt()
}

/// How far learning has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// Length of the observation windows in seconds, if all have the same.
    pub window_seconds: Option<u32>,
    /// Of the next window of a container that runs.
    pub next_window: Estimate,
    /// Of the next start, over all its life.
    pub next_start: Estimate,
    /// Why the profile may not be all that was done; empty: nothing was missed.
    pub partial: Vec<String>,
    /// Whether what the estimates are made from could be seen in full. Generations with loss, or without a sensor, count
    /// neither as windows nor as starts: what they showed is kept, but they are no evidence that there is nothing else,
    /// and one flooded replica does not hold up its siblings for good.
    pub seen_in_full: bool,
}

impl Progress {
    /// Of a profile, for its workload; sessions let in later are people's doing, and follow no law.
    pub fn of(profile: &Profile) -> Progress {
        // Where not everything could be seen, that nothing was seen says nothing.
        let counts = |g: &&Generation| g.loss == Loss::default() && !g.unseen.contains(UNSEEN_EVERYTHING);
        let counted = || profile.generations.values().filter(counts);
        let mut windows = BTreeSet::new();
        let mut starts = BTreeSet::new();
        for (_, _, seen) in profile.workload_behaviour.items() {
            if let (1, Some((id, count))) = (seen.generations.len(), seen.generations.first_key_value())
                && profile.generations.get(id).is_none_or(|g| counts(&g))
            {
                starts.insert(id.as_str());
                if *count == 1 {
                    windows.insert((id.as_str(), seen.first.as_str()));
                }
            }
        }
        let total = counted().map(|g| u64::from(g.windows)).sum();
        let lengths: BTreeSet<u32> = profile.generations.values().map(|g| g.window_seconds).collect();
        Progress {
            window_seconds: lengths.first().copied().filter(|_| lengths.len() == 1),
            next_window: Estimate::new(windows.len() as u64, total),
            next_start: Estimate::new(starts.len() as u64, counted().count() as u64),
            partial: partial(profile),
            seen_in_full: profile.cut.is_empty()
                && counted().next().is_some()
                && counted().all(|g| g.unseen.is_empty()),
        }
    }

    /// Whether enough was seen, all of it in full, and the chance of something new in the next window is within
    /// `risk` (0 to 1) with 95 % confidence, after at least this many generations.
    pub fn is_complete(&self, risk: f64, generations: u64) -> bool {
        self.seen_in_full && self.next_window.bound <= risk && self.next_start.total >= generations
    }
}

/// A sentence: how likely it is that something is still to come.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = match self.window_seconds {
            Some(1) => "second".to_string(),
            Some(60) => "minute".to_string(),
            Some(3600) => "hour".to_string(),
            Some(n) if n % 60 == 0 => format!("{} minutes", n / 60),
            Some(n) => format!("{n} seconds"),
            None => "observation window".to_string(),
        };
        if self.next_window.bound >= 1.0 {
            let total = self.next_window.total;
            let few = if total == 1 { "window seen in full is" } else { "windows seen in full are" };
            return write!(f, "nothing can be said yet about the next {window}: {total} {few} too few");
        }
        let bound = percent_up(self.next_window.bound);
        write!(f, "the chance that the next {window} shows something new is under {bound} % (95 % confidence)")
    }
}

/// Why a profile is not all that its generations did.
fn partial(profile: &Profile) -> Vec<String> {
    let all = profile.generations.len();
    let mut reasons = Vec::new();
    let lossy = profile.generations.values().filter(|g| g.loss != Default::default());
    let lost: u64 = lossy.clone().map(|g| g.loss.table_full + g.loss.unreadable + g.loss.untracked).sum();
    if lost > 0 {
        reasons.push(format!("{} of {all} generations lost records ({lost} in all)", lossy.count()));
    }
    let parts: BTreeSet<&String> = profile.generations.values().flat_map(|g| &g.unseen).collect();
    for part in parts {
        let count = profile.generations.values().filter(|g| g.unseen.contains(part)).count();
        reasons.push(match part.as_str() {
            UNSEEN_EVERYTHING => format!("{count} of {all} generations ran without a sensor"),
            part => format!("{count} of {all} generations could not see {part}"),
        });
    }
    reasons.extend(profile.cut.iter().map(|section| format!("{section} were too many, and are cut")));
    reasons
}

/// Percent, rounded up to two digits that count: what is said to be under it, is.
pub fn percent_up(chance: f64) -> String {
    let percent = chance * 100.0;
    let decimals = if percent >= 10.0 {
        0
    } else if percent >= 1.0 {
        1
    } else if percent >= 0.1 {
        2
    } else {
        3
    };
    let scale = 10f64.powi(decimals);
    // What floating point adds to a round number is not to be rounded up.
    format!("{:.*}", decimals as usize, (percent * scale - 1e-9).ceil() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_never_said_smaller_than_it_is() {
        for (chance, said) in
            [(0.0123, "1.3"), (0.1, "10"), (0.101, "11"), (0.00101, "0.11"), (0.000_011, "0.002"), (0.05, "5.0")]
        {
            assert_eq!(percent_up(chance), said);
        }
    }

    #[test]
    fn without_a_window_nothing_is_known_and_with_many_quiet_ones_much() {
        assert_eq!(Estimate::new(0, 0).bound, 1.0);
        assert_eq!(Estimate::new(3, 2).bound, 1.0);
        assert_eq!(Estimate::new(0, 1000).bound, 0.01);
        assert_eq!(Estimate::new(4, 1000), Estimate { total: 1000, lonely: 4, point: 0.004, bound: 0.024 });
    }

    #[test]
    fn what_is_missing_is_what_brings_the_bound_down_to_the_risk_and_not_one_more() {
        for (lonely, total) in [(0, 0), (0, 10), (0, 999), (0, 1000), (4, 10), (900, 1000)] {
            let missing = Estimate::new(lonely, total).missing(0.01);
            let within = |more: u64| Estimate::new(lonely, total + more).bound <= 0.01 + 1e-12;
            assert!(within(missing) && (missing == 0 || !within(missing - 1)), "{lonely} of {total}: {missing}");
        }
        assert_eq!(Estimate::new(1, 1).missing(0.0), u64::MAX - 1, "never");
    }

    #[test]
    fn the_sentence_names_the_length_of_a_window() {
        let mut progress = Progress {
            window_seconds: Some(60),
            next_window: Estimate::new(0, 800),
            next_start: Estimate::new(0, 3),
            partial: Vec::new(),
            seen_in_full: true,
        };
        let said = "the chance that the next minute shows something new is under 1.3 % (95 % confidence)";
        assert_eq!(progress.to_string(), said);
        progress.window_seconds = Some(300);
        assert!(progress.to_string().contains("the next 5 minutes shows"));
        progress.next_window = Estimate::new(0, 1);
        assert!(progress.to_string().starts_with("nothing can be said yet about the next 5 minutes: 1 window seen"));
        assert!(!progress.is_complete(1.0, 4));
    }
}

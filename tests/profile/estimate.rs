//! The stated bound holds: simulated workloads whose rates are known.

use lithify::profile::{Estimate, Profile, Progress};

use super::build;

/// splitmix64: fixed seeds, the same histories everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// In how many of `trials` histories of `m` windows the true chance of something new is within the bound, as a share. Each
/// item comes in each window with its own chance, independently.
fn coverage(rates: &[f64], m: usize, trials: u32, seed: u64) -> f64 {
    let mut random = Random(seed);
    // Chances that an item was seen in no window, and in none or one; and what it then adds to the logarithm.
    let items: Vec<[f64; 3]> = rates
        .iter()
        .map(|p| {
            let never = (1.0 - p).powi(m as i32);
            [never, never + m as f64 * p * (1.0 - p).powi(m as i32 - 1), (1.0 - p).max(1e-300).ln()]
        })
        .collect();
    let mut lonely = vec![0u32; m];
    let mut held = 0u32;
    for trial in 1..=trials {
        let (mut count, mut nothing_new) = (0, 0.0);
        for [never, once, ln] in &items {
            let drawn = random.unit();
            if drawn < *never {
                nothing_new += ln;
            } else if drawn < *once {
                let window = (random.next() % m as u64) as usize;
                count += u64::from(lonely[window] != trial);
                lonely[window] = trial;
            }
        }
        held += u32::from(1.0 - nothing_new.exp() <= Estimate::new(count, m as u64).bound);
    }
    f64::from(held) / f64::from(trials)
}

fn assert_holds(name: &str, rates: &[f64], m: usize, trials: u32) {
    let held = coverage(rates, m, trials, 0x6c69_7468_6966_7900 ^ m as u64);
    assert!(held >= 0.95, "{name}, {m} windows: the bound holds in {:.2} % only", held * 100.0);
}

const WINDOWS: [usize; 4] = [50, 200, 1000, 5000];

#[test]
fn the_bound_holds_for_items_of_equal_rates_however_adversarial() {
    for m in WINDOWS {
        for kinds in [1, 2, 10, 100, 1000] {
            for rate in 1..=12 {
                assert_holds(&format!("{kinds} at {rate}/m"), &vec![f64::from(rate) / m as f64; kinds], m, 1000);
            }
        }
    }
}

#[test]
fn the_bound_holds_for_ten_thousand_kinds() {
    for rate in [1, 3, 5, 7, 8, 9, 10, 12] {
        assert_holds(&format!("10000 at {rate}/m"), &vec![f64::from(rate) / 1000.0; 10_000], 1000, 1000);
    }
}

#[test]
fn the_bound_holds_for_zipfs_law() {
    for m in WINDOWS {
        for exponent in [0.5, 1.0, 1.5, 2.0] {
            for kinds in [10, 100, 1000] {
                for most in [1.0, 0.1, 0.01] {
                    let rates: Vec<f64> = (1..=kinds).map(|i| most / f64::from(i).powf(exponent)).collect();
                    assert_holds(&format!("Zipf {exponent}, {kinds} kinds, {most}"), &rates, m, 1000);
                }
            }
        }
    }
}

#[test]
fn the_bound_holds_for_mixtures_of_common_and_rare() {
    let mixtures: [&[(usize, f64)]; 5] = [
        &[(60, 500.0), (20, 10.01), (200, 0.1)],
        &[(2500, 10.01), (3, 11.5)],
        &[(500, 8.15), (4600, 13.6)],
        &[(10, 3.0), (10, 6.0), (10, 9.0)],
        &[(1000, 0.5), (100, 7.0), (5, 9.0)],
    ];
    for mixture in mixtures {
        let rates: Vec<f64> = mixture.iter().flat_map(|(kinds, rate)| vec![rate / 1000.0; *kinds]).collect();
        assert_holds(&format!("{mixture:?}"), &rates, 1000, 1000);
    }
}

#[test]
fn the_bound_holds_where_it_is_weakest_with_less_noise() {
    for (kinds, rate) in [(2500, 10.02), (400, 8.02), (1, 10.01)] {
        assert_holds(&format!("{kinds} at {rate}/m"), &vec![rate / 5000.0; kinds], 5000, 10_000);
    }
}

#[test]
fn the_rule_of_three_would_not_hold() {
    // What this estimate is more careful than: were it not needed, this test would say so.
    let (m, kinds, rate): (usize, usize, f64) = (300, 6, 3.05);
    let mut random = Random(1);
    let broken = (0..3000)
        .filter(|_| {
            let counts: Vec<usize> =
                (0..kinds).map(|_| (0..m).filter(|_| random.unit() < rate / m as f64).count()).collect();
            counts.contains(&0) && !counts.contains(&1)
        })
        .count();
    assert!(broken > 200, "{broken}");
}

#[test]
fn progress_counts_lonely_windows_and_starts_as_counting_them_one_by_one_does() {
    let mut random = Random(7);
    let names: Vec<String> = (0..40).map(|n| lithify::profile::syscalls::name(false, n)).collect();
    for _ in 0..50 {
        // sightings[generation][item]: the windows that saw it.
        let generations = 1 + random.next() % 4;
        let sightings: Vec<Vec<Vec<u64>>> = (0..generations)
            .map(|_| {
                let chances: Vec<f64> = (0..names.len()).map(|i| 0.5 / (1.0 + i as f64)).collect();
                chances.iter().map(|p| (0..10).filter(|_| random.unit() < *p).collect()).collect()
            })
            .collect();
        let mut profile: Option<Profile> = None;
        for (n, items) in sightings.iter().enumerate() {
            let mut o = build::observation(n as u64 + 1);
            for (name, windows) in names.iter().zip(items) {
                if let (Some(first), Some(last)) = (windows.first(), windows.last()) {
                    let seen = build::seen(*first, *last, windows.len() as u32);
                    o.workload_behaviour.syscalls.insert(name.clone(), seen);
                }
            }
            profile = Some(match profile {
                Some(profile) => profile.fold(&o).unwrap(),
                None => Profile::of(&o),
            });
        }
        let total = |item: usize| sightings.iter().map(|g| g[item].len()).sum::<usize>();
        let lonely = |g: &Vec<Vec<u64>>, w: u64| (0..names.len()).any(|i| g[i].contains(&w) && total(i) == 1);
        let windows = sightings.iter().map(|g| (0..10).filter(|w| lonely(g, *w)).count()).sum::<usize>();
        let only_here = |g: &Vec<Vec<u64>>, i: usize| !g[i].is_empty() && total(i) == g[i].len();
        let starts = sightings.iter().filter(|g| (0..names.len()).any(|i| only_here(g, i))).count();
        let progress = Progress::of(&profile.unwrap());
        assert_eq!((progress.next_window.lonely, progress.next_window.total), (windows as u64, generations * 10));
        assert_eq!((progress.next_start.lonely, progress.next_start.total), (starts as u64, generations));
    }
}

#[test]
fn what_was_lost_or_could_not_be_seen_makes_a_profile_partial_and_is_no_evidence() {
    let mut o = build::full(1);
    o.windows = 100_000;
    assert!(Progress::of(&Profile::of(&o)).is_complete(0.01, 1));
    o.loss.table_full = 7;
    let mut blind = build::observation(2);
    blind.unseen = vec!["everything".to_string()];
    let progress = Progress::of(&Profile::of(&o).fold(&blind).unwrap());
    assert!(!progress.is_complete(1.0, 1));
    assert_eq!(
        progress.partial,
        ["1 of 2 generations lost records (7 in all)", "1 of 2 generations ran without a sensor"]
    );
    assert_eq!((progress.next_window.total, progress.next_start.total), (0, 0));
    // Beside one that was seen in full they change nothing: one flooded replica can't hold up the others.
    let mut whole = build::full(3);
    whole.windows = 100_000;
    let beside = Progress::of(&Profile::of(&whole).fold(&o).unwrap().fold(&blind).unwrap());
    assert!(beside.is_complete(0.01, 1) && !beside.is_complete(0.01, 2) && !beside.partial.is_empty());
    assert_eq!((beside.next_window.total, beside.next_start.total), (100_000, 1));
    // What a counted one could not see of itself, it is no evidence of either.
    whole.unseen = vec!["capabilities".to_string()];
    assert!(!Progress::of(&Profile::of(&whole)).is_complete(1.0, 1));
}

//! What the sensor and the guard cost: run this program with the word `measure`. Figures, not a test: they are the machine's.

use std::io::BufRead;
use std::time::Instant;

use lithify::sensor::guard::Rules;
use lithify::sensor::place::BPFFS;

use crate::container::{Container, World, options};

pub const WORD: &str = "measure";
const ROUNDS: usize = 15;
const TIMES: &str = "500000";

/// What is loaded, and whether for the container that makes the calls.
const STATES: [&str; 5] = ["nobody", "guard, neighbour", "guard, armed", "sensor, neighbour", "sensor, recorded"];

pub fn run() {
    let mut calls = vec![Vec::new(); STATES.len()];
    let mut opens = vec![Vec::new(); STATES.len()];
    let (mut load, mut arm) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    let (mut read, mut disarm) = (Vec::new(), Vec::new());
    // As many programs as a busy image has.
    let allowed = (0..64).map(|i| format!("/usr/bin/program-{i}")).collect();
    let rules = Rules { kill_foreign: true, allowed, capabilities: u64::MAX };
    let number = libc::SYS_getpid.to_string();
    let acts: [Vec<&str>; 2] = [vec!["calls", &number, TIMES], vec!["guard", "opens", "/etc/passwd", TIMES]];
    for _ in 0..ROUNDS {
        for (act, figures) in acts.iter().zip([&mut calls, &mut opens]) {
            // Interleaved: a machine's mood is the same for all of them.
            figures[0].extend(loop_of(act, |_| {}));
            let world = World::new();
            let guard = time(&mut load[0], 1e3, || world.guard());
            figures[1].extend(loop_of(act, |_| {}));
            let mut guarded = None;
            figures[2].extend(loop_of(act, |container| {
                guarded = Some(time(&mut arm[0], 1e6, || guard.arm(container.pid(), &rules).unwrap()));
            }));
            drop((guarded, guard));
            let sensor = time(&mut load[1], 1e3, || world.sensor());
            figures[3].extend(loop_of(act, |_| {}));
            let mut armed = None;
            figures[4].extend(loop_of(act, |container| {
                armed = Some(time(&mut arm[1], 1e6, || sensor.arm(container.pid(), options()).unwrap()));
            }));
            let armed = armed.unwrap();
            time(&mut read, 1e6, || armed.read().unwrap());
            time(&mut disarm, 1e3, || armed.disarm().unwrap());
        }
    }
    println!("{:20} {:>24} {:>24}", "", "getpid", "openat and close");
    let (call, open): (Vec<_>, Vec<_>) = calls.into_iter().zip(opens).map(|(c, o)| (median(c), median(o))).unzip();
    for (i, state) in STATES.iter().enumerate() {
        let figure = |all: &[f64]| format!("{:8.1} ns {:+7.1} {:5.3}", all[i], all[i] - all[0], all[i] / all[0]);
        println!("{state:20} {:>24} {:>24}", figure(&call), figure(&open));
    }
    for (i, set) in ["guard", "sensor"].iter().enumerate() {
        println!("{set}: load {:.1} ms; arm {:.0} us", median(load[i].clone()), median(arm[i].clone()));
    }
    println!("sensor: read {:.0} us; disarm the last {:.1} ms", median(read), median(disarm));
}

/// Runs it, and adds how long it took, in seconds times `unit`.
fn time<T>(figures: &mut Vec<f64>, unit: f64, what: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = what();
    figures.push(began.elapsed().as_secs_f64() * unit);
    done
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds of one round in a container that `before` has done something to; none if somebody else's programs were
/// loaded meanwhile, whose cost it would be, too.
fn loop_of(act: &[&str], before: impl FnOnce(&Container)) -> Option<f64> {
    let mut container = Container::heard(act);
    before(&container);
    let alone = sets_of_programs();
    container.go();
    let mut line = String::new();
    container.output().read_line(&mut line).unwrap();
    assert_eq!(container.end(), 0);
    (alone <= 1 && sets_of_programs() == alone).then(|| line.trim().parse().unwrap())
}

/// How many of ours are pinned on this machine.
fn sets_of_programs() -> usize {
    let pins = std::fs::read_dir(BPFFS).into_iter().flatten().flatten();
    pins.filter(|e| e.file_name().to_string_lossy().starts_with("lithify")).count()
}

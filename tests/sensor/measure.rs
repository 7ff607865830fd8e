//! What the sensor and the guard cost: run this program with the word `measure`. Figures, not a test: they are the machine's.

use std::io::BufRead;
use std::time::Instant;

use lithify::sensor::guard::Rules;

use crate::container::{Container, World, options};

pub const WORD: &str = "measure";
const ROUNDS: usize = 12;
/// In a round, of each state.
const EACH: usize = 5;
const TIMES: &str = "200000";
/// Most programs of one set.
const SET: usize = 6;

/// What is loaded, and whether for the container that makes the calls.
const STATES: [&str; 5] = ["nobody", "guard, neighbour", "guard, armed", "sensor, neighbour", "sensor, recorded"];

pub fn run() {
    let mut figures: [[Vec<f64>; STATES.len()]; 2] = Default::default();
    let (mut load, mut arm) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    let (mut read, mut disarm) = (Vec::new(), Vec::new());
    // As many programs as a busy image has.
    let allowed = (0..64).map(|i| format!("/usr/bin/program-{i}")).collect();
    let rules = Rules { kill_foreign: true, allowed, capabilities: u64::MAX, quiet_seconds: 60, ..Rules::default() };
    let number = libc::SYS_getpid.to_string();
    let acts: [Vec<&str>; 2] = [vec!["calls", &number, TIMES], vec!["guard", "opens", "/etc/passwd", TIMES]];
    let base = programs();
    println!("{base} programs of others are here");
    // Interleaved: a machine's mood is the same for all of them.
    for _ in 0..ROUNDS {
        let mut state = |state: usize, before: &mut dyn FnMut(&Container)| {
            let quiet = if state == 0 { base } else { base + SET };
            for _ in 0..EACH {
                for (act, figures) in acts.iter().zip(&mut figures) {
                    figures[state].extend(loop_of(act, quiet, &mut *before));
                }
            }
        };
        state(0, &mut |_| {});
        let world = World::new();
        let guard = time(&mut load[0], 1e3, || world.guard());
        state(1, &mut |_| {});
        let mut held = None;
        // The one before goes when the next has been armed: it stays loaded.
        state(2, &mut |container| {
            held = Some(time(&mut arm[0], 1e6, || guard.arm(container.pid(), &rules).unwrap()));
        });
        drop(held);
        let sensor = time(&mut load[1], 1e3, || world.sensor());
        state(3, &mut |_| {});
        let mut held = None;
        state(4, &mut |container| {
            held = Some(time(&mut arm[1], 1e6, || sensor.arm(container.pid(), options()).unwrap()));
        });
        let held = held.unwrap();
        time(&mut read, 1e6, || held.read().unwrap());
        time(&mut disarm, 1e3, || held.disarm().unwrap());
    }
    for (what, figures) in ["getpid", "openat and close"].iter().zip(&figures) {
        let nobody = (least(&figures[0]), median(figures[0].clone()));
        println!("{what}: ns, the least and the median of so many, and more than with nobody");
        for (state, figures) in STATES.iter().zip(figures) {
            let (least, median) = (least(figures), median(figures.clone()));
            let (more, times) = (least - nobody.0, least / nobody.0);
            print!("  {state:18} {least:7.1} {more:+6.1} {times:5.3}");
            println!("   {median:7.1} {:+6.1} {:5.3}   of {}", median - nobody.1, median / nobody.1, figures.len());
        }
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

fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NAN, f64::min)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds of one round in a container that `before` has done something to; none if somebody else's programs were
/// loaded meanwhile, whose cost it would be, too.
fn loop_of(act: &[&str], quiet: usize, before: impl FnOnce(&Container)) -> Option<f64> {
    let mut container = Container::heard(act);
    before(&container);
    let others = programs() > quiet;
    container.go();
    let mut line = String::new();
    container.output().read_line(&mut line).unwrap();
    assert_eq!(container.end(), 0);
    (!others && programs() <= quiet).then(|| line.trim().parse().unwrap())
}

/// How many BPF programs this kernel has.
fn programs() -> usize {
    // The head of `union bpf_attr` for BPF_PROG_GET_NEXT_ID (11): where to begin, what was found, flags.
    let mut attr = [0u32; 4];
    let next = |attr: &mut [u32; 4]| {
        attr[0] = attr[1];
        // SAFETY: the attribute outlives the call, is as long as said, and holds no pointers.
        unsafe { libc::syscall(libc::SYS_bpf, 11, attr.as_mut_ptr(), size_of_val(attr)) == 0 }
    };
    std::iter::from_fn(|| next(&mut attr).then_some(())).count()
}

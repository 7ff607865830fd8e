//! What the sensor costs: run this program with the word `measure`. Figures, not a test: they are the machine's.

use std::io::BufRead;
use std::time::Instant;

use crate::container::{Container, World, ctl, options};

pub const WORD: &str = "measure";
const ROUNDS: usize = 9;

pub fn run() {
    let (mut nobody, mut neighbour, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
    let (mut load, mut arm, mut read, mut disarm) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Interleaved: a machine's mood is the same for all three.
        nobody.push(loop_of(|_| {}));
        let world = World::new();
        let began = Instant::now();
        assert!(ctl(&["sensor", "load", "--state-dir"], &world.place).output().unwrap().status.success());
        load.push(began.elapsed().as_secs_f64() * 1e3);
        neighbour.push(loop_of(|_| {}));
        let sensor = world.sensor();
        let mut armed = None;
        recorded.push(loop_of(|container| {
            let began = Instant::now();
            armed = Some(sensor.arm(container.pid(), options()).unwrap());
            arm.push(began.elapsed().as_secs_f64() * 1e6);
        }));
        let armed = armed.unwrap();
        let began = Instant::now();
        armed.read().unwrap();
        read.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        armed.disarm().unwrap();
        disarm.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let base = median(nobody);
    println!("a call, nobody learns:   {base:7.1} ns");
    println!("a call, neighbour:       {:+7.1} ns", median(neighbour) - base);
    println!("a call, recorded:        {:+7.1} ns", median(recorded) - base);
    println!(
        "load: {:.1} ms; arm: {:.0} us; read: {:.0} us; disarm the last: {:.1} ms",
        median(load),
        median(arm),
        median(read),
        median(disarm)
    );
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Nanoseconds of a getpid in a container that `before` has done something to.
fn loop_of(before: impl FnOnce(&Container)) -> f64 {
    let mut container = Container::heard(&["calls", &libc::SYS_getpid.to_string(), "2000000"]);
    before(&container);
    container.go();
    let mut line = String::new();
    container.output().read_line(&mut line).unwrap();
    assert_eq!(container.end(), 0);
    line.trim().parse().unwrap()
}

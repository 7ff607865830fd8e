//! Sockets: listened on, connected and sent to.

use std::io::BufRead;

use lithify::sensor::reading::{Direction, Loss, Operation, Peer};

use crate::container::{Container, World, options};
use crate::harness::Test;

pub const TESTS: &[Test] = &[("network::what_listens_and_what_is_connected_or_sent_to_is_seen", peers)];

fn peers() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let path = path.to_str().unwrap();
    let mut container = Container::heard(&["network", path]);
    let armed = world.sensor().arm(container.pid(), options()).unwrap();
    let mut output = container.output();
    container.go();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(container.end(), 0);
    let words: Vec<&str> = line.trim().split(' ').collect();
    let (tcp, udp, refused) = (words[0], words[1], words[2]);
    let reading = armed.read().unwrap();
    assert_eq!(reading.loss, Loss::default(), "a message that is none is no loss");
    let facts = reading.workload;
    let seen = |direction, protocol: &str, address: &str| {
        let peer = Peer { direction, protocol: protocol.into(), address: address.into() };
        assert!(facts.peers.contains_key(&peer), "{peer:?} is not in {:?}", facts.peers);
    };
    seen(Direction::Listen, "tcp", tcp);
    seen(Direction::Connect, "tcp", tcp);
    seen(Direction::Connect, "tcp", refused);
    seen(Direction::Listen, "udp", udp);
    seen(Direction::Connect, "udp", "127.0.0.1:9");
    if let Some(six) = words.get(3) {
        seen(Direction::Listen, "tcp", six);
    }
    let socket = format!("{path}/s");
    seen(Direction::Listen, "unix", &socket);
    seen(Direction::Connect, "unix", &socket);
    seen(Direction::Listen, "unix", "@sensor-test");
    assert!(facts.paths.keys().any(|p| p.path == socket && p.operation == Operation::Create), "{:?}", facts.paths);
    armed.disarm().unwrap();
}

//! Addresses of sockets: a port that the kernel chose is `*`, and so are hosts of which there are many.
//!
//! Owns: what stands for an address. Pure. A limit: of a workload that talks to more than [`MANY_PEERS`] hosts by one port,
//! or ports of one host, it is no longer told which they were.

use std::collections::{BTreeMap, BTreeSet};

use crate::profile::generalise::{escape, is_number, paths, shape};

/// Connections to more hosts than this by one protocol and port are to `*`; to more ports of one host likewise.
pub const MANY_PEERS: usize = 16;

/// Each `host:port` that was connected to with what stands for it, by protocol and address.
pub fn peers<'a>(addresses: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<(String, String), String> {
    let all: BTreeSet<(&str, &str)> = addresses.into_iter().collect();
    let mut hosts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut ports: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (protocol, address) in &all {
        if let Some((host, port)) = host_port(address) {
            *hosts.entry((protocol, port)).or_default() += 1;
            *ports.entry((protocol, host)).or_default() += 1;
        }
    }
    let of = |(protocol, address): (&str, &str)| {
        let Some((host, port)) = host_port(address) else { return address.to_owned() };
        let many = |counts: &BTreeMap<(&str, &str), usize>, key: &str| {
            counts.get(&(protocol, key)).is_some_and(|n| *n > MANY_PEERS)
        };
        let host = if many(&hosts, port) { "*" } else { host };
        let port = if many(&ports, host) { "*" } else { port };
        format!("{host}:{port}")
    };
    all.into_iter().map(|key| ((key.0.to_owned(), key.1.to_owned()), of(key))).collect()
}

/// An address that is listened on: a port that the kernel chose is `*`.
pub fn listener(address: &str, ephemeral: (u16, u16)) -> String {
    match host_port(address).and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
        Some((host, port)) if (ephemeral.0..=ephemeral.1).contains(&port) => format!("{host}:*"),
        _ => address.to_owned(),
    }
}

fn host_port(address: &str) -> Option<(&str, &str)> {
    if address.starts_with(['/', '@']) {
        return None;
    }
    address.rsplit_once(':').filter(|(_, port)| !port.is_empty() && is_number(port))
}

/// The name of a Unix socket: a path, or an abstract name, which the kernel may have chosen (unix(7), autobind).
pub fn unix_name(name: &str) -> String {
    let is_autobind = |n: &str| n.len() == 5 && n.bytes().all(|b| b.is_ascii_hexdigit());
    match name.strip_prefix('@') {
        Some(rest) if is_autobind(rest) => "@*".to_owned(),
        Some(rest) => format!("@{}", shape(&escape(rest), true)),
        None => paths([name]).remove(name).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_the_ephemeral_range_is_any_and_a_service_s_port_is_itself() {
        let range = (32768, 60999);
        assert_eq!(listener("0.0.0.0:80", range), "0.0.0.0:80");
        assert_eq!(listener("[::1]:40000", range), "[::1]:*");
        assert_eq!(listener("127.0.0.1:32768", range), "127.0.0.1:*");
        assert_eq!(listener("127.0.0.1:61000", range), "127.0.0.1:61000");
        for odd in ["/run/x:40000", "@x:40000", "nothing", "a:", "a:99999", "a:x"] {
            assert_eq!(listener(odd, range), odd);
        }
    }

    #[test]
    fn many_hosts_by_one_port_are_any_host_and_few_are_told_apart() {
        let all: Vec<String> = (0..=MANY_PEERS).map(|n| format!("10.0.0.{n}:443")).collect();
        let got =
            peers(all.iter().map(|a| ("tcp", a.as_str())).chain([("tcp", "10.0.0.1:5432"), ("udp", "10.0.0.1:443")]));
        assert_eq!(got[&("tcp".to_owned(), "10.0.0.3:443".to_owned())], "*:443");
        assert_eq!(got[&("tcp".to_owned(), "10.0.0.1:5432".to_owned())], "10.0.0.1:5432");
        assert_eq!(got[&("udp".to_owned(), "10.0.0.1:443".to_owned())], "10.0.0.1:443");
        let few = peers(all[1..].iter().map(|a| ("tcp", a.as_str())));
        assert!(few.iter().all(|((_, address), to)| address == to));
    }

    #[test]
    fn many_ports_of_one_host_are_any_port() {
        let all: Vec<String> = (0..=MANY_PEERS).map(|n| format!("[fd00::1]:{}", 5000 + n)).collect();
        let got = peers(all.iter().map(|a| ("tcp", a.as_str())));
        assert!(got.values().all(|to| to == "[fd00::1]:*"), "{got:?}");
    }

    #[test]
    fn a_name_that_the_kernel_chose_for_a_unix_socket_is_any() {
        assert_eq!(unix_name("@0001f"), "@*");
        assert_eq!(unix_name("@/tmp/.X11-unix/X0"), "@/tmp/.X11-unix/X0");
        assert_eq!(unix_name("/run/postgresql/.s.PGSQL.5432"), "/run/postgresql/.s.PGSQL.*");
        assert_eq!(unix_name("/var/lib/app.sock"), "/var/lib/app.sock");
    }
}

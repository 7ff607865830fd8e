//! The files of /proc by which a container commands its node, as far as engines make them read-only (moby 28, containerd 2,
//! Podman 5), and in which parts that can be done where a workload writes to some of them.
//!
//! Owns: that list. Must not: say what may be learnt; of these files, `baseline` has the ones that nobody is to write.

/// What engines make read-only.
const WHOLE: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/sys"];
/// The parts of the last (`Documentation/admin-guide/sysctl`).
const OF_SYS: [&str; 9] = [
    "/proc/sys/abi",
    "/proc/sys/crypto",
    "/proc/sys/debug",
    "/proc/sys/dev",
    "/proc/sys/fs",
    "/proc/sys/kernel",
    "/proc/sys/net",
    "/proc/sys/user",
    "/proc/sys/vm",
];
/// What is left of those where the workload writes there: by these the node runs programs.
const WORST: [&str; 4] = [
    "/proc/sys/fs/binfmt_misc",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/modprobe",
];

/// The part that a path is in, by which profiles know that a workload writes there.
pub fn part(path: &str) -> Option<&'static str> {
    let is_in = |place: &&str| path.strip_prefix(*place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    OF_SYS.into_iter().chain(WHOLE).find(is_in)
}

/// What to make read-only where the workload writes to these parts.
pub fn without(writes_to: impl Fn(&'static str) -> bool) -> Vec<&'static str> {
    let mut left = Vec::new();
    let in_parts = OF_SYS.iter().any(|part| writes_to(part));
    for place in WHOLE.into_iter().filter(|place| !writes_to(place)) {
        if !in_parts || !OF_SYS.iter().any(|part| is_below(part, place)) {
            left.push(place);
            continue;
        }
        let (written, whole): (Vec<&str>, Vec<&str>) = OF_SYS.into_iter().partition(|part| writes_to(part));
        left.extend(whole);
        left.extend(
            WORST.into_iter().filter(|worst| written.iter().any(|part| is_below(worst, part)) && !writes_to(worst)),
        );
    }
    left
}

fn is_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_in_the_smallest_part_and_in_none_by_its_name_alone() {
        assert_eq!(part("/proc/sys/net/ipv4/ip_forward"), Some("/proc/sys/net"));
        assert_eq!((part("/proc/sys/new/x"), part("/proc/irq")), (Some("/proc/sys"), Some("/proc/irq")));
        assert_eq!((part("/proc/system"), part("/proc/sysrq-trigger2"), part("/proc/1/mem")), (None, None, None));
    }

    #[test]
    fn what_is_written_is_left_writable_and_by_what_programs_are_run_is_not() {
        assert_eq!(without(|_| false), WHOLE);
        let of_kernel = without(|part| part == "/proc/sys/kernel");
        assert!(!of_kernel.contains(&"/proc/sys") && !of_kernel.contains(&"/proc/sys/kernel"));
        assert!(of_kernel.contains(&"/proc/sys/net") && of_kernel.contains(&"/proc/sys/kernel/core_pattern"));
        assert!(!of_kernel.contains(&"/proc/sys/fs/binfmt_misc"), "it is in a part that is read-only");
        assert!(!without(|part| part == "/proc/sys").iter().any(|place| place.starts_with("/proc/sys/")));
    }
}

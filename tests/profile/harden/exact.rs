//! Filters of random engines and profiles: what is planned makes exactly what both make.

use lithify::profile::export::oci_seccomp;
use lithify::profile::filter;
use proptest::prelude::*;

use super::super::model::answers;
use super::*;

/// Whether the call is made.
fn is_made(answer: &str) -> bool {
    matches!(answer, "ALLOW" | "LOG")
}

const CALLS: [&str; 9] =
    ["read", "clone", "socket", "personality", "ioctl", "mount", "io_uring_setup", "keyctl", "init_module"];
const NUMBERS: [u64; 9] = [0, 1, 2, 8, 9, 16, 0x5412, NEW_USER, 1 << 32 | 2];

fn number() -> impl Strategy<Value = u64> {
    proptest::sample::select(NUMBERS.as_slice())
}

fn filter_of_an_engine() -> impl Strategy<Value = Value> {
    const ACTIONS: [&str; 7] = ["ALLOW", "ERRNO", "LOG", "KILL", "KILL_PROCESS", "TRAP", "NOTIFY"];
    let action = || proptest::sample::select(ACTIONS.as_slice());
    let ops = proptest::sample::select(["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"].as_slice());
    let arg = (0usize..3, ops, number(), number()).prop_map(|(index, op, value, two)| {
        // Some compare bits that they mask out, of which nobody knows what is meant.
        let two = if two == 9 { two } else { two & value };
        json!({"index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}")})
    });
    let names = proptest::sample::subsequence(CALLS.as_slice(), 1..4);
    let errno = proptest::option::of(proptest::sample::select([1, 22, 38].as_slice()));
    let rule = (names, action(), errno, proptest::collection::vec(arg, 0..3)).prop_map(|(names, action, errno, args)| {
        json!({"names": names, "action": format!("SCMP_ACT_{action}"), "errnoRet": errno, "args": args})
    });
    let errno = proptest::option::of(proptest::sample::select([1, 38].as_slice()));
    (action(), errno, proptest::collection::vec(rule, 0..6)).prop_map(|(default, errno, rules)| {
        json!({"defaultAction": format!("SCMP_ACT_{default}"), "defaultErrnoRet": errno, "syscalls": rules})
    })
}

fn learnt() -> impl Strategy<Value = Profile> {
    let calls = proptest::sample::subsequence(CALLS.as_slice(), 0..6);
    let arguments = proptest::collection::vec(
        (proptest::sample::select(["clone", "socket", "ioctl", "personality"].as_slice()), number()),
        0..4,
    );
    let denied = proptest::sample::subsequence(CALLS.as_slice(), 0..3);
    (calls, arguments, denied).prop_map(|(calls, arguments, denied)| {
        changed(|o| {
            for name in calls {
                o.workload_behaviour.syscalls.insert(name.into(), seen(0, 0, 1));
            }
            for (call, value) in arguments {
                let value = if call == "socket" { format!("{value},1,0") } else { value.to_string() };
                o.workload_behaviour.arguments.entry(call.into()).or_default().insert(value, seen(0, 0, 1));
            }
            for name in denied {
                o.workload_behaviour.denied_syscalls.insert(name.into(), seen(0, 0, 1));
            }
        })
    })
}

proptest! {
    // Each case plans a whole filter.
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_planned_filter_makes_exactly_the_calls_that_profile_and_engine_both_make(
        engine in filter_of_an_engine(), profile in learnt(), listener in any::<bool>(), twice in any::<bool>(),
        tries in proptest::collection::vec((proptest::sample::select(CALLS.as_slice()), [number(), number(), number()]), 40),
    ) {
        let (document, needs, policy) = (with_filter(&engine), needs(), policy());
        let listener = listener.then(|| Path::new(SOCKET));
        let plan = harden(&Given { profile: &profile, document: &document, policy: &policy, needs: &needs, listener }).unwrap();
        let planned = edit(&plan, "/linux/seccomp").expect("a filter");
        let always = layers::always().unwrap();
        let needed = always.names(true).chain(needs.names(true));
        let own = oci_seccomp::value(&filter::filter(&profile, needed, &mut Vec::new()));
        for (name, [a, b, c]) in tries {
            let arguments = [a, if twice { a } else { b }, c, 0, 0, 0];
            let (all, ours) = (answers(&engine, name, &arguments), answer(&own, name, &arguments));
            let theirs = all.iter().find(|a| !is_made(a)).unwrap_or(&all[0]).clone();
            let both = answer(planned, name, &arguments);
            let context = format!("{name} {arguments:x?}: engine {theirs}, profile {ours}, planned {both}");
            let remarks: Vec<_> = plan.degraded.iter().chain(&plan.notes).collect();
            let noted = |what: &str| remarks.iter().any(|n| n.contains(&format!("{name} {what}")));
            // What takes too long to say is not said: it is allowed where the engine allows it always, or refused.
            let (widened, less) = (noted("is allowed with all"), noted("can't be put together") || noted("is refused"));
            let made = is_made(&theirs) && (is_made(&ours) || widened);
            prop_assert!(!is_made(&both) || made, "{}", context);
            prop_assert!(less || is_made(&both) == made, "{}: {:?}", context, remarks);
            let noted = less || widened || noted("gets ENOSYS");
            if all.len() > 1 || noted {
                continue;
            }
            // A listener of the engine's is asked only where it was, and where the profile allows it.
            if !plan.limits.listener {
                prop_assert_eq!(both == "NOTIFY", theirs == "NOTIFY" && is_made(&ours), "{}", context);
            }
            // What the engine ends a process for ends it still, if not for good.
            let hardness = |answer: &str| ["TRAP", "KILL", "KILL_PROCESS"].iter().position(|ending| *ending == answer);
            prop_assert!(hardness(&both) >= hardness(&theirs), "{}", context);
        }
    }
}

//! What the low-level runtime's library makes of a planned filter, asked of the kernel: the same that the model says, call by
//! call, with conditions on arguments above all.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lithify::harden::{Given, harden};
use lithify::policy::{self, Config};
use lithify::profile::{Profile, syscalls};
use lithify::runtime::needs;
use lithify::spec::Document;
use serde_json::{Value, json};

use super::{DOCKER, PODMAN, PODMAN_WITHOUT_AUDIT, model};
use crate::bare::{Bundle, Runtime};
use crate::command::run;
use crate::corner::Corner;
use crate::learn::{CRUN, profile};
use crate::setup::{RUNC, Setup};

const HIGH: u64 = 1 << 32;
/// Makes a thread without what that needs: an error by itself, and no thread.
const NO_THREAD: u64 = 0x1_0000;
const NEW_USER: u64 = 0x1000_0000;
/// No descriptor.
const NONE: u64 = u64::MAX;

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// What holds whatever the engine's filter is: a learnt family of sockets, and what was never learnt.
const HOLDS: [(&str, u64, &str); 7] = [
    ("socket", 1, "ALLOW"),
    ("socket", 2, "ALLOW"),
    ("socket", AF_ALG, "ERRNO 1"),
    ("socket", AF_VSOCK, "ERRNO 1"),
    ("keyctl", 99, "ERRNO 1"),
    ("memfd_create", 0, "ERRNO 1"),
    ("mount", 0, "ERRNO 1"),
];

/// Calls that do no harm where they are made.
fn tries() -> Vec<(&'static str, [u64; 3])> {
    let mut all = vec![
        ("getpid", [0; 3]),
        ("unshare", [0; 3]),
        ("clone", [NO_THREAD, 0, 0]),
        ("clone", [NO_THREAD | NEW_USER, 0, 0]),
        ("clone", [NO_THREAD | 0x2_0000, 0, 0]),
        ("clone3", [0; 3]),
        ("mincore", [1, 0, 0]),
        ("keyctl", [99, 0, 0]),
        ("memfd_create", [0; 3]),
        ("mount", [0; 3]),
        ("io_uring_setup", [0; 3]),
        ("openat2", [NONE, 0, 0]),
        ("landlock_create_ruleset", [0, 0, 8]),
        ("futex_waitv", [0; 3]),
    ];
    for family in
        [0, 1, 2, 3, 10, 11, 15, 16, 17, 31, 32, 33, AF_ALG, 39, AF_VSOCK, 41, 63, 64, 1000, HIGH, HIGH | 2, HIGH | 17]
    {
        all.push(("socket", [family, 0x1000, 0]));
        all.push(("socket", [family, 3, 9]));
    }
    for command in
        [0, 0x5401, 0x5411, 0x5412, 0x5413, 0x541B, 0x541C, 0x541D, 0x5421, 0xFFFF_FFFF, HIGH | 0x5412, HIGH | 0x5401]
    {
        all.push(("ioctl", [NONE, command, 0]));
    }
    // Asking is last: what was set before is answered.
    for persona in [8, 0x2_0000, 0x4_0000, 0xFFFF_FFFE, HIGH, HIGH | 0xFFFF_FFFF, 0, 0xFFFF_FFFF] {
        all.push(("personality", [persona, 0, 0]));
    }
    all
}

/// Filters of engines, and one that has a condition of each kind.
fn engines() -> Vec<(&'static str, Value)> {
    let of = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default()["linux"]["seccomp"].clone();
    let rule = |name: &str, action: &str, args: Value| json!({"names": [name], "action": action, "args": args});
    let arg =
        |index: u64, op: &str, value: u64| json!({"index": index, "value": value, "op": format!("SCMP_CMP_{op}")});
    let conditions = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            rule("socket", "SCMP_ACT_ERRNO", json!([arg(0, "EQ", 16), arg(2, "EQ", 9)])),
            rule("socket", "SCMP_ACT_ERRNO", json!([arg(0, "GT", 32)])),
            rule("ioctl", "SCMP_ACT_ERRNO", json!([arg(1, "EQ", 0x5413)])),
            rule("mincore", "SCMP_ACT_ERRNO", json!([arg(0, "EQ", 1), arg(1, "EQ", 0)])),
            rule("keyctl", "SCMP_ACT_ERRNO", json!([arg(0, "LT", 98), arg(1, "LE", 0)])),
            rule("personality", "SCMP_ACT_ERRNO", json!([arg(0, "NE", 8)])),
        ]
    });
    // As today's Docker leaves two families out.
    let docker = of(DOCKER);
    let mut rules: Vec<Value> =
        docker["syscalls"].as_array().into_iter().flatten().filter_map(without_socket).collect();
    for is in [arg(0, "LT", AF_ALG), arg(0, "EQ", 39), arg(0, "GT", AF_VSOCK)] {
        rules.push(rule("socket", "SCMP_ACT_ALLOW", json!([is])));
    }
    let families = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": rules});
    vec![
        ("docker", docker),
        ("podman", of(PODMAN)),
        ("podman without audit", of(PODMAN_WITHOUT_AUDIT)),
        ("families", families),
        ("conditions", conditions),
        ("none", Value::Null),
    ]
}

fn without_socket(rule: &Value) -> Option<Value> {
    let mut rule = rule.clone();
    rule["names"].as_array_mut()?.retain(|name| name != "socket");
    Some(rule)
}

/// Adds to what was learnt what the tries are about.
fn widen(profile: &mut Profile) -> Result<()> {
    let learnt = &mut profile.workload_behaviour;
    let seen = learnt.syscalls.values().next().context("no system call was learnt")?.clone();
    for name in ["socket", "clone", "personality", "mincore", "ioctl", "openat2"] {
        learnt.syscalls.insert(name.into(), seen.clone());
    }
    for (call, value) in [("socket", "1,1,0"), ("socket", "2,1,0"), ("personality", "8"), ("clone", "131072")] {
        learnt.arguments.entry(call.into()).or_default().insert(value.into(), seen.clone());
    }
    Ok(())
}

fn as_the_model_says(runtime: &str, corner: &Corner) -> Result<()> {
    let setup = Setup::new(corner)?;
    let bundle = Bundle::new(corner, "calls", "true")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/harden/calls.c");
    let mut compile = Command::new("cc");
    compile.args(["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(bundle.path.join("rootfs/calls"));
    run(compile.arg(source))?.success().context("failed to compile the caller")?;
    let go = "$R run --bundle $B $ID </dev/null; $R delete --force $ID 2>/dev/null";
    bundle.bash(&Runtime::lithify(&setup, &["--mode", "learn"]), go)?;
    let mut profile = profile(&setup)?;
    widen(&mut profile)?;

    let tries = tries();
    let words: Vec<String> = tries
        .iter()
        .map(|(name, [a, b, c])| {
            let (_, number) = syscalls::parse(name).with_context(|| format!("no call {name}"))?;
            Ok(format!("{number},{a},{b},{c}"))
        })
        .collect::<Result<_>>()?;
    bundle.edit(|spec| {
        spec["process"]["args"] = json!([&["/calls".to_string()], words.as_slice()].concat());
        spec["linux"]["seccomp"] = Value::Null;
    })?;
    let answers = || -> Result<Vec<i32>> {
        let outcome = bundle.bash(&Runtime::plain(runtime), go)?;
        let answers: Vec<i32> = outcome.stdout.lines().filter_map(|line| line.parse().ok()).collect();
        ensure!(answers.len() == tries.len(), "{outcome:?}");
        Ok(answers)
    };
    let free = answers().context("without a filter")?;
    let needs = needs::of(Path::new(runtime), setup.data())?;
    for (engine, filter) in engines() {
        bundle.edit(|spec| spec["linux"]["seccomp"] = filter)?;
        let mut document = Document::read(&bundle.path)?;
        let policy = policy::resolve(&Config::default(), &Default::default(), &document.annotations()?, None)?;
        let given = Given { profile: &profile, document: &document, policy: &policy, needs: &needs, listener: None };
        let hardening = harden(&given)?;
        hardening.apply(&mut document)?;
        let planned = &document.value()["linux"]["seccomp"];
        ensure!(planned["defaultErrnoRet"] == libc::ENOSYS, "{engine}: {:?}", hardening.notes);
        for (name, first, want) in HOLDS {
            let said = model::answer(planned, name, &[first, 0, 0, 0, 0, 0]);
            ensure!(said == want, "{engine}: {name} {first} gets {said}: {:?}", hardening.notes);
        }
        fs::write(bundle.path.join("config.json"), document.to_json())?;
        for (i, answer) in answers().context(engine)?.into_iter().enumerate() {
            let (name, [a, b, c]) = tries[i];
            let said = model::answer(planned, name, &[a, b, c, 0, 0, 0]);
            let right = match said.strip_prefix("ERRNO ") {
                Some(errno) => errno.parse() == Ok(answer),
                None => said == "ALLOW" && answer == free[i],
            };
            ensure!(right, "{runtime}, {engine}: {name} {a:#x} {b:#x} {c:#x} came to {answer}, and {said} was planned");
        }
    }
    fs::remove_dir_all(&bundle.path)?;
    Ok(())
}

#[test]
fn the_kernel_answers_under_runc_as_the_plan_says() -> Result<()> {
    as_the_model_says(RUNC, &Corner::new()?)
}

#[test]
fn the_kernel_answers_under_crun_as_the_plan_says() -> Result<()> {
    as_the_model_says(CRUN, &Corner::without_unified()?)
}

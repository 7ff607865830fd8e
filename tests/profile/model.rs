//! A filter's answer, as the kernel would give it: a small model that shares no code with what plans filters.

use serde_json::Value;

/// `ALLOW`, `ERRNO 1`, `KILL` …: what a call with these arguments gets.
pub fn answer(filter: &Value, name: &str, arguments: &[u64; 6]) -> String {
    answers(filter, name, arguments).remove(0)
}

/// The same, of every rule that fits: libraries differ in which of two that contradict each other they take.
pub fn answers(filter: &Value, name: &str, arguments: &[u64; 6]) -> Vec<String> {
    let rules = filter["syscalls"].as_array().map(Vec::as_slice).unwrap_or_default();
    let say_of = |rule: &Value| say(rule["action"].as_str().unwrap(), rule["errnoRet"].as_u64());
    let default = say(filter["defaultAction"].as_str().unwrap(), filter["defaultErrnoRet"].as_u64());
    let fit = |rule: &&Value| {
        let args = rule["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut each = args.iter().map(|arg| fits(arg, arguments));
        let repeats = (1..args.len()).any(|i| args[..i].iter().any(|a| a["index"] == args[i]["index"]));
        // Two conditions on one argument are alternatives.
        if repeats { each.any(|fits| fits) } else { each.all(|fits| fits) }
    };
    let named = |rule: &&Value| rule["names"].as_array().unwrap().iter().any(|n| n == name);
    // A rule that says what holds anyway is left out.
    let mut all: Vec<String> = rules.iter().filter(named).filter(fit).map(say_of).filter(|a| *a != default).collect();
    all.dedup();
    if all.is_empty() { vec![default] } else { all }
}

fn say(action: &str, errno: Option<u64>) -> String {
    match action.strip_prefix("SCMP_ACT_").unwrap() {
        "ERRNO" => format!("ERRNO {}", errno.unwrap_or(1)),
        other => other.to_string(),
    }
}

fn fits(arg: &Value, arguments: &[u64; 6]) -> bool {
    let number = |key: &str| arg[key].as_u64().unwrap_or(0);
    let (is, value) = (arguments[number("index") as usize], number("value"));
    match arg["op"].as_str().unwrap() {
        "SCMP_CMP_EQ" => is == value,
        "SCMP_CMP_NE" => is != value,
        "SCMP_CMP_LT" => is < value,
        "SCMP_CMP_LE" => is <= value,
        "SCMP_CMP_GT" => is > value,
        "SCMP_CMP_GE" => is >= value,
        "SCMP_CMP_MASKED_EQ" => is & value == number("valueTwo"),
        other => panic!("{other}"),
    }
}

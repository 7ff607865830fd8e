//! "Did you mean": the known name nearest to a misspelt one. Must not: accept the misspelt one.

/// The known name that `word` most likely meant, if one is near enough to be worth saying.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A hostile word may be long; none of ours is, and the distance costs the product of both lengths.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    known
        .into_iter()
        .map(|name| (distance(&word, &plain(name)), name))
        .filter(|(d, name)| *d <= (name.len() / 3).clamp(1, 3))
        .min_by_key(|(d, _)| *d)
        .map(|(_, name)| name)
}

/// Ends a message with the nearest name, or with all of them.
pub fn remedy(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("use one of {}", known.join(", ")),
    }
}

/// A hostile string made fit for a message: escaped, quoted and cut.
pub fn quote(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(80).flat_map(char::escape_debug).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    format!("\"{head}{more}\"")
}

/// Levenshtein's distance, with a swap of neighbours counted as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_different_word_is_not() {
        let known = ["rootfs", "on-write", "restart-limit"];
        assert_eq!(nearest("rotofs", known), Some("rootfs"));
        assert_eq!(nearest("on_write", known), Some("on-write"));
        assert_eq!(nearest("OnWrite", known), Some("on-write"));
        assert_eq!(nearest("restart-limits", known), Some("restart-limit"));
        assert_eq!(nearest("privileged", known), None);
        assert_eq!(nearest("cap-chwon", ["CAP_KILL", "CAP_CHOWN"]), Some("CAP_CHOWN"));
    }

    #[test]
    fn a_hostile_string_is_escaped_and_cut() {
        let shown = quote(&format!("\u{1b}[31m{}", "x".repeat(500)));
        assert!(shown.len() < 120 && !shown.contains('\u{1b}') && shown.ends_with("…\""));
    }
}

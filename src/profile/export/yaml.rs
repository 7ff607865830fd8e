//! Text as a YAML scalar. Must not: write one without quotes, so that no name can become another type or another line.

/// A double-quoted scalar, on one line. JSON's escapes are YAML's; what YAML would fold or not print is escaped as well.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // The byte order mark and the line and direction marks of Unicode are legal, and unreadable.
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}') => {
                quoted.push_str(&format!("\\U{:08x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A sentence as comment lines, each at most 110 characters wide. Nothing in it can end the comment.
pub fn comment(text: &str) -> String {
    let safe: String =
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    let mut lines = vec!["#".to_string()];
    for word in safe.split(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() > 110 && line.len() > 1) {
            lines.push("#  ".into());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

//! A unified diff of two versions of a small text. Must not: look for more than one changed region; our edits have one.

/// Lines of context around the change.
const CONTEXT: usize = 3;

/// The difference as `diff -u` would show it, or nothing where there is none. `None` stands for a file that does not
/// exist.
pub fn unified(path: &str, before: Option<&str>, after: Option<&str>) -> String {
    if before == after {
        return String::new();
    }
    let name = |prefix: &str, text: Option<&str>| text.map_or("/dev/null".to_string(), |_| format!("{prefix}{path}"));
    let mut out = format!("--- {}\n+++ {}\n", name("a", before), name("b", after));
    let old: Vec<&str> = before.unwrap_or_default().split_inclusive('\n').collect();
    let new: Vec<&str> = after.unwrap_or_default().split_inclusive('\n').collect();
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let most = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let start = head.saturating_sub(CONTEXT);
    let (old_end, new_end) = ((old.len() - tail + CONTEXT).min(old.len()), (new.len() - tail + CONTEXT).min(new.len()));
    // An empty range is told by the line before it.
    let range = |end: usize| format!("{},{}", if end > start { start + 1 } else { start }, end - start);
    out.push_str(&format!("@@ -{} +{} @@\n", range(old_end), range(new_end)));
    let mut put = |sign: char, lines: &[&str]| {
        for line in lines {
            out.push(sign);
            out.push_str(line);
            if !line.ends_with('\n') {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
    };
    put(' ', &old[start..head]);
    put('-', &old[head..old.len() - tail]);
    put('+', &new[head..new.len() - tail]);
    put(' ', &old[old.len() - tail..old_end]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insertion_is_shown_with_its_surroundings() {
        let old = "a\nb\nc\nd\ne\n";
        assert_eq!(
            unified("/f", Some(old), Some("a\nb\nc\nd\nX\ne\n")),
            "--- a/f\n+++ b/f\n@@ -2,4 +2,5 @@\n b\n c\n d\n+X\n e\n"
        );
        assert_eq!(unified("/f", Some(old), Some(old)), "");
    }

    #[test]
    fn new_removed_and_unended_files_are_shown_as_such() {
        assert_eq!(unified("/f", None, Some("a\n")), "--- /dev/null\n+++ b/f\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified("/f", Some("a\n"), None), "--- a/f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n");
        assert!(unified("/f", Some("a"), Some("a\nb\n")).contains("-a\n\\ No newline at end of file\n+a\n+b\n"));
    }
}

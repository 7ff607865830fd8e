//! Workloads' names as names of folders: an image reference has slashes, an annotation of an engine may hold anything.
//!
//! Owns: the escaping. Must not: touch files.

/// Longest escaped name that is kept as it is, in bytes; file systems allow 255.
const MAX_PLAIN: usize = 200;

/// The folder's name. Letters, digits, `-`, `_` and, but for the first, `.` stay; other bytes are `%` and two hex digits. A
/// name that would be longer than a file system takes is cut and ends in `%-` and a hash: the documents inside hold all
/// of it. Never empty, never `.` or `..`, no slash.
pub fn escape(workload: &str) -> String {
    let mut name = String::new();
    for (i, byte) in workload.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            b'.' if i > 0 => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.is_empty() {
        return "%".to_string();
    }
    if name.len() > MAX_PLAIN {
        // All of it is ASCII. FNV-1a: readers compare the name inside, so that two names of one hash are an error, not a mix.
        let hash = workload
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        name.truncate(MAX_PLAIN - 18);
        name.push_str(&format!("%-{hash:016x}"));
    }
    name
}

/// The inverse, for names that [`escape`] made and did not cut; `None` for others.
pub fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
            let Some((high, low)) = digit().zip(digit()) else { break };
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    let workload = String::from_utf8(bytes).ok()?;
    (escape(&workload) == name).then_some(workload)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_stay_readable() {
        assert_eq!(escape("web-1.2_x"), "web-1.2_x");
        assert_eq!(escape("shop/web"), "shop%2Fweb");
        assert_eq!(escape("docker.io/nginx:1"), "docker.io%2Fnginx%3A1");
    }

    #[test]
    fn no_name_leads_out_of_its_folder_or_hides() {
        assert_eq!(
            (escape(".."), escape("."), escape(""), escape("../x")),
            ("%2E.".into(), "%2E".into(), "%".into(), "%2E.%2Fx".into())
        );
        assert_eq!(unescape(".."), None);
        assert_eq!(unescape("a%2"), None);
        assert_eq!(unescape("a%2f"), None);
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let names: BTreeSet<String> = (0..100).map(|i| escape(&format!("{}{i}", "/é".repeat(300)))).collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|n| n.len() == MAX_PLAIN && unescape(n).is_none()));
    }

    proptest! {
        #[test]
        fn a_folder_tells_its_workload(workload in "\\PC{0,40}|[./%a-]{0,12}|(?s:.{0,12})") {
            let name = escape(&workload);
            prop_assert!(name.len() <= MAX_PLAIN && !name.is_empty() && !name.starts_with('.'));
            prop_assert!(!name.contains(['/', '\0']));
            if !name.contains("%-") {
                prop_assert_eq!(unescape(&name), Some(workload));
            }
        }

        #[test]
        fn no_file_name_makes_it_panic(name in "(?s:.{0,30})") {
            if let Some(workload) = unescape(&name) {
                prop_assert_eq!(escape(&workload), name);
            }
        }
    }
}

//! Names that authors of annotations choose. They become names of files and folders, and are shown to people.

use super::suggest::quote;
use super::values::Parsed;

/// `workload`: 1 to 128 letters, digits, `.`, `_` or `-`, the first a letter or digit. It becomes a file name, and what
/// stands before a slash in it is the namespace, which is not the author's to choose.
///
/// # Errors
/// When it is not of that form.
pub fn workload(text: &str) -> Parsed<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= 128 && text.bytes().all(ok) {
        return Ok(text.to_string());
    }
    if text.contains('/') {
        return Err(format!(
            "{} is not a workload name: it holds within its Kubernetes namespace, which goes before the name by itself; \
             leave out all up to the slash",
            quote(text)
        ));
    }
    Err(format!(
        "{} is not a workload name; use 1 to 128 letters, digits, '.', '_' and '-', a letter or digit first",
        quote(text)
    ))
}

/// `profile`: a workload's name, or `WORKLOAD@DIGEST` for one revision of it: 1 to 512 printable ASCII characters without
/// blanks or quotes, a letter or digit first.
///
/// # Errors
/// When it is not of that form.
pub fn profile(text: &str) -> Parsed<String> {
    let ok = |b: u8| b.is_ascii_graphic() && !b"\"'\\`".contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= 512 && text.bytes().all(ok) {
        return Ok(text.to_string());
    }
    Err(format!(
        "{} is not a profile's name; write WORKLOAD or WORKLOAD@DIGEST, as 'lithifyctl profile list' does",
        quote(text)
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_profile_is_named_as_the_store_lists_it_and_nothing_else() {
        for good in ["web", "shop/web", "docker.io/library/nginx:1", "web@0123456789abcdef"] {
            assert_eq!(profile(good).as_deref(), Ok(good));
        }
        for bad in ["", "-x", "../x", "a b", "a\nb", "a\"b", "é", &"x".repeat(513)] {
            assert!(profile(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_workload_is_one_name() {
        for good in ["web", "0", "shop.web_1-a"] {
            assert_eq!(workload(good).as_deref(), Ok(good));
        }
        for bad in ["", ".web", "-web", "shop/web", "a b", "é", &"x".repeat(129)] {
            assert!(workload(bad).is_err(), "{bad:?}");
        }
        assert!(workload("shop/web").is_err_and(|why| why.contains("within its Kubernetes namespace")));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,80}") {
            let _ = (workload(&text), profile(&text));
        }
    }
}

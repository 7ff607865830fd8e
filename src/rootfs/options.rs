//! The options of an overlay mount, as mountinfo shows them.
//!
//! Three escapes lie on top of each other: mountinfo's octal ones (proc_pid_mountinfo(5)), overlayfs's `\:` and `\,` in
//! `lowerdir=` and `upperdir=`, and the quotes that SELinux puts around a context with commas.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::mountinfo;

/// Options that mean the layers, not the mount: another mount of the same layers needs them to show the same tree.
const CARRIED: [&str; 10] = [
    "metacopy",
    "redirect_dir",
    "userxattr",
    "xino",
    "verity",
    "default_permissions",
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
];

/// What an overlay is made of, with paths as they were given to mount: possibly relative.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Lower layers, the topmost first. Both readings of a path (raw, unescaped) where they differ.
    pub lowers: Vec<PathGiven>,
    /// Data-only layers (`::` or `datadir+`), beneath the others.
    pub data: Vec<PathGiven>,
    /// The upper layer.
    pub upper: Option<PathGiven>,
    /// The work directory.
    pub work: Option<PathGiven>,
    /// Options to carry over to another mount of the same layers: name, and value where there is one.
    pub carried: Vec<(String, Option<OsString>)>,
}

/// A path in a mount option: kernels differ in whether they show it with overlayfs's escapes or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGiven {
    /// With overlayfs's escapes undone.
    pub unescaped: PathBuf,
    /// As it stands.
    pub raw: PathBuf,
}

impl PathGiven {
    fn escaped(raw: &[u8]) -> Self {
        Self { unescaped: path(&unescape(raw)), raw: path(raw) }
    }

    fn literal(raw: &[u8]) -> Self {
        Self { unescaped: path(raw), raw: path(raw) }
    }
}

/// Reads the filesystem's own options, the last field of a line of mountinfo.
#[must_use]
pub fn parse(field: &[u8]) -> OverlayOptions {
    let mut options = OverlayOptions::default();
    for option in split(field) {
        let (name, value) = match option.iter().position(|b| *b == b'=') {
            Some(at) => (&option[..at], Some(mountinfo::unescape(&option[at + 1..]).into_vec())),
            None => (option, None),
        };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        match (name, value) {
            ("lowerdir", Some(value)) => lowerdir(&value, &mut options),
            ("lowerdir+", Some(value)) => options.lowers.push(PathGiven::literal(&value)),
            ("datadir+", Some(value)) => options.data.push(PathGiven::literal(&value)),
            ("upperdir", Some(value)) => options.upper = Some(PathGiven::escaped(&value)),
            ("workdir", Some(value)) => options.work = Some(PathGiven::escaped(&value)),
            (name, value) if CARRIED.contains(&name) => {
                let value = value.map(|v| OsString::from_vec(unquoted(&v).to_vec()));
                options.carried.push((name.to_owned(), value));
            }
            _ => {}
        }
    }
    options
}

/// Splits at commas, but not at those inside the quotes of a context. (Commas of a path are octal here.)
fn split(field: &[u8]) -> Vec<&[u8]> {
    let mut options = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        let quoted = rest.iter().position(|b| *b == b'=').is_some_and(|at| {
            rest[..at].ends_with(b"context") && !rest[..at].contains(&b',') && rest.get(at + 1) == Some(&b'"')
        });
        let from = if quoted {
            let open = rest.iter().position(|b| *b == b'"').unwrap_or(0);
            rest[open + 1..].iter().position(|b| *b == b'"').map_or(rest.len(), |n| open + 2 + n)
        } else {
            0
        };
        let end = rest[from..].iter().position(|b| *b == b',').map_or(rest.len(), |n| from + n);
        options.push(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    options
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}

/// `a:b::c`: lower layers at single colons, data-only ones after double colons, `\` before a colon that is a name's own.
fn lowerdir(value: &[u8], options: &mut OverlayOptions) {
    let (mut start, mut at, mut data) = (0, 0, false);
    let mut take = |piece: &[u8], data: bool| {
        if !piece.is_empty() {
            let given = PathGiven::escaped(piece);
            if data { options.data.push(given) } else { options.lowers.push(given) }
        }
    };
    while at < value.len() {
        match value[at] {
            b'\\' => at += 2,
            b':' => {
                take(&value[start..at], data);
                if value.get(at + 1) == Some(&b':') {
                    data = true;
                    at += 1;
                }
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    take(&value[start.min(value.len())..], data);
}

fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(b) = bytes.next() {
        out.push(if *b == b'\\' { *bytes.next().unwrap_or(b) } else { *b });
    }
    out
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lowers(options: &OverlayOptions) -> Vec<&str> {
        options.lowers.iter().map(|p| p.unescaped.to_str().unwrap()).collect()
    }

    #[test]
    fn colons_commas_spaces_and_backslashes_of_a_layer_are_its_own() {
        let got = parse(br"rw,lowerdir=/a\134:b\134\054c\040d:/l2,upperdir=/u\134:p,workdir=/w,uuid=on");
        assert_eq!(lowers(&got), ["/a:b,c d", "/l2"]);
        let upper = got.upper.unwrap();
        assert_eq!((upper.unescaped.to_str().unwrap(), upper.raw.to_str().unwrap()), ("/u:p", r"/u\:p"));
        assert!(got.carried.is_empty());
    }

    #[test]
    fn single_layer_options_and_data_only_layers_are_read() {
        let got = parse(br"ro,lowerdir+=/a:b,lowerdir+=/c,datadir+=/d,redirect_dir=on,metacopy=on");
        assert_eq!(lowers(&got), ["/a:b", "/c"]);
        assert_eq!(got.data.len(), 1);
        let got = parse(b"ro,lowerdir=/a:/b::/d1::/d2");
        assert_eq!(lowers(&got), ["/a", "/b"]);
        assert_eq!(got.data.iter().map(|p| p.raw.to_str().unwrap()).collect::<Vec<_>>(), ["/d1", "/d2"]);
    }

    #[test]
    fn a_selinux_context_keeps_its_commas_and_loses_its_quotes() {
        let got = parse(br#"rw,context="system_u:object_r:container_file_t:s0:c1,c2",lowerdir=/a,xino=off,userxattr"#);
        let carried: Vec<_> =
            got.carried.iter().map(|(k, v)| (k.as_str(), v.as_ref().map(|v| v.to_str().unwrap()))).collect();
        assert_eq!(
            carried,
            [
                ("context", Some("system_u:object_r:container_file_t:s0:c1,c2")),
                ("xino", Some("off")),
                ("userxattr", None)
            ]
        );
        assert_eq!(lowers(&got), ["/a"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_bytes_are_parsed_without_panic(field in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&field);
        }

        #[test]
        fn layer_names_survive_the_kernels_escapes(names in prop::collection::vec("[a-z:,\\\\ \"]{1,12}", 1..5)) {
            let escape = |s: &str| s.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
            let joined = names.iter().map(|n| escape(n)).collect::<Vec<_>>().join(":");
            let shown = joined.replace('\\', "\\134").replace(',', "\\054").replace(' ', "\\040");
            let got = parse(format!("rw,lowerdir={shown},upperdir=/u").as_bytes());
            prop_assert_eq!(lowers(&got), names);
        }
    }
}

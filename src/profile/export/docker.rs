//! Flags of `docker run`, which Podman takes as well. Must not: need a shell to guess: each word is quoted where it has to be.

use super::places::{Kind, Place};
use super::{Document, Plan, oci_seccomp};

/// The flags, in words, and the filter. `folder` is where the filter will be, as the engine's client finds it.
pub fn flags(plan: &Plan, folder: &str) -> (Vec<String>, Document) {
    let filter = oci_seccomp::document(plan);
    let mut words: Vec<String> = vec!["--read-only".into(), "--cap-drop".into(), "ALL".into()];
    for name in &plan.capabilities {
        // Docker 20.10 takes the name both ways; older ones without the prefix only.
        words.extend(["--cap-add".into(), name.trim_start_matches("CAP_").into()]);
    }
    if plan.no_new_privileges {
        words.extend(["--security-opt".into(), "no-new-privileges".into()]);
    }
    let folder = folder.trim_end_matches('/');
    words.extend(["--security-opt".into(), format!("seccomp={folder}/{}", filter.name)]);
    if let Some(limit) = plan.pids_limit {
        words.extend(["--pids-limit".into(), limit.to_string()]);
    }
    words.extend(["--user".into(), format!("{}:{}", plan.user.0, plan.user.1)]);
    for place in &plan.places {
        words.extend(mount(place));
    }
    (words, filter)
}

/// Docker's tmpfs is nosuid and nodev, and noexec unless it is told. runc gives it the mode of the image's directory.
fn mount(place: &Place) -> [String; 2] {
    let Kind::Memory { mode, owner } = place.kind else {
        return ["--volume".into(), place.path.clone()];
    };
    let mut options = format!("{}:size={},mode={mode:o}", place.path, place.size_bytes);
    if let Some((uid, gid)) = owner {
        options.push_str(&format!(",uid={uid},gid={gid}"));
    }
    if place.exec {
        options.push_str(",exec");
    }
    ["--tmpfs".into(), options]
}

/// One line that a shell reads as exactly these words.
pub fn line(words: &[String]) -> String {
    let plain = |word: &String| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=/:.,+@%".contains(&b))
    };
    let quoted = words.iter().map(|w| if plain(w) { w.clone() } else { format!("'{}'", w.replace('\'', r"'\''")) });
    quoted.collect::<Vec<_>>().join(" ")
}

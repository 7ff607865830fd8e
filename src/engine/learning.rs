//! Who records what a container does: what that process is given, and starting it.
//!
//! Owns: a workload's name. Must not: let a container fail because nothing can be recorded.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::events::EngineNames;
use crate::identity::note;
use crate::learn::{self, Purpose, Subject};
use crate::policy::{self, Config, Mode, Policy};
use crate::profile::Revision;
use crate::spec::Document;

/// A container as its engine asked for it.
pub struct Container<'a> {
    /// Id.
    pub id: &'a str,
    /// What stays the same over updates.
    pub workload: &'a str,
    /// What the engine calls it.
    pub names: &'a EngineNames,
    /// The engine's root filesystem, absolute.
    pub rootfs: &'a Path,
    /// Image and parameters.
    pub revision: &'a Revision,
}

/// What a collector is given; `None` where the mode records nothing.
pub fn subject(config: &Config, policy: &Policy, container: &Container<'_>) -> Option<Subject> {
    let purpose = match policy.mode {
        // Which of the two it is, its profile says anew for each generation.
        Mode::Learn | Mode::Observe if policy.auto => Purpose::Auto(config.auto),
        Mode::Learn => Purpose::Learn,
        Mode::Observe => Purpose::Observe { profile: policy.profile.clone() },
        Mode::Off | Mode::Auto | Mode::Enforce => return None,
    };
    Some(Subject {
        container: container.id.to_owned(),
        workload: container.workload.to_owned(),
        names: container.names.clone(),
        revision: container.revision.clone(),
        rootfs: container.rootfs.to_owned(),
        purpose,
        exec: policy.exec,
        window: config.learning.window,
        interval: config.learning.interval,
        table_entries: config.learning.table_entries,
        unattended: false,
        covered: false,
        state_dir: config.state_dir.clone(),
        data_dir: config.data_dir.clone(),
        journal: config.journal,
    })
}

/// Starts the collector: its socket, and what is to be said where there should be one and is none. `from_supervisor`: the
/// caller has mounts of its own over the engine's.
pub(super) fn start(
    config: &Config,
    policy: &Policy,
    container: &Container<'_>,
    from_supervisor: bool,
) -> (Option<OwnedFd>, Vec<String>) {
    let subject =
        subject(config, policy, container).map(|subject| learn::Subject { covered: from_supervisor, ..subject });
    match subject.map(learn::start) {
        None => (None, Vec::new()),
        Some(Ok(handle)) => (Some(handle.socket), Vec::new()),
        Some(Err(error)) => (None, vec![format!("learning: nothing is recorded: {error:#}")]),
    }
}

/// What stays the same over updates: the annotation's name, else the engine's for the container and its image, else the
/// program. Where the engine names a namespace, all of these are names within it: whoever writes pods of one has no way to
/// call a workload as one of another is called. `rootfs` is the root filesystem as the engine made it: beside it Docker and
/// Podman note the image.
pub fn workload(policy: &Policy, names: &EngineNames, document: &Document, rootfs: &Path, id: &str) -> String {
    let name = own_name(policy, names, document, rootfs, id);
    match &names.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    }
}

fn own_name(policy: &Policy, names: &EngineNames, document: &Document, rootfs: &Path, id: &str) -> String {
    let program = document.args().first().and_then(|a| a.rsplit('/').next().map(str::to_owned));
    match (&policy.workload, &names.container, &names.image) {
        (Some(name), _, _) | (None, Some(name), _) => name.clone(),
        (None, None, Some(image)) => note::repository(image).unwrap_or(image).to_owned(),
        (None, None, None) => {
            // Many images begin with the same program (`docker-entrypoint.sh`): by their names they are told apart.
            let noted = note::image(rootfs, id).and_then(|image| image.repository);
            let noted = noted.filter(|name| policy::names::profile(name).is_ok());
            noted.or(program).filter(|p| !p.is_empty()).unwrap_or_else(|| id.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::identity;
    use crate::policy;

    fn named(annotations: &[(&str, &str)], args: &str) -> String {
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let names = EngineNames::from_annotations(&annotations);
        let config = Config::default();
        let policy = policy::resolve(&config, &Default::default(), &annotations, names.container.as_deref());
        let document = Document::parse(format!("{{\"process\":{{\"args\":{args}}}}}").as_bytes()).expect("JSON");
        workload(&policy.expect("a policy"), &names, &document, Path::new("/nowhere"), "the-id")
    }

    #[test]
    fn a_workload_is_called_by_what_outlives_an_update() {
        let pod = [
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.container-name", "web"),
            ("io.kubernetes.cri.image-name", "registry/web:1"),
        ];
        assert_eq!(named(&pod, r#"["/bin/web"]"#), "shop/web");
        assert_eq!(named(&pod[1..], "[]"), "web");
        assert_eq!(named(&[], r#"["/usr/sbin/nginx","-g"]"#), "nginx");
        assert_eq!(named(&[], r#"["/usr/sbin/"]"#), "the-id");
        assert_eq!(named(&[], "null"), "the-id");
    }

    #[test]
    fn no_pod_has_a_name_of_another_namespaces_workload() {
        let pod = |namespace| {
            [
                ("io.kubernetes.cri.container-type", "container"),
                ("io.kubernetes.cri.sandbox-namespace", namespace),
                ("io.kubernetes.cri.image-name", "docker.io/shop/payments:1"),
                ("lithify.dev/workload", "payments"),
            ]
        };
        assert_eq!(named(&pod("shop"), "[]"), "shop/payments");
        assert_eq!(named(&pod("evil"), "[]"), "evil/payments");
        // What the image or the program is called is theirs to choose as well.
        assert_eq!(named(&pod("evil")[..3], "[]"), "evil/shop/payments");
        assert_eq!(named(&pod("evil")[..2], r#"["payments"]"#), "evil/payments");
        // Where nobody names a namespace, there is one for the whole node.
        assert_eq!(named(&pod("evil")[3..], "[]"), "payments");
    }

    #[test]
    fn only_modes_that_record_have_a_collector() {
        let document = Document::parse(b"{}").expect("JSON");
        let (names, rootfs) = (&EngineNames::default(), Path::new("/r"));
        let revision = &identity::of(&document, &BTreeMap::new(), names, rootfs, "c");
        let container = Container { id: "c", workload: "w", names, rootfs, revision };
        for (mode, records) in Mode::ALL.into_iter().zip([false, true, true, false, false]) {
            let config = Config { mode, ..Config::default() };
            let policy = policy::resolve(&config, &Default::default(), &BTreeMap::new(), None).expect("a policy");
            assert_eq!(subject(&config, &policy, &container).is_some(), records, "{mode:?}");
        }
    }
}

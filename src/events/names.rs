//! What an engine calls a container, from the annotations that it puts into config.json.
//!
//! Owns: which engine uses which keys. Must not: trust the values for more than display and names.

use std::collections::BTreeMap;

use super::EngineNames;

/// Longest name that is kept, in bytes: Kubernetes allows 253, image references somewhat more.
const MAX_NAME_LEN: usize = 512;

/// CRI-O always sets this. It hands on every annotation of a pod, those of other engines' keys as well, which are then the
/// pod's author's; its own keys, and the kubelet's labels, it sets itself.
const OF_CRIO: &str = "io.kubernetes.cri-o.ContainerType";
/// What the keys begin with that CRI-O does not set.
const OTHERS: [&str; 3] = ["io.kubernetes.cri.", "nerdctl/", "io.podman."];
const NAMESPACE: &[&str] = &["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace", "nerdctl/namespace"];
const POD: &[&str] = &["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"];
// CRI-O's own `io.kubernetes.cri-o.Name` is the long name with the pod's in it, and so comes last.
const CONTAINER: &[&str] = &[
    "io.kubernetes.cri.container-name",
    "io.kubernetes.container.name",
    "nerdctl/name",
    "io.podman.annotations.name",
    "io.kubernetes.cri-o.Name",
];
const IMAGE: &[&str] = &["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "nerdctl/image"];
const KIND: &[&str] = &["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];

impl EngineNames {
    /// Reads the names that containerd's CRI, CRI-O, Podman and nerdctl give. Docker gives none.
    ///
    /// Values that are empty, overlong or have control characters count as missing.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> EngineNames {
        let is_crio = annotations.contains_key(OF_CRIO);
        let counts = |key: &str| !is_crio || !OTHERS.iter().any(|others| key.starts_with(others));
        let value = |key: &&str| annotations.get(*key).filter(|v| counts(key) && is_name(v));
        let first = |keys: &[&str]| keys.iter().find_map(value).cloned();
        let sandbox = first(KIND).is_some_and(|kind| kind == "sandbox");
        // CRI-O names a sandbox's container "POD", its predecessor's word for it.
        let container = first(CONTAINER).filter(|name| !(sandbox && name == "POD"));
        EngineNames { namespace: first(NAMESPACE), pod: first(POD), container, image: first(IMAGE), sandbox }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_LEN && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, &str)]) -> EngineNames {
        EngineNames::from_annotations(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn containerd_names_a_pods_container() {
        let found = names(&[
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-name", "web-0"),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.container-name", "nginx"),
            ("io.kubernetes.cri.image-name", "docker.io/library/nginx:1"),
        ]);
        assert_eq!(found.pod.as_deref(), Some("web-0"));
        assert_eq!(found.namespace.as_deref(), Some("shop"));
        assert_eq!(found.container.as_deref(), Some("nginx"));
        assert_eq!(found.image.as_deref(), Some("docker.io/library/nginx:1"));
        assert!(!found.sandbox);
    }

    #[test]
    fn a_pause_container_is_recognised_under_containerd_and_crio() {
        assert!(names(&[("io.kubernetes.cri.container-type", "sandbox")]).sandbox);
        let crio = names(&[("io.kubernetes.cri-o.ContainerType", "sandbox"), ("io.kubernetes.container.name", "POD")]);
        assert!(crio.sandbox && crio.container.is_none());
    }

    #[test]
    fn crio_and_nerdctl_names_are_read() {
        let crio = names(&[
            ("io.kubernetes.cri-o.ContainerType", "container"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.container.name", "nginx"),
            ("io.kubernetes.cri-o.Name", "k8s_nginx_web-0_shop_0"),
            ("io.kubernetes.cri-o.ImageName", "nginx:1"),
        ]);
        assert_eq!((crio.container.as_deref(), crio.image.as_deref()), (Some("nginx"), Some("nginx:1")));
        assert_eq!(names(&[("nerdctl/name", "web")]).container.as_deref(), Some("web"));
    }

    #[test]
    fn under_crio_a_pods_author_has_no_way_to_name_another_namespace_or_a_pause_container() {
        let found = names(&[
            ("io.kubernetes.cri-o.ContainerType", "container"),
            ("io.kubernetes.pod.namespace", "evil"),
            ("io.kubernetes.container.name", "web"),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.sandbox-name", "api-0"),
            ("io.kubernetes.cri.container-name", "api"),
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.image-name", "shop/api"),
            ("nerdctl/image", "shop/api"),
        ]);
        let expected = EngineNames {
            namespace: Some("evil".to_string()),
            container: Some("web".to_string()),
            ..EngineNames::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn hostile_names_count_as_missing() {
        let long = "x".repeat(5000);
        assert_eq!(names(&[("nerdctl/name", "\u{1b}[2J"), ("io.kubernetes.pod.name", &long)]), EngineNames::default());
    }
}

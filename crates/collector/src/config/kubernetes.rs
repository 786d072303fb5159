//! How the cluster is reached: `kube-config`, `[kubelet-discovery]`, `[metadata-watch]`.

use std::path::PathBuf;
use std::time::Duration;

use super::file::File;
use super::settings::positive;

/// Where Kubernetes puts token and authorities of a pod.
pub(crate) const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How pods and the node are discovered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// The cluster; otherwise `KUBECONFIG`, otherwise the one that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Ask the kubelet for pods, not the API server.
    pub kubelet: Option<KubeletSettings>,
    /// Whether labels and annotations of the node are followed.
    pub node: bool,
}

/// `[kubelet-discovery]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletSettings {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// From one request to the next.
    pub interval: Duration,
    /// Longest time of a request.
    pub request_timeout: Duration,
    /// Bearer token; read for every request, since Kubernetes replaces it.
    pub token: PathBuf,
    /// Authorities that the kubelet's certificate is checked against; those of the system when there is no such file.
    pub ca: PathBuf,
}

/// The settings of a file.
pub(super) fn settings(file: &File, hostname: &str) -> KubernetesSettings {
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let seconds = |value, default| Duration::from_secs(positive(value).unwrap_or(default));
    let kubelet = file.kubelet_discovery.as_ref().map(|kubelet| KubeletSettings {
        host: or(or(&kubelet.host, hostname).trim_matches(['[', ']']), "127.0.0.1"),
        port: u16::try_from(kubelet.port).ok().filter(|port| *port != 0).unwrap_or(10250),
        interval: seconds(kubelet.poll_interval, 10),
        request_timeout: seconds(kubelet.request_timeout, 9),
        token: or(&kubelet.token_path, &format!("{SERVICE_ACCOUNT}/token")).into(),
        ca: or(&kubelet.ca_path, &format!("{SERVICE_ACCOUNT}/ca.crt")).into(),
    });
    KubernetesSettings {
        kubeconfig: (!file.kube_config.is_empty()).then(|| file.kube_config.clone().into()),
        kubelet,
        node: file.metadata_watch.as_ref().is_some_and(|watch| watch.kubernetes_node.is_some()),
    }
}

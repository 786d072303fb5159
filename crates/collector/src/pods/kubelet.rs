//! The pods of this node by polling its kubelet: no load for the API server, changes seen after up to an interval.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Certificate, Client, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::{PodObject, Pods, Problem, object, publish};
use crate::config::KubeletSettings;

/// A node has some 100 pods of some 10 kB; more than this is no list of pods.
const MAX_LIST: usize = 64 << 20;

/// A kubelet that can be asked.
#[derive(Debug)]
pub(crate) struct Kubelet {
    client: Client,
    url: Url,
    token: PathBuf,
    interval: Duration,
}

#[derive(Deserialize)]
struct PodList {
    items: Option<Vec<PodObject>>,
}

impl Kubelet {
    /// Makes the client; no request is made.
    ///
    /// # Errors
    /// A token that cannot be read, certificates that are none.
    pub(crate) fn new(settings: &KubeletSettings) -> anyhow::Result<Kubelet> {
        let host = if settings.host.contains(':') { format!("[{}]", settings.host) } else { settings.host.clone() };
        let url = format!("https://{host}:{}/pods", settings.port);
        let connect = settings.request_timeout.min(Duration::from_secs(5));
        let mut builder = Client::builder()
            .user_agent(concat!("adx-mon-collector/", env!("CARGO_PKG_VERSION")))
            .timeout(settings.request_timeout)
            .connect_timeout(connect)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Some(authorities) = authorities(&settings.ca)? {
            builder = builder.tls_certs_only(authorities);
        }
        let kubelet = Kubelet {
            client: builder.build().context("preparing the client of the kubelet")?,
            url: url.parse().with_context(|| format!("kubelet-discovery: {url} is no URL; check kubelet-discovery.host"))?,
            token: settings.token.clone(),
            interval: settings.interval,
        };
        kubelet.token()?;
        Ok(kubelet)
    }

    /// The token, which Kubernetes replaces from time to time.
    fn token(&self) -> anyhow::Result<String> {
        let token = std::fs::read_to_string(&self.token)
            .with_context(|| format!("reading the token for the kubelet, {}; set kubelet-discovery.token-path", self.token.display()))?;
        Ok(token.trim().to_owned())
    }

    async fn pods(&self) -> anyhow::Result<Vec<PodObject>> {
        let mut response = self.client.get(self.url.clone()).bearer_auth(self.token()?).send().await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                bail!("the kubelet answered {}: the service account needs get on nodes/proxy", response.status())
            }
            status => bail!("the kubelet answered {status}"),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_LIST {
                bail!("the kubelet's list of pods exceeds {MAX_LIST} bytes");
            }
            body.extend_from_slice(&chunk);
        }
        let list: PodList = serde_json::from_slice(&body).context("reading the kubelet's list of pods")?;
        Ok(list.items.unwrap_or_default())
    }
}

/// The certificates of a bundle; none when there is no such file.
fn authorities(path: &Path) -> anyhow::Result<Option<Vec<Certificate>>> {
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let certificates = Certificate::from_pem_bundle(&pem).with_context(|| format!("reading certificates of {}", path.display()))?;
    if certificates.is_empty() {
        bail!("{} has no certificate; set kubelet-discovery.ca-path", path.display());
    }
    Ok(Some(certificates))
}

/// Asks for ever. A failed try keeps what is known.
pub(super) async fn poll(kubelet: &Kubelet, node: &str, publisher: &watch::Sender<Pods>, problem: &Problem) {
    let mut ticks = tokio::time::interval(kubelet.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match kubelet.pods().await {
            Ok(list) => {
                problem.gone();
                let pods = list.into_iter().filter_map(|pod| object::pod(pod, node));
                let pods: BTreeMap<_, _> = pods.map(|pod| (pod.uid.clone(), Arc::new(pod))).collect();
                publish(publisher, |present| *present = pods);
            }
            Err(error) => problem.is(&format!("{:#}", error.context(format!("asking {}", kubelet.url)))),
        }
    }
}

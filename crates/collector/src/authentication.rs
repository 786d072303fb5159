//! Who may send to this collector, as the configuration says.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use prometheus_client::registry::Registry;
use server::Auth;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::pipeline::Receivers;

/// What lets requests in; none when everybody may send. Its token file is followed until `stop`.
///
/// # Errors
/// An unusable token file, or no cluster where one is to be asked.
pub(crate) async fn start(config: &Config, registry: &mut Registry, stop: &CancellationToken) -> anyhow::Result<Option<Arc<Auth>>> {
    let Some(settings) = &config.authentication else { return Ok(None) };
    let kubeconfig = config.kubernetes.kubeconfig.as_deref();
    Ok(Some(settings.start(kubeconfig, registry, stop).await.context("authentication")?))
}

/// What listeners serve, behind `auth` if there is one.
pub(crate) fn protected(auth: Option<&Arc<Auth>>, receivers: Receivers) -> Receivers {
    let Some(auth) = auth else { return receivers };
    let protect = |router: Router| auth.protect(router);
    Receivers {
        http: protect(receivers.http),
        otlp_grpc: protect(receivers.otlp_grpc),
        grpc_ports: receivers.grpc_ports.into_iter().map(|(port, router)| (port, protect(router))).collect(),
    }
}

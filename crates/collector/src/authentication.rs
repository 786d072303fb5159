//! Who may send to this collector, as the configuration says.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use prometheus_client::registry::Registry;
use server::auth::Reviewer;
use server::{Auth, AuthOptions};
use token_review::KubeReviewer;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::pipeline::Receivers;

/// How often the token file is looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// What lets requests in; none when everybody may send. Its token file is followed until `stop`.
///
/// # Errors
/// An unusable token file, or no cluster where one is to be asked.
pub(crate) async fn start(config: &Config, registry: &mut Registry, stop: &CancellationToken) -> anyhow::Result<Option<Arc<Auth>>> {
    let Some(settings) = &config.authentication else { return Ok(None) };
    let reviewer: Option<Arc<dyn Reviewer>> = match settings.token_review {
        false => None,
        true => {
            let reviewer = KubeReviewer::connect(config.kubernetes.kubeconfig.as_deref(), settings.audiences.clone()).await?;
            let nobody = "authentication.token-review is set, but there is no cluster here: set kube-config";
            Some(Arc::new(reviewer.context(nobody)?))
        }
    };
    let options = AuthOptions {
        token_file: settings.token_file.clone(),
        reviewer,
        accounts: settings.service_accounts.clone(),
        open_paths: settings.open_paths.clone(),
    };
    let auth = Auth::new(options, registry).context("authentication")?;
    tokio::spawn(Arc::clone(&auth).follow(PERIOD, stop.clone()));
    Ok(Some(auth))
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

//! Who may send, as collector and ingestor are configured with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use server::auth::{Accounts, AuthError, Reviewer};
use server::{Auth, AuthOptions};
use tokio_util::sync::CancellationToken;

use crate::KubeReviewer;

/// How often the token file is looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Who may send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authentication {
    /// File with the tokens that are good.
    pub token_file: Option<PathBuf>,
    /// Whether Kubernetes is asked about other tokens.
    pub token_review: bool,
    /// What these tokens must be meant for; the API server itself when empty.
    pub audiences: Vec<String>,
    /// Whose they must be; anybody's when empty.
    pub service_accounts: Vec<Accounts>,
    /// Paths that need no token.
    pub open_paths: Vec<String>,
}

/// Why requests cannot be authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// The cluster cannot be asked.
    #[error(transparent)]
    Connect(#[from] kube_watch::ConnectError),
    /// Nobody says which cluster is to be asked.
    #[error("tokens are to be reviewed by a cluster, but there is no cluster here: name its kubeconfig")]
    NoCluster,
    /// The token file.
    #[error(transparent)]
    Tokens(#[from] AuthError),
}

impl Authentication {
    /// What lets requests in. Its token file is followed until `stop`. `kubeconfig` as for [`KubeReviewer::connect`].
    ///
    /// # Errors
    /// An unusable token file, or no cluster where one is to be asked.
    pub async fn start(
        &self,
        kubeconfig: Option<&Path>,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) -> Result<Arc<Auth>, AuthenticationError> {
        let reviewer: Option<Arc<dyn Reviewer>> = match self.token_review {
            false => None,
            true => {
                let reviewer = KubeReviewer::connect(kubeconfig, self.audiences.clone()).await?;
                Some(Arc::new(reviewer.ok_or(AuthenticationError::NoCluster)?))
            }
        };
        let options = AuthOptions {
            token_file: self.token_file.clone(),
            reviewer,
            accounts: self.service_accounts.clone(),
            open_paths: self.open_paths.clone(),
        };
        let auth = Auth::new(options, registry)?;
        tokio::spawn(Arc::clone(&auth).follow(PERIOD, stop.clone()));
        Ok(auth)
    }
}

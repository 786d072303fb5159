//! Bearer tokens that Kubernetes knows: [`KubeReviewer`] asks the API server with a TokenReview whose a token is.
//! [`Authentication`] is the setting of the components that take such tokens, or those of a file.
//!
//! Needs the right to create TokenReviews, which the cluster role `system:auth-delegator` gives (`deploy/rbac`). Source:
//! the Kubernetes API `authentication.k8s.io/v1`.

mod authentication;

use std::path::Path;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube_client::Client;
use kube_client::api::{Api, PostParams};
use server::auth::{Review, Reviewer};

pub use authentication::{Authentication, AuthenticationError};

/// Asks one cluster.
#[derive(Clone)]
pub struct KubeReviewer {
    client: Client,
    audiences: Vec<String>,
}

impl KubeReviewer {
    /// Takes tokens for one of `audiences`; for the API server's own where there are none, which every pod has a token
    /// for.
    #[must_use]
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        KubeReviewer { client, audiences }
    }

    /// [`KubeReviewer::new`] for the cluster of `kubeconfig`, of `KUBECONFIG`, or of the pod that this runs in; none where
    /// none of these is there.
    ///
    /// # Errors
    /// A kubeconfig or service account that cannot be used.
    pub async fn connect(kubeconfig: Option<&Path>, audiences: Vec<String>) -> Result<Option<KubeReviewer>, kube_watch::ConnectError> {
        let client = kube_watch::connect(kubeconfig).await?;
        Ok(client.map(|client| KubeReviewer::new(client, audiences)))
    }

    async fn ask(&self, token: String) -> Result<Review, String> {
        let audiences = (!self.audiences.is_empty()).then(|| self.audiences.clone());
        let review = TokenReview { spec: TokenReviewSpec { audiences, token: Some(token) }, ..TokenReview::default() };
        let answer = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| format!("asking the API server for a TokenReview: {}", kube_watch::describe(&error)))?;
        Ok(Review { user: answer.status.and_then(|status| self.user(status)) })
    }

    /// Whose the token is. A server that does not know of audiences names none, and then the token may be for anybody.
    fn user(&self, status: TokenReviewStatus) -> Option<String> {
        let meant = status.audiences.unwrap_or_default();
        let for_us = self.audiences.is_empty() || self.audiences.iter().any(|own| meant.contains(own));
        let user = status.user.and_then(|user| user.username).filter(|user| !user.is_empty());
        user.filter(|_| status.authenticated == Some(true) && for_us)
    }
}

impl Reviewer for KubeReviewer {
    fn review(&self, token: String) -> BoxFuture<'_, Result<Review, String>> {
        Box::pin(self.ask(token))
    }
}

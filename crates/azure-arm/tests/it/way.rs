//! How requests get there: straight into a function, with tokens that are made up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use azure::{Scope, Token, TokenSource};
use azure_arm::{Arm, ClusterId, PUBLIC_CLOUD};
use azure_testing::resource_manager::{Pace, ResourceManager};

/// The first token is one that Azure does not take, if so wished.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) expired: bool,
    pub(crate) renewed: AtomicUsize,
}

impl Tokens {
    fn token(text: &str) -> Arc<Token> {
        Arc::new(Token::new(text.to_owned(), "2100-01-01T00:00:00Z".parse().unwrap()).unwrap())
    }
}

#[async_trait]
impl TokenSource for Tokens {
    async fn token(&self, scope: &Scope) -> Result<Arc<Token>, azure::Error> {
        assert_eq!(scope.resource(), "https://management.azure.com/");
        Ok(Self::token(if self.expired { "EXPIRED" } else { "GOOD" }))
    }

    async fn renew(&self, _: &Scope, _: &Token) -> Result<Arc<Token>, azure::Error> {
        self.renewed.fetch_add(1, Ordering::Relaxed);
        Ok(Self::token("GOOD"))
    }
}

/// A client whose requests do not leave the process.
pub(crate) fn near(manager: &Arc<ResourceManager>) -> Arm {
    Arm::with_transport(PUBLIC_CLOUD, Arc::new(Tokens::default()), Arc::clone(manager) as _).unwrap()
}

pub(crate) fn id() -> ClusterId {
    ClusterId { subscription: "12345678-1234".to_owned(), group: "kustorptest".to_owned(), name: "kustocluster".to_owned() }
}

pub(crate) const CLUSTER: &str = "/subscriptions/12345678-1234/resourcegroups/kustorptest/providers/microsoft.kusto/clusters/kustocluster";

/// With a cluster that runs.
pub(crate) fn with_cluster() -> Arc<ResourceManager> {
    let manager = ResourceManager::new(Pace::default());
    manager.register();
    manager.put("/subscriptions/12345678-1234/resourcegroups/kustorptest", serde_json::json!({"location": "westus"}));
    manager.put(
        CLUSTER,
        serde_json::json!({
            "location": "westus", "etag": "\"first\"", "sku": {"name": "Standard_L8as_v3", "tier": "Standard", "capacity": 2},
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {"/a": {}, "/b": {}}},
            "properties": {"state": "Running", "provisioningState": "Succeeded", "uri": "https://kustocluster.westus.kusto.windows.net"},
        }),
    );
    manager
}

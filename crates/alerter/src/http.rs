//! What the alerter serves: metrics, health, what it knows of its rules, and a receiver for those who have none.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rules::clock::Clock;

use crate::engine::Table;
use crate::notification::Notification;

/// Answers whether the alerter is ready, or why not.
pub(crate) type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is served for those who ask for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extras {
    /// Notifications may be sent to `/alerts`, which logs them.
    pub(crate) receiver: bool,
    /// `/debug/pprof/`
    pub(crate) profiles: bool,
}

/// The routes.
pub(crate) fn router(registry: Arc<Registry>, ready: Ready, table: Arc<Mutex<Table>>, clock: Arc<dyn Clock>, extras: Extras) -> Router {
    let debug = get(move || async move { Json(table.lock().json(clock.now())) });
    let mut router = server::operations_router(ready, registry).route("/debug/rules", debug);
    if extras.receiver {
        router = router.route("/alerts", post(receive));
    }
    if extras.profiles {
        router = router.merge(server::profile::router());
    }
    router
}

async fn receive(body: Bytes) -> (StatusCode, String) {
    match serde_json::from_slice::<Notification>(&body) {
        Ok(n) => {
            tracing::info!(
                title = n.title,
                severity = n.severity,
                source = n.source,
                destination = n.destination,
                correlation = n.correlation_id,
                description = n.description,
                "alert"
            );
            (StatusCode::CREATED, String::new())
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("this is no notification: {error}\n")),
    }
}

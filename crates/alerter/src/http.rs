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

/// The routes. With `receiver` notifications may be sent to `/alerts`, which logs them.
pub(crate) fn router(registry: Arc<Registry>, ready: Ready, table: Arc<Mutex<Table>>, clock: Arc<dyn Clock>, receiver: bool) -> Router {
    let debug = get(move || async move { Json(table.lock().json(clock.now())) });
    let router = server::operations_router(ready, registry).route("/debug/rules", debug);
    if receiver { router.route("/alerts", post(receive)) } else { router }
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

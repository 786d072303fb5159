//! A data-management service: gives out the storage that a test tells it to, and counts how often it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(crate) const IDENTITY: &str = "IDENTITY-TOKEN";

/// (type, address) of every resource, by how often it was asked for before.
type Give = dyn Fn(usize) -> Vec<(&'static str, String)> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Management {
    pub(crate) url: String,
    asked: Arc<AtomicUsize>,
    give: Arc<Give>,
}

impl Management {
    pub(crate) async fn start(give: impl Fn(usize) -> Vec<(&'static str, String)> + Send + Sync + 'static) -> Management {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let management = Management { url, asked: Arc::default(), give: Arc::new(give) };
        let router = Router::new().route("/v1/rest/mgmt", post(answer)).with_state(management.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        management
    }

    /// How often it was asked for resources.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(management): State<Management>, Json(request): Json<Value>) -> Response {
    assert_eq!(request["db"], "NetDefaultDB");
    let (columns, rows) = match request["csl"].as_str().unwrap() {
        ".get ingestion resources" => {
            let before = management.asked.fetch_add(1, Ordering::SeqCst);
            let rows = (management.give)(before).into_iter().map(|(kind, root)| json!([kind, root])).collect();
            (vec!["ResourceTypeName", "StorageRoot"], rows)
        }
        ".get kusto identity token" => (vec!["AuthorizationContext"], vec![json!([IDENTITY])]),
        other => panic!("{other}"),
    };
    let columns: Vec<_> =
        columns.into_iter().map(|name| json!({"ColumnName": name, "DataType": "String", "ColumnType": "string"})).collect();
    Json(json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]})).into_response()
}

//! Kusto's REST protocol: query (versions 1 and 2), management, streaming ingestion, authentication metadata.

mod answer;
mod ingest;
mod request;
mod respond;
mod values;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{get, post};

use crate::commands::{self, Command, Parsed};
use crate::error::KustoError;
use crate::operations;
use crate::query::{self, Answer};
use crate::service::Kustd;
use request::Request;
use respond::{Frames, Talk};

/// All routes of the protocol.
pub(crate) fn router(kustd: Arc<Kustd>) -> Router {
    Router::new()
        .route("/v1/rest/query", post(query_v1).get(query_v1))
        .route("/v2/rest/query", post(query_v2).get(query_v2))
        .route("/v1/rest/mgmt", post(management).get(management))
        .route("/v1/rest/ingest/{database}/{table}", post(ingest::streaming))
        .route("/v1/rest/auth/metadata", get(auth_metadata))
        .route("/", get(|| async { "kustd: POST /v2/rest/query {\"db\":…,\"csl\":…}\n" }))
        .fallback(respond::unknown_route)
        .layer(axum::middleware::from_fn(respond::cross_origin))
        .with_state(kustd)
}

async fn query_v1(State(kustd): State<Arc<Kustd>>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let talk = Talk::new(&headers, kustd.now());
    let outcome = answer(&kustd, &uri, &headers, body).await;
    talk.respond(outcome.map(|(answer, request)| match request.is_command {
        true => (answer, Frames::Management),
        false => (answer, Frames::Version1),
    }))
}

async fn query_v2(State(kustd): State<Arc<Kustd>>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let talk = Talk::new(&headers, kustd.now());
    let outcome = answer(&kustd, &uri, &headers, body).await;
    talk.respond(outcome.map(|(answer, request)| (answer, Frames::Version2 { fragmented: request.fragmented })))
}

async fn management(State(kustd): State<Arc<Kustd>>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let talk = Talk::new(&headers, kustd.now());
    let outcome = answer(&kustd, &uri, &headers, body).await;
    talk.respond(outcome.map(|(answer, _)| (answer, Frames::Management)))
}

/// Answers a query or a command; both may come on either route.
async fn answer(kustd: &Arc<Kustd>, uri: &Uri, headers: &HeaderMap, body: Body) -> Result<(Answer, Request), KustoError> {
    let mut request = request::read(uri, headers, body).await?;
    request.is_command = commands::is_command(&request.text);
    let outcome = if request.is_command {
        kustd.metrics.commands.inc();
        run_command(kustd, &request).await
    } else {
        kustd.metrics.queries.inc();
        let outcome = run_query(kustd, &request).await;
        if outcome.is_err() {
            kustd.metrics.query_failures.inc();
        }
        outcome
    };
    outcome.map(|answer| (answer, request))
}

async fn run_query(kustd: &Kustd, request: &Request) -> Result<Answer, KustoError> {
    let snapshot = Arc::new(kustd.snapshot());
    let database = snapshot.image().database(&request.database).map(|database| database.name.to_string());
    let database = database.ok_or_else(|| KustoError::not_found("Database", &request.database))?;
    query::run(snapshot, &database, &request.text, &request.options, kustd.now()).await
}

async fn run_command(kustd: &Arc<Kustd>, request: &Request) -> Result<Answer, KustoError> {
    let text = &request.text;
    let Parsed { command, pipe } = commands::parse(text).map_err(|diagnostic| KustoError::diagnostics(text, &[diagnostic]))?;
    let changes = !matches!(command, Command::Show(_));
    // those that run in the background, and the commands of a script, are put on the list where they run
    let recorded = changes && !matches!(command, Command::FromQuery { asynchronous: true, .. } | Command::ExecuteScript { .. });
    if changes && request.options.read_only {
        return Err(KustoError::bad_request("the request is read-only, and the command changes things"));
    }
    let started = kustd.now();
    let name = command.name();
    let outcome = commands::run(kustd, &request.database, text, command).await;
    if recorded {
        kustd.operations.put_awaited(operations::ended(name, &request.database, started, kustd.now(), outcome.as_ref().err()));
    }
    let snapshot = Arc::new(kustd.snapshot());
    match pipe {
        Some(pipe) => query::continue_rows(snapshot, &request.database, outcome?, text, pipe, kustd.now()).await,
        None => query::rows_answer(outcome?),
    }
}

/// Where clients would sign in. Nobody has to, but clients expect the document.
async fn auth_metadata() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({
        "AzureAD": {
            "LoginEndpoint": "https://login.microsoftonline.com",
            "LoginMfaRequired": false,
            "KustoClientAppId": "db662dc1-0cfe-4e1c-a843-19a68e65be58",
            "KustoClientRedirectUri": "https://microsoft/kustoclient",
            "KustoServiceResourceId": "https://kusto.kusto.windows.net",
            "FirstPartyAuthorityUrl": "https://login.microsoftonline.com/f8cdef31-a31e-4b4a-93e4-5f571e91255a",
        }
    }))
}

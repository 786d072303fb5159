//! Bearer tokens: what is asked, what is answered, and what is said about it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use server::auth::{OPEN_PATHS, Review, Reviewer};
use server::{Auth, AuthOptions, BodyLimits, Limits};

use crate::support::{Recorder, Server, client};

const PERIOD: Duration = Duration::from_millis(20);

fn tokens_in(dir: &Path, text: &str) -> AuthOptions {
    let path = dir.join("tokens");
    std::fs::write(&path, text).unwrap();
    AuthOptions { token_file: Some(path), open_paths: OPEN_PATHS.map(str::to_owned).to_vec(), ..AuthOptions::default() }
}

async fn protected(options: AuthOptions) -> (Server, Registry) {
    let mut registry = Registry::default();
    let auth = Auth::new(options, &mut registry).unwrap();
    let services = crate::grpc::router(&Arc::new(Recorder::default()), BodyLimits::default(), Duration::from_secs(5));
    let router = Router::new().route("/", get(|| async { "in" })).route("/metrics", get(|| async { "open" })).merge(services);
    let server = Server::start(auth.protect(router), Limits::default()).await;
    tokio::spawn(auth.follow(PERIOD, server.shutdown.clone()));
    (server, registry)
}

async fn status(server: &Server, path: &str, authorization: Option<&str>) -> u16 {
    let mut request = client().get(server.url(path));
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    request.send().await.unwrap().status().as_u16()
}

fn count(registry: &Registry, outcome: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let name = format!("adxmon_authentication_requests_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_of_the_file_is_good_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (server, registry) = protected(tokens_in(dir.path(), "# of the collectors\nfirst-token\n\n second-token \r\n")).await;
    for good in ["Bearer first-token", "bearer second-token", "Bearer  first-token"] {
        assert_eq!(status(&server, "/", Some(good)).await, 200, "{good}");
    }
    for bad in
        ["Bearer first-toke", "Bearer first-token2", "Bearer # of the collectors", "Bearer ", "Basic Zmlyc3Q6dG9rZW4=", "first-token"]
    {
        assert_eq!(status(&server, "/", Some(bad)).await, 401, "{bad}");
    }
    let long = format!("Bearer {}", "x".repeat(17 << 10));
    assert_eq!(status(&server, "/", Some(&long)).await, 401);
    assert_eq!((status(&server, "/", None).await, status(&server, "/no/such/path", None).await), (401, 401));
    assert_eq!((status(&server, "/metrics", None).await, status(&server, "/metrics/", None).await), (200, 401));
    assert_eq!((count(&registry, "admitted"), count(&registry, "invalid"), count(&registry, "missing")), (3, 4, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_how_to_do_better_in_the_words_of_its_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = protected(tokens_in(dir.path(), "good")).await;
    let response = client().get(server.url("/")).send().await.unwrap();
    assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer realm=\"adx-mon\"");
    assert!(response.text().await.unwrap().contains("Authorization: Bearer"));
    let response = client().get(server.url("/")).bearer_auth("secret").send().await.unwrap();
    assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer realm=\"adx-mon\", error=\"invalid_token\"");
    assert!(!response.text().await.unwrap().contains("secret"));

    let h2 = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let call = |token: &'static str| {
        let request = h2.post(server.url(server::receive::grpc::TRACES_PATH)).header(CONTENT_TYPE, "application/grpc");
        request.bearer_auth(token).body(&[0u8, 0, 0, 0, 0][..]).send()
    };
    let refused = call("bad").await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["grpc-status"]), (200, &"16".parse().unwrap()));
    assert!(!call("good").await.unwrap().headers().contains_key("grpc-status"));
}

/// Rotation: the new token is good while the old one still is; then the old one is taken out.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = protected(tokens_in(dir.path(), "old")).await;
    let becomes = async |token: &str, wanted: u16| {
        let wait = async {
            while status(&server, "/", Some(&format!("Bearer {token}"))).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("{token} does not become {wanted}"));
    };
    std::fs::write(dir.path().join("tokens"), "old\nnew").unwrap();
    becomes("new", 200).await;
    becomes("old", 200).await;
    std::fs::write(dir.path().join("tokens"), "new").unwrap();
    becomes("old", 401).await;
    // A file that is gone for a moment locks nobody out.
    std::fs::remove_file(dir.path().join("tokens")).unwrap();
    tokio::time::sleep(PERIOD * 3).await;
    becomes("new", 200).await;
    std::fs::write(dir.path().join("tokens"), "").unwrap();
    becomes("new", 401).await;
}

struct Kubernetes;

impl Reviewer for Kubernetes {
    fn review(&self, token: String) -> futures::future::BoxFuture<'_, Result<Review, String>> {
        Box::pin(async move {
            match token.split_once(' ').unwrap_or((token.as_str(), "")).0 {
                "away" => Err("connection refused".to_owned()),
                "collector" => Ok(Review { user: Some("system:serviceaccount:adx-mon:collector".to_owned()) }),
                "other" => Ok(Review { user: Some("system:serviceaccount:default:default".to_owned()) }),
                _ => Ok(Review { user: None }),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_does_not_have_is_reviewed() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = vec!["adx-mon/*".parse().unwrap()];
    let options = AuthOptions { reviewer: Some(Arc::new(Kubernetes)), accounts, ..tokens_in(dir.path(), "static") };
    let (server, registry) = protected(options).await;
    for (token, wanted) in [("static", 200), ("collector", 200), ("other", 403), ("unknown", 401), ("away", 503)] {
        let response = client().get(server.url("/")).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), wanted, "{token}");
        assert_eq!(response.headers().contains_key(RETRY_AFTER), wanted == 503, "{token}");
        let text = response.text().await.unwrap();
        assert_eq!(text.contains("connection refused"), wanted == 503, "{token}: {text}");
    }
    assert_eq!((count(&registry, "not_allowed"), count(&registry, "unavailable")), (1, 1));
}

#[test]
fn a_file_that_lets_nobody_in_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let error = |options| Auth::new(options, &mut Registry::default()).err().unwrap().to_string();
    assert!(error(tokens_in(dir.path(), "# none\n\n")).contains("holds no token"));
    let missing = AuthOptions { token_file: Some(dir.path().join("missing")), ..AuthOptions::default() };
    assert!(error(missing).contains("missing: No such file"));
}

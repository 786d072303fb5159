//! Service accounts of a real API server send to a listener that asks it about their tokens, with the rights of
//! `deploy/rbac`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube_client::Client;
use kube_client::api::Api;
use prometheus_client::registry::Registry;
use server::{Auth, AuthOptions, Limits};
use token_review::KubeReviewer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const AUDIENCE: &str = "adx-mon";

/// A token of a service account for an audience, as a projected volume has it.
async fn token(admin: &Client, namespace: &str, name: &str, audience: &str) -> String {
    let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), namespace);
    accounts.create_token_request(name, &Default::default(), &request).await.unwrap().status.unwrap().token
}

async fn serve(reviewer: KubeReviewer, stop: &CancellationToken) -> SocketAddr {
    let options = AuthOptions {
        reviewer: Some(Arc::new(reviewer)),
        accounts: vec!["adx-mon/collector".parse().unwrap(), "apps/*".parse().unwrap()],
        ..AuthOptions::default()
    };
    let auth = Auth::new(options, &mut Registry::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = auth.protect(Router::new().route("/", get(|| async { "in" })));
    tokio::spawn(server::serve(listener, router, Limits::default(), None, stop.clone()));
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_named_accounts_for_our_audience_are_let_in() {
    let Some(mut api) = kube_testing::start(&[]).await else { return };
    let admin = api.admin().await;
    for namespace in ["adx-mon", "apps"] {
        api.create(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {namespace} }}")).await.unwrap();
    }
    for (namespace, name) in [("adx-mon", "ingestor"), ("adx-mon", "collector"), ("adx-mon", "stranger"), ("apps", "shop")] {
        let account = format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: {name}, namespace: {namespace} }}");
        api.create(&account).await.unwrap();
    }
    let kubeconfig = api.service_account("adx-mon", "ingestor").await.unwrap();
    let client = kube_watch::connect(Some(&kubeconfig)).await.unwrap().unwrap();
    let stop = CancellationToken::new();
    let addr = serve(KubeReviewer::new(client, vec![AUDIENCE.to_owned()]), &stop).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = async |token: &str| {
        let response = http.get(format!("http://{addr}/")).bearer_auth(token).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let collector = token(&admin, "adx-mon", "collector", AUDIENCE).await;

    // Without the right to ask, the answer says so.
    let (status, text) = send(&collector).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("tokenreviews"), "{text}");
    api.create(include_str!("../../../../deploy/rbac/token-review.yaml")).await.unwrap();

    // The authorizer of the API server learns of a binding a moment later.
    let mut answer = send(&collector).await;
    for _ in 0..100 {
        if answer.0 != 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = send(&collector).await;
    }
    assert_eq!(answer, (200, "in".to_owned()));
    assert_eq!(send(&token(&admin, "apps", "shop", AUDIENCE).await).await.0, 200);
    assert_eq!(send(&token(&admin, "adx-mon", "stranger", AUDIENCE).await).await.0, 403);
    assert_eq!(send(&token(&admin, "adx-mon", "collector", "https://kubernetes.default.svc").await).await.0, 401, "another audience");
    assert_eq!(send("made.up.token").await.0, 401);
    let (header, rest) = collector.split_once('.').unwrap();
    let forged = format!("{header}.{}", rest.chars().rev().collect::<String>());
    assert_eq!(send(&forged).await.0, 401);

    // While the API server is away, tokens that were reviewed go on, others cannot be checked.
    let fresh = token(&admin, "apps", "shop", AUDIENCE).await;
    api.stop();
    assert_eq!(send(&collector).await.0, 200);
    let (status, text) = send(&fresh).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("cannot be checked now") && !text.contains(&fresh), "{text}");
    stop.cancel();
}

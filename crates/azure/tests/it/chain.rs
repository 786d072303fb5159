//! The chain: its order, its errors, and what it never shows.

use std::io::Write;
use std::sync::{Arc, Mutex};

use azure::Kind;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::fake::{Fake, bearer, credentials, kusto, status, token};

#[tokio::test]
async fn when_nothing_is_set_up_each_way_is_named_with_what_to_set() {
    let empty = tempfile::tempdir().unwrap();
    let environment = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1"), ("PATH", empty.path().to_str().unwrap())];
    let error = credentials(environment).default_chain().token(&kusto()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    let mut rest = error.message.as_str();
    for part in [
        "no Azure credentials are set up",
        "client secret: AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_CLIENT_SECRET not set",
        "client certificate: AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_CLIENT_CERTIFICATE_PATH not set",
        "workload identity: AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE not set",
        "azure.workload.identity/use=true",
        "managed identity: asking http://127.0.0.1:1/metadata/identity/oauth2/token",
        "this is no machine of Azure",
        "Azure CLI: there is no program az in PATH; install the Azure CLI and run `az login`",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} in order in {error}"));
        rest = &rest[at + part.len()..];
    }
}

#[tokio::test]
async fn the_machines_identity_is_used_where_no_other_is_set_up_and_named_by_the_environment() {
    let fake = Fake::plain([token("T")]).await;
    let environment = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", fake.url.as_str()), ("AZURE_CLIENT_ID", "C")];
    let chain = credentials(environment).default_chain();
    assert_eq!(bearer(&chain.token(&kusto()).await.unwrap()), "Bearer T");
    assert_eq!(fake.only().query()["client_id"], "C");
}

#[tokio::test]
async fn a_machine_without_an_identity_is_passed_over() {
    let fake = Fake::plain([status(400, r#"{"error":"invalid_request","error_description":"Identity not found"}"#)]).await;
    let empty = tempfile::tempdir().unwrap();
    let environment = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", fake.url.as_str()), ("PATH", empty.path().to_str().unwrap())];
    let error = credentials(environment).default_chain().token(&kusto()).await.unwrap_err();
    assert!(error.message.contains("no identity is assigned") && error.message.contains("az in PATH"), "{error}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

/// Everything that any crate logs at its finest level while tokens are issued and refused. The runtime has one thread, so
/// the subscriber of this thread sees all of it.
#[tokio::test]
async fn no_secret_is_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(tracing_subscriber::fmt::layer().with_writer(log.clone()).with_ansi(false));
    let _guard = subscriber.set_default();
    let directory = Fake::tls([token("ISSUED"), status(401, r#"{"error":"invalid_client"}"#)]).await;
    let secret = [
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_CLIENT_SECRET", "HIDDEN"),
        ("AZURE_AUTHORITY_HOST", directory.url.as_str()),
    ];
    let chain = directory.credentials(secret).default_chain();
    let issued = chain.token(&kusto()).await.unwrap();
    chain.token(&azure::Scope::new("https://management.azure.com/")).await.unwrap_err();
    let machine = Fake::plain([token("ISSUED")]).await;
    let endpoint = machine.url.clone();
    let app =
        credentials([("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "HIDDEN")]).managed_identity(azure::Identity::System);
    let of_app = app.token(&kusto()).await.unwrap();
    let shown = format!("{chain:?} {issued:?} {app:?} {of_app:?} {:?}", credentials(secret));
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    // The subscriber was listening: to our events and to those of the libraries below.
    assert!(logged.contains("a token was issued") && logged.contains("no token was issued") && logged.contains("hyper"), "{logged}");
    for text in [logged, shown] {
        assert!(!text.contains("HIDDEN") && !text.contains("ISSUED"), "{text}");
    }
}

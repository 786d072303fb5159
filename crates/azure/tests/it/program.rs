//! The Azure CLI: a script named `az` in PATH.

use std::os::unix::fs::PermissionsExt as _;

use azure::Kind;
use tempfile::TempDir;

use crate::fake::{NOW, bearer, credentials, kusto};

/// An `az` of this text, and an environment of which nothing else can give a token.
fn az(script: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("az");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

async fn ask(folder: &TempDir) -> Result<std::sync::Arc<azure::Token>, azure::Error> {
    // Nobody listens on port 1: no machine of Azure.
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let environment = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1"), ("PATH", path.as_str())];
    credentials(environment).default_chain().token(&kusto()).await
}

#[tokio::test]
async fn the_cli_is_run_for_the_resource() {
    let answer = format!(
        r#"{{"accessToken":"T","expiresOn":"2027-01-15 09:59:59.000000","expires_on":{},"subscription":"s","tenant":"t","tokenType":"Bearer"}}"#,
        NOW + 3599
    );
    let folder = az(&format!("echo \"$@\" > \"$(dirname \"$0\")/arguments\"\necho WARNING >&2\necho '{answer}'"));
    let token = ask(&folder).await.unwrap();
    assert_eq!((bearer(&token).as_str(), token.expires().as_second()), ("Bearer T", NOW + 3599));
    let arguments = std::fs::read_to_string(folder.path().join("arguments")).unwrap();
    assert_eq!(arguments.trim(), "account get-access-token --output json --resource https://kusto.kusto.windows.net");
}

#[tokio::test]
async fn what_the_cli_says_about_its_failure_is_passed_on() {
    let error = ask(&az("echo \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1")).await.unwrap_err();
    assert!(error.message.contains("Azure CLI: az failed: ERROR: Please run 'az login' to setup account."), "{error}");
    assert_eq!(error.kind, Kind::Unavailable);
    let error = ask(&az("exit 3")).await.unwrap_err();
    assert!(error.message.contains("without a reason"), "{error}");
}

#[tokio::test]
async fn an_old_cli_that_gives_a_local_time_only_is_named() {
    let error = ask(&az(r#"echo '{"accessToken":"HIDDEN","expiresOn":"2027-01-15 09:59:59.000000"}'"#)).await.unwrap_err();
    assert!(error.message.contains("2.54") && !error.message.contains("HIDDEN"), "{error}");
}

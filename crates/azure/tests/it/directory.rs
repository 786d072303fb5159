//! Client secret, certificate and workload identity: requests as Microsoft's documentation of the client credentials flow
//! has them.

use std::process::Command;
use std::sync::Arc;

use azure::{Error, Kind, Token};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::fake::{Fake, NOW, bearer, credentials, kusto, status, token, with};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const CLIENT: &str = "99999999-8888-7777-6666-555555555555";

async fn by_secret(fake: &Fake) -> Result<Arc<Token>, Error> {
    let environment = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_CLIENT_SECRET", "SECRET~&=+ä"),
        ("AZURE_AUTHORITY_HOST", &fake.url),
    ];
    fake.credentials(environment).default_chain().token(&kusto()).await
}

#[tokio::test]
async fn a_client_secret_is_sent_as_a_form() {
    let fake = Fake::tls([token("T")]).await;
    let token = by_secret(&fake).await.unwrap();
    assert_eq!((bearer(&token).as_str(), token.expires().as_second()), ("Bearer T", NOW + 3599));

    let asked = fake.only();
    assert_eq!((asked.method.as_str(), asked.uri.path()), ("POST", format!("/{TENANT}/oauth2/v2.0/token").as_str()));
    assert_eq!(asked.uri.query(), None);
    assert_eq!(asked.headers["content-type"], "application/x-www-form-urlencoded");
    let expected = [
        ("client_id", CLIENT),
        ("client_secret", "SECRET~&=+ä"),
        ("grant_type", "client_credentials"),
        ("scope", "https://kusto.kusto.windows.net/.default"),
    ];
    assert_eq!(asked.form(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[tokio::test]
async fn a_wrong_secret_ends_the_matter_with_the_directorys_reason() {
    let refusal = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1"}"#;
    let fake = Fake::tls([status(401, refusal)]).await;
    let error = by_secret(&fake).await.unwrap_err();
    assert_eq!((error.kind, fake.asked()), (Kind::Refused, 1));
    for part in ["client secret", "AADSTS7000215", CLIENT, TENANT, "check AZURE_CLIENT_SECRET"] {
        assert!(error.message.contains(part), "{part} in {error}");
    }
    // No other identity in its place.
    assert!(!error.message.contains("managed identity") && !error.message.contains("SECRET~"), "{error}");
}

#[tokio::test]
async fn a_busy_directory_is_asked_again_and_its_wish_for_a_pause_kept() {
    let fake = Fake::tls([status(503, ""), with(429, &[("retry-after", "0")]), status(500, "<html>"), token("T")]).await;
    assert_eq!(bearer(&by_secret(&fake).await.unwrap()), "Bearer T");
    assert_eq!(fake.asked(), 4);

    let fake = Fake::tls([status(503, ""), status(503, ""), status(503, ""), status(503, "")]).await;
    let error = by_secret(&fake).await.unwrap_err();
    assert_eq!((error.kind, fake.asked()), (Kind::Transient, 4));

    // Longer than anybody waits: the next caller may ask.
    let fake = Fake::tls([with(429, &[("retry-after", "100")])]).await;
    assert_eq!((by_secret(&fake).await.unwrap_err().kind, fake.asked()), (Kind::Transient, 1));
}

#[tokio::test]
async fn answers_that_are_no_tokens_are_refused_without_being_shown() {
    static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "HIDDEN".repeat(100_000));
    for (body, says) in [("HIDDEN", "no JSON"), (r#"{"access_token":"HIDDEN"}"#, "when the token ends"), (LONG.as_str(), "longer than")] {
        let fake = Fake::tls([status(200, body)]).await;
        let error = by_secret(&fake).await.unwrap_err();
        assert!(error.message.contains(says) && !error.message.contains("HIDDEN"), "{error}");
    }
}

#[tokio::test]
async fn secrets_go_to_https_and_to_nobody_that_a_redirect_names() {
    let other = Fake::plain([token("T")]).await;
    let error = credentials([
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_CLIENT_SECRET", "SECRET"),
        ("AZURE_AUTHORITY_HOST", &other.url),
    ])
    .default_chain()
    .token(&kusto())
    .await
    .unwrap_err();
    assert!(error.kind == Kind::Refused && error.message.contains("not https"), "{error}");
    let elsewhere: &'static str = other.url.clone().leak();
    let redirecting = Fake::tls([with(307, vec![("location", elsewhere)].leak())]).await;
    let error = by_secret(&redirecting).await.unwrap_err();
    assert!(error.message.contains("status 307"), "{error}");
    assert_eq!((other.asked(), redirecting.asked()), (0, 1));
}

#[tokio::test]
async fn a_tenant_cannot_leave_its_place_in_the_address() {
    for tenant in ["../x", "a/b", "a?b", "a#b", "a b"] {
        let environment = [("AZURE_TENANT_ID", tenant), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "SECRET")];
        let error = credentials(environment).default_chain().token(&kusto()).await.unwrap_err();
        assert!(error.kind == Kind::Refused && error.message.contains("AZURE_TENANT_ID"), "{error}");
    }
}

/// A token of a service account with these claims, as Kubernetes projects it.
fn service_account() -> String {
    let claims =
        json!({"iss": "https://oidc.example/x/", "sub": "system:serviceaccount:adx-mon:ingestor", "aud": ["api://AzureADTokenExchange"]});
    format!("e30.{}.SIGNATURE", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[tokio::test]
async fn workload_identity_sends_the_service_accounts_token_read_anew_each_time() {
    let no_record = r#"{"error":"invalid_client","error_description":"AADSTS70021: No matching federated identity record found."}"#;
    let fake = Fake::tls([token("T"), token("U"), status(401, no_record)]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let environment = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_FEDERATED_TOKEN_FILE", path.to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", &format!("{}/", fake.url)),
    ];
    // A chain for each token: what is tested here is the credential, not the cache.
    let ask = || fake.credentials(environment).default_chain();
    std::fs::write(&path, "FIRST\n").unwrap();
    assert_eq!(bearer(&ask().token(&kusto()).await.unwrap()), "Bearer T");
    std::fs::write(&path, service_account()).unwrap();
    assert_eq!(bearer(&ask().token(&kusto()).await.unwrap()), "Bearer U");
    {
        let asked = fake.asked.lock().unwrap();
        assert_eq!(asked[0].uri.path(), format!("/{TENANT}/oauth2/v2.0/token"));
        let expected = [
            ("client_assertion", "FIRST"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_id", CLIENT),
            ("grant_type", "client_credentials"),
            ("scope", "https://kusto.kusto.windows.net/.default"),
        ];
        assert_eq!(asked[0].form(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(asked[1].form()["client_assertion"], service_account());
    }
    let error = ask().token(&kusto()).await.unwrap_err();
    for part in ["workload identity", "AADSTS70021", "https://oidc.example/x/", "system:serviceaccount:adx-mon:ingestor"] {
        assert!(error.message.contains(part), "{part} in {error}");
    }
    assert!(!error.message.contains("SIGNATURE"), "{error}");

    std::fs::remove_file(&path).unwrap();
    let error = ask().token(&kusto()).await.unwrap_err();
    assert!(error.kind == Kind::Transient && error.message.contains("AZURE_FEDERATED_TOKEN_FILE"), "{error}");
}

#[tokio::test]
async fn a_certificate_signs_a_statement_that_openssl_verifies() {
    let fake = Fake::tls([token("T")]).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| {
        let ran = Command::new("openssl").args(arguments).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        ran.stdout
    };
    let (key, certificate, both) = (at("key"), at("certificate"), at("both"));
    openssl(&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2", "-keyout", &key, "-out", &certificate]);
    std::fs::write(&both, [std::fs::read(&key).unwrap(), std::fs::read(&certificate).unwrap()].concat()).unwrap();
    let environment = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_CLIENT_CERTIFICATE_PATH", &both),
        ("AZURE_AUTHORITY_HOST", &fake.url),
    ];
    let chain = fake.credentials(environment).default_chain();
    assert_eq!(bearer(&chain.token(&kusto()).await.unwrap()), "Bearer T");

    let form = fake.only().form();
    assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let parts: Vec<&str> = form["client_assertion"].split('.').collect();
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let (header, claims) = (json(parts[0]), json(parts[1]));
    let thumbprint = openssl(&["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"]);
    let thumbprint = String::from_utf8(thumbprint).unwrap().trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    let sent: String = URL_SAFE_NO_PAD.decode(header["x5t#S256"].as_str().unwrap()).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!((&header["alg"], &header["typ"], sent), (&json!("PS256"), &json!("JWT"), thumbprint));
    let endpoint = format!("{}/{TENANT}/oauth2/v2.0/token", fake.url);
    assert_eq!((&claims["aud"], &claims["iss"], &claims["sub"]), (&json!(endpoint), &json!(CLIENT), &json!(CLIENT)));
    assert_eq!((&claims["nbf"], &claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW), &json!(NOW + 600)));
    assert_eq!(claims["jti"].as_str().unwrap().len(), 36);

    let (public, signature, statement) = (at("public"), at("signature"), at("statement"));
    std::fs::write(&public, openssl(&["x509", "-in", &certificate, "-noout", "-pubkey"])).unwrap();
    std::fs::write(&signature, URL_SAFE_NO_PAD.decode(parts[2]).unwrap()).unwrap();
    std::fs::write(&statement, format!("{}.{}", parts[0], parts[1])).unwrap();
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    openssl(&[&["dgst", "-sha256", "-verify", &public, "-signature", &signature][..], &pss[..], &[&statement]].concat());
}

#[tokio::test]
async fn the_environment_outweighs_the_directory_of_the_scope() {
    let fake = Fake::tls([token("T")]).await;
    let environment =
        [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "s"), ("AZURE_AUTHORITY_HOST", &fake.url)];
    let scope = azure::Scope::new("https://kusto.kusto.usgovcloudapi.net").with_authority("https://login.microsoftonline.us").unwrap();
    assert_eq!(bearer(&fake.credentials(environment).default_chain().token(&scope).await.unwrap()), "Bearer T");
    assert_eq!(fake.only().form()["scope"], "https://kusto.kusto.usgovcloudapi.net/.default");
}

#[tokio::test]
async fn a_directory_out_of_reach_is_no_reason_to_be_somebody_else() {
    let environment =
        [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "s"), ("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")];
    let error = credentials(environment).default_chain().token(&kusto()).await.unwrap_err();
    assert!(error.kind == Kind::Transient && !error.message.contains("managed identity"), "{error}");
}

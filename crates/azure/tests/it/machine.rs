//! Managed identities: requests as Microsoft's documentation of IMDS and App Service has them.

use azure::{Identity, Kind};

use crate::fake::{Fake, NOW, bearer, credentials, kusto, status, token, with};

const ID: &str = "99999999-8888-7777-6666-555555555555";
const RESOURCE: &str = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";

#[tokio::test]
async fn each_kind_of_identity_is_asked_for_by_its_parameter() {
    for (identity, parameter) in [
        (Identity::System, None),
        (Identity::ClientId(ID.to_owned()), Some(("client_id", ID))),
        (Identity::ResourceId(RESOURCE.to_owned()), Some(("msi_res_id", RESOURCE))),
    ] {
        // The answer of the documentation: all numbers are strings.
        let body = format!(
            r#"{{"access_token":"T","refresh_token":"","expires_in":"3599","expires_on":"{}","not_before":"{NOW}","resource":"r","token_type":"Bearer"}}"#,
            NOW + 3599
        );
        let fake = Fake::plain([status(200, &body)]).await;
        let source = credentials([("AZURE_POD_IDENTITY_AUTHORITY_HOST", &fake.url)]).managed_identity(identity);
        let token = source.token(&kusto()).await.unwrap();
        assert_eq!((bearer(&token).as_str(), token.expires().as_second()), ("Bearer T", NOW + 3599));

        let asked = fake.only();
        assert_eq!((asked.method.as_str(), asked.uri.path()), ("GET", "/metadata/identity/oauth2/token"));
        let mut expected = vec![("api-version", "2018-02-01"), ("resource", "https://kusto.kusto.windows.net")];
        expected.extend(parameter);
        assert_eq!(asked.query(), expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        assert_eq!(asked.headers["metadata"], "true");
    }
}

#[tokio::test]
async fn app_service_is_asked_with_its_header() {
    for (id, parameter) in [(ID, "client_id"), (RESOURCE, "mi_res_id")] {
        let fake = Fake::plain([token("T")]).await;
        let endpoint = format!("{}/MSI/token/", fake.url);
        let source = credentials([("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "HEADER")]).managed_identity(Identity::user(id));
        assert_eq!(bearer(&source.token(&kusto()).await.unwrap()), "Bearer T");
        let asked = fake.only();
        assert_eq!((asked.uri.path(), asked.headers["x-identity-header"].to_str().unwrap()), ("/MSI/token/", "HEADER"));
        let query = asked.query();
        assert_eq!((query["api-version"].as_str(), query[parameter].as_str()), ("2019-08-01", id));
        assert!(asked.headers.get("metadata").is_none());
    }
}

#[tokio::test]
async fn a_metadata_service_that_is_busy_or_updated_is_asked_again() {
    let busy = [status(404, ""), status(410, ""), with(429, &[("retry-after", "0")]), token("T")];
    let fake = Fake::plain(busy).await;
    let source = credentials([("AZURE_POD_IDENTITY_AUTHORITY_HOST", &fake.url)]).managed_identity(Identity::System);
    assert_eq!(bearer(&source.token(&kusto()).await.unwrap()), "Bearer T");
    assert_eq!(fake.asked(), 4);

    let fake = Fake::plain([status(500, ""), status(502, ""), status(503, ""), status(504, ""), token("T")]).await;
    let source = credentials([("AZURE_POD_IDENTITY_AUTHORITY_HOST", &fake.url)]).managed_identity(Identity::System);
    let error = source.token(&kusto()).await.unwrap_err();
    assert_eq!((error.kind, fake.asked()), (Kind::Transient, 4));
}

#[tokio::test]
async fn an_identity_that_the_machine_lacks_is_named_with_the_way_out() {
    let refusal = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    for (identity, says) in [
        (Identity::System, "assigned to this machine by the system"),
        (Identity::ClientId(ID.to_owned()), ID),
        (Identity::ResourceId(RESOURCE.to_owned()), RESOURCE),
    ] {
        let fake = Fake::plain([status(400, refusal)]).await;
        let source = credentials([("AZURE_POD_IDENTITY_AUTHORITY_HOST", &fake.url)]).managed_identity(identity);
        let error = source.token(&kusto()).await.unwrap_err();
        assert_eq!((error.kind, fake.asked()), (Kind::Refused, 1));
        assert!(error.message.contains(says) && error.message.contains("Identity not found"), "{error}");
    }
}

#[tokio::test]
async fn an_identity_that_was_asked_for_by_name_may_come_later() {
    let gone = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let address = format!("http://{gone}");
    let source = credentials([("AZURE_POD_IDENTITY_AUTHORITY_HOST", &address)]).managed_identity(Identity::user(ID));
    let error = source.token(&kusto()).await.unwrap_err();
    assert!(error.kind == Kind::Transient && error.message.contains("machines of Azure only"), "{error}");
}

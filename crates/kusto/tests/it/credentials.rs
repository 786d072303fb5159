//! Tokens on their way to Kusto.

use std::io::Write;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use azure::{Credentials, Environment, Identity, Scope, Token, TokenSource};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kusto::{Client, Delivery, Kind, QueryOptions, RetryPolicy, StreamOptions, TrustedHost};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::fake::{Fake, Reply};

const ONE_ROW: &str = r#"[{"FrameType":"DataTable","TableId":0,"TableKind":"PrimaryResult","TableName":"PrimaryResult","Columns":[{"ColumnName":"x","ColumnType":"string"}],"Rows":[["y"]]},{"FrameType":"DataSetCompletion","HasErrors":false,"Cancelled":false}]"#;
const GOVERNMENT: &str = r#"{"AzureAD":{"LoginEndpoint":"https://login.microsoftonline.us","LoginMfaRequired":false,"KustoClientAppId":"db662dc1-0cfe-4e1c-a843-19a68e65be58","KustoClientRedirectUri":"https://microsoft/kustoclient","KustoServiceResourceId":"https://kusto.kusto.usgovcloudapi.net","FirstPartyAuthorityUrl":"https://login.microsoftonline.us/x"}}"#;

/// Numbered tokens: renewing gives the next one, up to the last.
#[derive(Debug)]
struct Numbered {
    last: usize,
    current: AtomicUsize,
    asked_for: Mutex<Vec<Scope>>,
}

impl Numbered {
    fn up_to(last: usize) -> Arc<Numbered> {
        Arc::new(Numbered { last, current: AtomicUsize::new(1), asked_for: Mutex::default() })
    }
}

fn numbered(number: usize) -> Token {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"appid":"APP","tid":"TENANT"}"#);
    Token::new(format!("h{number}.{claims}.HIDDEN"), Timestamp::MAX).unwrap()
}

fn bearer(number: usize) -> String {
    numbered(number).header().to_str().unwrap().to_owned()
}

#[async_trait]
impl TokenSource for Numbered {
    async fn token(&self, scope: &Scope) -> Result<Arc<Token>, azure::Error> {
        self.asked_for.lock().unwrap().push(scope.clone());
        Ok(Arc::new(numbered(self.current.load(Ordering::Relaxed))))
    }

    async fn renew(&self, _scope: &Scope, refused: &Token) -> Result<Arc<Token>, azure::Error> {
        let current = self.current.load(Ordering::Relaxed);
        assert!(refused.is(&numbered(current)));
        let next = (current + 1).min(self.last);
        self.current.store(next, Ordering::Relaxed);
        Ok(Arc::new(numbered(next)))
    }
}

fn client(fake: &Fake, source: Arc<dyn TokenSource>) -> Client {
    let client = Client::builder(&fake.url).credentials(source).trusted_hosts(&here()).authorities(fake.authority.as_bytes());
    client.retry(RetryPolicy::none()).build().unwrap()
}

/// Services of these tests.
fn here() -> [TrustedHost; 1] {
    ["localhost".parse().unwrap()]
}

async fn query(client: &Client) -> Result<(), kusto::Error> {
    client.query("D", "print 1", &QueryOptions::default()).await.map(drop)
}

/// Path and `Authorization` of each request.
fn asked(fake: &Fake) -> Vec<(String, Option<String>)> {
    let asked = fake.asked.lock().unwrap();
    let authorization = |asked: &crate::fake::Asked| Some(asked.headers.get("authorization")?.to_str().unwrap().to_owned());
    asked.iter().map(|asked| (asked.uri.path().to_owned(), authorization(asked))).collect()
}

const METADATA: &str = "/v1/rest/auth/metadata";
const QUERY: &str = "/v2/rest/query";

#[tokio::test]
async fn each_request_has_the_current_token_for_the_audience_that_the_service_names() {
    let fake = Fake::tls([Reply::Json(GOVERNMENT), Reply::Json(ONE_ROW), Reply::Json(ONE_ROW)]).await;
    let source = Numbered::up_to(2);
    let client = client(&fake, source.clone());
    query(&client).await.unwrap();
    source.current.store(2, Ordering::Relaxed);
    query(&client).await.unwrap();
    let expected = [(METADATA, None), (QUERY, Some(bearer(1))), (QUERY, Some(bearer(2)))];
    assert_eq!(asked(&fake), expected.map(|(path, token)| (path.to_owned(), token)));
    let scope = Scope::new("https://kusto.kusto.usgovcloudapi.net").with_authority("https://login.microsoftonline.us").unwrap();
    assert_eq!(*source.asked_for.lock().unwrap(), [scope.clone(), scope]);
}

#[tokio::test]
async fn a_service_that_does_not_describe_itself_is_taken_for_one_of_the_public_cloud() {
    for reply in [Reply::Status(404, &[], ""), Reply::Status(500, &[], ""), Reply::Json(""), Reply::Json("{}"), Reply::Json("<html>")] {
        let fake = Fake::tls([reply, Reply::Json(ONE_ROW)]).await;
        let source = Numbered::up_to(1);
        query(&client(&fake, source.clone())).await.unwrap();
        assert_eq!(*source.asked_for.lock().unwrap(), [Scope::new("https://kusto.kusto.windows.net")]);
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_request_repeated() {
    let refused = || Reply::Status(401, &[], "");
    let fake = Fake::tls([Reply::Json(GOVERNMENT), refused(), Reply::Json(ONE_ROW), refused(), refused()]).await;
    let client = client(&fake, Numbered::up_to(9));
    query(&client).await.unwrap();
    let error = query(&client).await.unwrap_err();
    assert_eq!((error.kind, error.status, error.delivery), (Kind::Permanent, Some(401), Delivery::NotExecuted));
    assert!(error.message.contains("aadapp=APP;TENANT is not taken") && !error.message.contains("HIDDEN"), "{error}");
    let tokens: Vec<_> = asked(&fake).into_iter().skip(1).map(|(_, token)| token.unwrap()).collect();
    assert_eq!(tokens, [bearer(1), bearer(2), bearer(2), bearer(3)]);
}

#[tokio::test]
async fn without_a_newer_token_a_refusal_is_final() {
    let fake = Fake::tls([Reply::Json(GOVERNMENT), Reply::Status(401, &[], "")]).await;
    let error = query(&client(&fake, Numbered::up_to(1))).await.unwrap_err();
    assert_eq!((error.status, fake.asked()), (Some(401), 2));
}

#[tokio::test]
async fn a_streamed_body_is_repeated_whole_after_a_refusal() {
    let fake = Fake::tls([Reply::Json(GOVERNMENT), Reply::Status(401, &[], ""), Reply::Json("{}")]).await;
    let options = StreamOptions { gzip: false, ..StreamOptions::default() };
    client(&fake, Numbered::up_to(2)).ingest_streaming("D", "T", "1,2\n".into(), options).await.unwrap();
    let asked = fake.asked.lock().unwrap();
    assert_eq!([&asked[1].body[..], &asked[2].body[..]], [b"1,2\n", b"1,2\n"]);
}

/// Whoever writes a URL into a configuration does not get the tokens of a principal that may do much elsewhere.
#[tokio::test]
async fn a_host_that_nobody_trusts_gets_no_token_and_no_request() {
    let fake = Fake::tls([]).await;
    let source = Numbered::up_to(1);
    let client = || Client::builder(&fake.url).authorities(fake.authority.as_bytes());
    for trusted in [vec![], vec!["localhost.example".parse().unwrap(), ".localhost".parse().unwrap()]] {
        let error = client().credentials(source.clone()).trusted_hosts(&trusted).build().unwrap_err();
        assert_eq!((error.code.as_str(), error.kind), ("UNTRUSTED_HOST", Kind::Permanent));
        assert!(error.message.contains(&fake.url) && error.message.contains("--kusto-trusted-hosts localhost"), "{error}");
    }
    assert!(client().build().is_ok(), "without tokens there is nothing to lose");
    assert!(Client::builder("https://c.eastus.kusto.windows.net").credentials(source.clone()).build().is_ok());
    assert!(source.asked_for.lock().unwrap().is_empty() && fake.asked() == 0);
}

#[tokio::test]
async fn no_token_goes_over_http_nor_is_one_asked_for() {
    let fake = Fake::start([Reply::Json(ONE_ROW), Reply::Status(401, &[], "")]).await;
    let source = Numbered::up_to(2);
    let client = client_over_http(&fake, source.clone());
    query(&client).await.unwrap();
    let error = query(&client).await.unwrap_err();
    assert!(error.message.contains("not https"), "{error}");
    assert_eq!(asked(&fake), [(QUERY.to_owned(), None), (QUERY.to_owned(), None)]);
    assert!(source.asked_for.lock().unwrap().is_empty());
}

fn client_over_http(fake: &Fake, source: Arc<dyn TokenSource>) -> Client {
    Client::builder(&fake.url).credentials(source).retry(RetryPolicy::none()).build().unwrap()
}

#[tokio::test]
async fn who_lacks_a_role_is_told_which_and_how_to_give_it() {
    let forbidden = r#"{"error":{"code":"Forbidden","message":"Caller is not authorized to perform this action","@permanent":true}}"#;
    let refused = || Reply::Status(403, &[], forbidden);
    let fake = Fake::tls([Reply::Json(GOVERNMENT), refused(), refused(), refused(), refused()]).await;
    let client = client(&fake, Numbered::up_to(1));
    let errors = [
        query(&client).await.unwrap_err(),
        client.mgmt("D'x", ".show tables").await.unwrap_err(),
        client.mgmt("D", ".create-merge table T (x: int)").await.unwrap_err(),
        client.ingest_streaming("D", "T", "1\n".into(), StreamOptions::default()).await.unwrap_err(),
    ];
    for (error, way_out) in errors.iter().zip([
        ".add database ['D'] viewers ('aadapp=APP;TENANT')",
        r".add database ['D\'x'] viewers ('aadapp=APP;TENANT')",
        ".add database ['D'] admins ('aadapp=APP;TENANT')",
        ".add database ['D'] ingestors ('aadapp=APP;TENANT')",
    ]) {
        assert_eq!((error.kind, error.status, error.code.as_str()), (Kind::Permanent, Some(403), "Forbidden"));
        assert!(error.message.contains(way_out) && error.message.contains("not authorized to perform"), "{error}");
    }
}

/// A source that gives no token.
#[derive(Debug)]
struct Broken(Option<azure::Error>);

#[async_trait]
impl TokenSource for Broken {
    async fn token(&self, _: &Scope) -> Result<Arc<Token>, azure::Error> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => std::future::pending().await,
        }
    }

    async fn renew(&self, scope: &Scope, _: &Token) -> Result<Arc<Token>, azure::Error> {
        self.token(scope).await
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_request_can_be_repeated_later() {
    for kind in [azure::Kind::Unavailable, azure::Kind::Transient, azure::Kind::Refused] {
        let fake = Fake::tls([Reply::Json(GOVERNMENT)]).await;
        let source = Broken(Some(azure::Error { kind, message: "run `az login`".to_owned() }));
        let error = query(&client(&fake, Arc::new(source))).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.kind, error.delivery), ("CREDENTIALS", Kind::Transient, Delivery::NotExecuted));
        assert!(error.message.contains("querying database D") && error.message.contains("run `az login`"), "{error}");
        assert_eq!(asked(&fake), [(METADATA.to_owned(), None)]);
    }
}

#[tokio::test]
async fn a_token_that_does_not_come_costs_no_more_than_the_deadline() {
    let fake = Fake::tls([Reply::Json(GOVERNMENT)]).await;
    let options = QueryOptions { timeout: Duration::from_millis(50), ..QueryOptions::default() };
    let error = client(&fake, Arc::new(Broken(None))).query("D", "x", &options).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.delivery), ("CREDENTIALS", Delivery::NotExecuted));
}

#[tokio::test]
async fn a_service_of_an_unknown_authority_gets_nothing() {
    let (fake, other) = (Fake::tls([]).await, Fake::tls([]).await);
    let client = || Client::builder(&fake.url).credentials(Numbered::up_to(1)).trusted_hosts(&here());
    for client in [client(), client().authorities(other.authority.as_bytes())] {
        let error = query(&client.retry(RetryPolicy::none()).build().unwrap()).await.unwrap_err();
        assert_eq!(error.code, "CONNECT");
    }
    assert_eq!(fake.asked(), 0);
    assert!(Client::builder(&fake.url).authorities(b"-----BEGIN CERTIFICATE-----\n???").build().is_err());
}

#[tokio::test]
async fn a_fixed_token_that_is_refused_is_not_sent_again() {
    let fake = Fake::tls([Reply::Json(GOVERNMENT), Reply::Json(ONE_ROW), Reply::Status(401, &[], "")]).await;
    let client = client(&fake, azure::fixed_token(" HIDDEN\n").unwrap());
    query(&client).await.unwrap();
    let error = query(&client).await.unwrap_err();
    assert!(error.message.contains("has it ended") && !error.message.contains("HIDDEN"), "{error}");
    let hidden = || Some("Bearer HIDDEN".to_owned());
    let expected = [(METADATA, None), (QUERY, hidden()), (QUERY, hidden())];
    assert_eq!(asked(&fake), expected.map(|(path, token)| (path.to_owned(), token)));
}

/// The whole way, from a metadata service to a Kusto over TLS, with a clock that is moved by hand.
#[tokio::test]
async fn a_managed_identity_opens_kusto_and_one_request_for_a_token_serves_everybody() {
    let ok = || Reply::Json(ONE_ROW);
    let refused = || Reply::Status(401, &[], "");
    let machine = Fake::start([
        Reply::Json(r#"{"access_token":"FIRST","expires_in":"3599","token_type":"Bearer"}"#),
        Reply::Json(r#"{"access_token":"SECOND","expires_in":"3599","token_type":"Bearer"}"#),
    ])
    .await;
    let replies = [Reply::Json(GOVERNMENT)].into_iter().chain((0..20).map(|_| ok())).chain([refused(), ok(), ok()]);
    let fake = Fake::tls(replies).await;
    let seconds = Arc::new(AtomicI64::new(1_800_000_000));
    let clock = seconds.clone();
    let source = Credentials::new()
        .environment(Environment::of([("AZURE_POD_IDENTITY_AUTHORITY_HOST", &machine.url)]))
        .now(Arc::new(move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap()))
        .managed_identity(Identity::user("ID"));
    let client = client(&fake, source);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { query(&client).await }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(machine.asked(), 1);
    // A minute later the token is revoked.
    seconds.fetch_add(60, Ordering::Relaxed);
    query(&client).await.unwrap();
    query(&client).await.unwrap();
    assert_eq!(machine.asked(), 2);
    let tokens: Vec<_> = asked(&fake).into_iter().filter_map(|(_, token)| token).collect();
    assert_eq!(tokens[..20], vec!["Bearer FIRST".to_owned(); 20]);
    assert_eq!(tokens[20..], ["Bearer FIRST", "Bearer SECOND", "Bearer SECOND"]);
    let resource = machine.asked.lock().unwrap()[0].uri.query().unwrap().to_owned();
    assert!(resource.contains("resource=https%3A%2F%2Fkusto.kusto.usgovcloudapi.net&client_id=ID"), "{resource}");
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

/// Everything that any crate logs at its finest level, over HTTP/2 too, where headers are frames. The runtime has one
/// thread, so the subscriber of this thread sees all of it.
#[tokio::test]
async fn no_token_is_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(tracing_subscriber::fmt::layer().with_writer(log.clone()).with_ansi(false));
    let _guard = subscriber.set_default();
    let fake = Fake::tls([
        Reply::Json(GOVERNMENT),
        Reply::Status(401, &[], ""),
        Reply::Json(ONE_ROW),
        Reply::Json(GOVERNMENT),
        Reply::Json(ONE_ROW),
    ])
    .await;
    let ours = client(&fake, Numbered::up_to(2));
    query(&ours).await.unwrap();
    let fixed = Client::builder(&fake.url)
        .authorities(fake.authority.as_bytes())
        .trusted_hosts(&here())
        .credentials(azure::fixed_token("HIDDEN").unwrap())
        .build()
        .unwrap();
    query(&fixed).await.unwrap();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("refused a token") && logged.contains("h2"), "{logged}");
    // The server of this test is in the same process; what it received is not the client's to hide, and it hides it too.
    for text in [logged, format!("{ours:?} {fixed:?}")] {
        assert!(!text.contains("HIDDEN"), "{text}");
    }
}

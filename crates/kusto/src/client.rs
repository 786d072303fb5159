//! The client: builds requests, keeps the deadline, repeats what may be repeated.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure::TokenSource;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::answer::{self, Dataset, Table};
use crate::audience::Audience;
use crate::credentials::{Credentials, Proof};
use crate::endpoint::Endpoint;
use crate::error::{Delivery, Error};
use crate::refusal::{Access, explain};
use crate::retry::{RetryPolicy, random_unit};
use crate::rows::RowStream;
use crate::text;
use crate::trusted::{TrustedHost, is_trusted};

/// The protocol version this client was written against.
const PROTOCOL_VERSION: &str = "2024-12-12";
/// What this side waits longer than the service, so that the service's own answer to a timeout
/// arrives.
const DEADLINE_GRACE: Duration = Duration::from_secs(5);

/// What of the body of a refusal is read.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// How long a query may take and what it binds.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// Deadline of the whole call, retries included; sent as `servertimeout`.
    pub timeout: Duration,
    /// Values of `declare query_parameters`, as KQL literals.
    pub parameters: Vec<(String, String)>,
    /// Further request options, such as `truncationmaxrecords`.
    pub options: Vec<(String, Value)>,
}

impl Default for QueryOptions {
    fn default() -> Self {
        QueryOptions { timeout: Duration::from_secs(240), parameters: Vec::new(), options: Vec::new() }
    }
}

/// The format of a streamed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values, RFC 4180 quoting, no header line.
    Csv,
    /// One JSON object a line.
    MultiJson,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Csv => "Csv",
            Format::MultiJson => "MultiJSON",
        }
    }
}

/// The name of a batch of rows. kustd remembers it: the same batch sent again changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId(pub [u8; 16]);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How a body is streamed.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The format of the body.
    pub format: Format,
    /// Name of an ingestion mapping of the table.
    pub mapping: Option<String>,
    /// Whether to compress the body on the wire.
    pub gzip: bool,
    /// Sent as `x-adxmon-batch-id`.
    pub batch_id: Option<BatchId>,
    /// Deadline of the whole call, retries included.
    pub timeout: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions { format: Format::Csv, mapping: None, gzip: true, batch_id: None, timeout: Duration::from_secs(600) }
    }
}

/// Settings of a client that few need.
#[derive(Clone)]
pub struct ClientBuilder {
    endpoint: String,
    tokens: Option<Arc<dyn TokenSource>>,
    trusted: Vec<TrustedHost>,
    authorities: Option<Vec<u8>>,
    retry: RetryPolicy,
    max_answer_bytes: usize,
    application: String,
}

impl ClientBuilder {
    /// Where tokens come from, for every request the current one. An http endpoint gets none; one that is https must be a
    /// Kusto of Azure or a trusted host.
    pub fn credentials(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.tokens = Some(source);
        self
    }

    /// Hosts that get tokens beside those of Azure.
    pub fn trusted_hosts(mut self, hosts: &[TrustedHost]) -> Self {
        self.trusted = hosts.to_owned();
        self
    }

    /// Certificates of authorities, in PEM, that the service's certificate must come from, in place of the system's.
    pub fn authorities(mut self, pem: &[u8]) -> Self {
        self.authorities = Some(pem.to_owned());
        self
    }

    /// How often and how patiently calls are repeated.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Longest answer that is taken, in bytes after decompression; default 256 MiB.
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// The name that the service's logs show, default `adx-mon`.
    pub fn application(mut self, name: &str) -> Self {
        self.application = name.to_owned();
        self
    }

    /// Checks the settings and makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// A permanent error for an unusable endpoint, one that is not trusted with tokens, or unusable certificates.
    pub fn build(self) -> Result<Client, Error> {
        let endpoint = Endpoint::parse(&self.endpoint)?;
        let credentials = match self.tokens {
            Some(source) if endpoint.is_https() => {
                trust(&endpoint, &self.trusted)?;
                Credentials::Azure { source, audience: Audience::default() }
            }
            _ => Credentials::None,
        };
        // Another default provider may be installed already; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            // A redirect could carry a body and its token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true);
        if endpoint.is_loopback() {
            http = http.no_proxy();
        }
        if let Some(pem) = &self.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(pem);
            http = http.tls_certs_only(authorities.map_err(|e| Error::from_transport("reading certificates of authorities", &e))?);
        }
        let http = http.build().map_err(|e| Error::from_transport("making a client", &e))?;
        Ok(Client {
            inner: Arc::new(Inner {
                http,
                endpoint,
                credentials,
                retry: self.retry,
                max_answer_bytes: self.max_answer_bytes,
                application: self.application,
            }),
        })
    }
}

fn trust(endpoint: &Endpoint, named: &[TrustedHost]) -> Result<(), Error> {
    let host = endpoint.host().unwrap_or_default();
    if is_trusted(host, named) {
        return Ok(());
    }
    let message = format!(
        "{endpoint} gets no Azure token: {host} is no address of Kusto in Azure; if it is yours and may see tokens of this \
         principal, name it with --kusto-trusted-hosts {host}"
    );
    Err(Error::invalid("UNTRUSTED_HOST", message))
}

/// A client of one service. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    endpoint: Endpoint,
    credentials: Credentials,
    retry: RetryPolicy,
    max_answer_bytes: usize,
    application: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner.endpoint)
    }
}

impl Client {
    /// A client without credentials and with the default settings.
    ///
    /// # Errors
    /// A permanent error for an unusable endpoint.
    pub fn new(endpoint: &str) -> Result<Client, Error> {
        Client::builder(endpoint).build()
    }

    /// Starts from the default settings.
    pub fn builder(endpoint: &str) -> ClientBuilder {
        ClientBuilder {
            endpoint: endpoint.to_owned(),
            tokens: None,
            trusted: Vec::new(),
            authorities: None,
            retry: RetryPolicy::default(),
            max_answer_bytes: 256 << 20,
            application: "adx-mon".to_owned(),
        }
    }

    /// The service's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Runs a query and returns all its results.
    ///
    /// # Errors
    /// See [`Error`]; a failure after the first rows is an error too.
    pub async fn query(&self, database: &str, csl: &str, options: &QueryOptions) -> Result<Dataset, Error> {
        let doing = format!("querying database {database}");
        let url = self.inner.endpoint.route(&["v2", "rest", "query"]);
        let whole = |response| self.read(&doing, response);
        let call = Call::new(&doing, database, Access::Read, Repeat::Always, options.timeout);
        let body = self.statement(call, url, csl, options, whole).await?;
        answer::parse_v2(&doing, &body)
    }

    /// Runs a query and hands out the rows of its first result as they arrive, so that the answer may
    /// be longer than memory. The client's limit on the length of answers does not count here; the
    /// service's own does, unless `options` set `notruncation`.
    ///
    /// Repeated like other queries until the first result begins; after that a failure is the
    /// caller's, who knows what became of the rows. The deadline counts until the last row.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query_rows(&self, database: &str, csl: &str, options: &QueryOptions) -> Result<RowStream, Error> {
        let doing = format!("querying database {database}");
        let url = self.inner.endpoint.route(&["v2", "rest", "query"]);
        let deadline = Instant::now() + options.timeout + DEADLINE_GRACE;
        let open = |response| RowStream::open(doing.clone(), response, deadline, options.timeout);
        let call = Call::new(&doing, database, Access::Read, Repeat::Always, options.timeout);
        self.statement(call, url, csl, options, open).await
    }

    /// Runs a management command within 10 minutes and returns its table.
    ///
    /// Commands that do the same when repeated (`.show`, `.create-merge`, `.create-or-alter` …)
    /// are repeated after any transient failure, others only when they were not carried out.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn mgmt(&self, database: &str, csl: &str) -> Result<Table, Error> {
        let options = QueryOptions { timeout: Duration::from_secs(600), ..QueryOptions::default() };
        self.mgmt_with(database, csl, &options).await
    }

    /// [`Client::mgmt`] with a deadline and options of one's own.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn mgmt_with(&self, database: &str, csl: &str, options: &QueryOptions) -> Result<Table, Error> {
        let doing = format!("running {:?} in database {database}", head(csl));
        let url = self.inner.endpoint.route(&["v1", "rest", "mgmt"]);
        let repeat = if is_idempotent(csl) { Repeat::Always } else { Repeat::IfNotExecuted };
        let whole = |response| self.read(&doing, response);
        let call = Call::new(&doing, database, Access::of_command(csl), repeat, options.timeout);
        let body = self.statement(call, url, csl, options, whole).await?;
        answer::parse_v1(&doing, &body)
    }

    /// Sends rows into a table and returns when they can be queried.
    ///
    /// Azure's streaming ingestion is at-least-once: after an error with [`Delivery::Unknown`]
    /// the rows may be there. kustd remembers `batch_id`, so a repeat with the same one is safe.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ingest_streaming(&self, database: &str, table: &str, body: Bytes, options: StreamOptions) -> Result<(), Error> {
        let doing = format!("streaming into {database}.{table}");
        let mut url = self.inner.endpoint.route(&["v1", "rest", "ingest", database, table]);
        url.query_pairs_mut().append_pair("streamFormat", options.format.name());
        if let Some(mapping) = &options.mapping {
            url.query_pairs_mut().append_pair("mappingName", mapping);
        }
        let body = if options.gzip { gzip(&doing, &body)? } else { body };
        let request = |client: &reqwest::Client, _remaining: Duration| {
            let mut request = client.post(url.clone()).header(CONTENT_TYPE, "text/plain; charset=utf-8").body(body.clone());
            if options.gzip {
                request = request.header(CONTENT_ENCODING, "gzip");
            }
            if let Some(id) = options.batch_id {
                request = request.header("x-adxmon-batch-id", id.to_string());
            }
            request
        };
        let whole = |response| self.read(&doing, response);
        let call = Call { source: "stream", ..Call::new(&doing, database, Access::Ingest, Repeat::IfNotExecuted, options.timeout) };
        let body = self.call(call, request, whole).await?;
        answer::parse_ingested(&doing, &body)
    }

    async fn statement<T, A: Future<Output = Result<T, Error>>>(
        &self,
        call: Call<'_>,
        url: Url,
        csl: &str,
        options: &QueryOptions,
        answer: impl Fn(Response) -> A,
    ) -> Result<T, Error> {
        let request = |client: &reqwest::Client, remaining: Duration| {
            let body = statement_body(call.database, csl, options, remaining);
            client.post(url.clone()).header(CONTENT_TYPE, "application/json; charset=utf-8").body(body.to_string())
        };
        self.call(call, request, answer).await
    }

    /// Sends a request until it and reading its answer succeed, it must not be repeated, or the
    /// deadline has come.
    async fn call<T, A: Future<Output = Result<T, Error>>>(
        &self,
        call: Call<'_>,
        request: impl Fn(&reqwest::Client, Duration) -> RequestBuilder,
        answer: impl Fn(Response) -> A,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + call.timeout;
        let mut tried = 0;
        loop {
            tried += 1;
            let remaining = deadline.saturating_duration_since(Instant::now());
            let attempt = async { answer(self.send(call, deadline, &request).await?).await };
            let error = match tokio::time::timeout(remaining + DEADLINE_GRACE, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => {
                    let message = format!("{}: no answer within {:?}", call.doing, call.timeout);
                    return Err(Error::transient("DEADLINE", Delivery::Unknown, message));
                }
            };
            let allowed = call.repeat == Repeat::Always || error.delivery == Delivery::NotExecuted;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inner.retry.pause(tried, &error, left, random_unit()) {
                Some(pause) if allowed => {
                    tracing::debug!(%error, tried, ?pause, "a call to Kusto is repeated");
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    /// Sends a request, and once more with a new token if the service refuses the one that it has; an answer has status 200.
    async fn send(
        &self,
        call: Call<'_>,
        deadline: Instant,
        request: &impl Fn(&reqwest::Client, Duration) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let Inner { http, endpoint, credentials, .. } = &*self.inner;
        let build = || request(http, deadline.saturating_duration_since(Instant::now()));
        let mut proof = credentials.proof(call.doing, http, endpoint, deadline).await?;
        let mut response = self.send_once(call, build(), &proof).await?;
        if response.status() == 401
            && let Some(renewed) = credentials.renewed(call.doing, http, endpoint, deadline, &proof).await?
        {
            tracing::debug!(%endpoint, "the service refused a token; the request is repeated with a new one");
            proof = renewed;
            response = self.send_once(call, build(), &proof).await?;
        }
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        let body = read(call.doing, response, MAX_ERROR_BYTES).await;
        let error = Error::from_answer(call.doing, status, retry_after, &body.unwrap_or_default());
        Err(explain(error, &proof, call.access, call.database))
    }

    async fn send_once(&self, call: Call<'_>, request: RequestBuilder, proof: &Proof) -> Result<Response, Error> {
        let mut request = request
            .header("Accept", "application/json")
            .header("x-ms-version", PROTOCOL_VERSION)
            .header("x-ms-app", &self.inner.application)
            .header("x-ms-client-version", concat!("ADXMon.Rust:", env!("CARGO_PKG_VERSION")))
            .header("x-ms-client-request-id", request_id(call.source));
        if let Some(header) = proof.header() {
            request = request.header(AUTHORIZATION, header);
        }
        request.send().await.map_err(|error| Error::from_transport(call.doing, &error))
    }

    async fn read(&self, doing: &str, response: Response) -> Result<Bytes, Error> {
        read(doing, response, self.inner.max_answer_bytes).await
    }
}

/// The body of an answer, if it is no longer than `limit`.
pub(crate) async fn read(doing: &str, mut response: Response, limit: usize) -> Result<Bytes, Error> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let Some(chunk) = chunk.map_err(|e| Error::from_transport(doing, &e))? else {
            return Ok(body.into());
        };
        if body.len() + chunk.len() > limit {
            return Err(Error {
                kind: crate::Kind::Permanent,
                ..Error::transient(
                    "ANSWER_TOO_LARGE",
                    Delivery::Unknown,
                    format!("{doing}: the answer is larger than {limit} bytes; ask for less"),
                )
            });
        }
        body.extend_from_slice(&chunk);
    }
}

/// What all tries of a call have in common.
#[derive(Clone, Copy)]
struct Call<'a> {
    /// What is being done, for messages.
    doing: &'a str,
    database: &'a str,
    access: Access,
    repeat: Repeat,
    /// Part of the id under which the service logs the request.
    source: &'a str,
    timeout: Duration,
}

impl<'a> Call<'a> {
    fn new(doing: &'a str, database: &'a str, access: Access, repeat: Repeat, timeout: Duration) -> Call<'a> {
        Call { doing, database, access, repeat, source: "execute", timeout }
    }
}

/// What a call may be repeated after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Any transient failure: doing it twice is the same as doing it once.
    Always,
    /// Only failures that are known to have changed nothing.
    IfNotExecuted,
}

/// The JSON body of a query or command.
fn statement_body(database: &str, csl: &str, options: &QueryOptions, remaining: Duration) -> Value {
    let mut request_options = Map::new();
    for (name, value) in &options.options {
        request_options.insert(name.clone(), value.clone());
    }
    // Whole milliseconds: the service refuses zero.
    let remaining = Duration::from_millis((remaining.as_millis() as u64).max(1));
    request_options.insert("servertimeout".to_owned(), json!(text::timespan(remaining)));
    let parameters: Map<String, Value> = options.parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "db": database,
        "csl": csl,
        "properties": { "Options": request_options, "Parameters": parameters },
    })
}

/// Commands whose repetition changes nothing.
fn is_idempotent(csl: &str) -> bool {
    const VERBS: [&str; 7] = [".show", ".get", ".create-merge", ".create-or-alter", ".create-or-alter-merge", ".alter-merge", ".alter"];
    csl.split_whitespace().next().is_some_and(|verb| VERBS.contains(&verb))
}

/// The beginning of a command, for messages.
fn head(csl: &str) -> String {
    let line = csl.trim_start().lines().next().unwrap_or_default();
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

fn request_id(source: &str) -> String {
    format!("ADXMon.{source};{}", uuid::Uuid::new_v4())
}

/// `Retry-After` in seconds; dates are answered with nothing, since clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    // An hour is as good as for ever, and keeps sums of durations far from overflow.
    Some(Duration::from_secs(seconds.min(3600)))
}

fn gzip(doing: &str, body: &[u8]) -> Result<Bytes, Error> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .map(Bytes::from)
        .map_err(|e| Error::invalid("GZIP", format!("{doing}: compressing the body: {e}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_pause_is_read_in_seconds_and_dates_are_not() {
        let pause = |text: &'static str| retry_after(&[(RETRY_AFTER, HeaderValue::from_static(text))].into_iter().collect());
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("99999999999999"), Some(Duration::from_secs(3600)));
        for text in ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "", "1.5"] {
            assert_eq!(pause(text), None, "{text}");
        }
    }

    #[test]
    fn only_commands_that_change_nothing_twice_are_harmless() {
        for csl in [".show tables", "  .create-merge table T ()", ".create-or-alter function f() { 1 }", ".get kusto identity token"] {
            assert!(is_idempotent(csl), "{csl}");
        }
        for csl in [".ingest inline into table T <| 1", ".set-or-append T <| U", ".drop table T", ".create table T ()", "", ".showdown"] {
            assert!(!is_idempotent(csl), "{csl}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_of_pauses_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let pause = retry_after(&[(RETRY_AFTER, value)].into_iter().collect());
                prop_assert!(pause.is_none_or(|pause| pause <= Duration::from_secs(3600)));
            }
        }

        #[test]
        fn the_head_of_a_command_is_short_and_one_line(csl in "\\PC{0,200}|(\n|a|ß){0,200}") {
            let head = head(&csl);
            prop_assert!(head.chars().count() <= 61 && !head.contains('\n'));
        }
    }
}

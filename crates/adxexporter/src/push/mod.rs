//! Points to an OTLP receiver: in batches of bounded size, over HTTP or gRPC, repeated as the OTLP
//! specification says.
//!
//! A point carries the time of its row, so a batch that is sent twice says the same thing twice; that
//! is why a lost answer may be repeated too.

mod batch;
mod grpc;
mod http;
mod retry;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use tokio::time::Instant;

pub use batch::{Batch, Batcher, Bounds};
pub use retry::RetryPolicy;

/// How batches travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`: a POST to the endpoint, whose path is used as it is.
    #[default]
    Http,
    /// `grpc`: a call of the metrics service; the endpoint's path does not count.
    Grpc,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Protocol, String> {
        match text {
            "http/protobuf" => Ok(Protocol::Http),
            "grpc" => Ok(Protocol::Grpc),
            _ => Err("use http/protobuf or grpc".to_owned()),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Http => "http/protobuf",
            Protocol::Grpc => "grpc",
        })
    }
}

/// Where to and how points are pushed.
#[derive(Clone, Debug)]
pub struct PushConfig {
    /// The receiver's URL.
    pub endpoint: String,
    /// How batches travel.
    pub protocol: Protocol,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Attributes of the resource of every batch.
    pub resource: BTreeMap<String, String>,
    /// Bounds of a batch.
    pub bounds: Bounds,
    /// Time for one try.
    pub timeout: Duration,
    /// How patiently a batch is sent again.
    pub retry: RetryPolicy,
}

impl PushConfig {
    /// The defaults for a receiver: HTTP, gzip, ten seconds for a try.
    pub fn new(endpoint: &str) -> PushConfig {
        PushConfig {
            endpoint: endpoint.to_owned(),
            protocol: Protocol::Http,
            gzip: true,
            resource: BTreeMap::new(),
            bounds: Bounds::default(),
            timeout: Duration::from_secs(10),
            retry: RetryPolicy::default(),
        }
    }
}

/// A batch or a client that could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The endpoint cannot be used.
    #[error("OTLP endpoint {endpoint:?}: {why}; give a full URL such as http://collector:4318/v1/metrics")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// The receiver refused for good.
    #[error("pushing {points} points to {endpoint}: {why}")]
    Refused {
        /// The receiver.
        endpoint: String,
        /// Points of the batch.
        points: u64,
        /// The receiver's reason.
        why: String,
    },
    /// It did not work for as long as tries are made.
    #[error("pushing {points} points to {endpoint}: given up after {tries} tries: {why}")]
    GivenUp {
        /// The receiver.
        endpoint: String,
        /// Points of the batch.
        points: u64,
        /// Tries that were made.
        tries: u32,
        /// What the last one met.
        why: String,
    },
}

/// What became of a batch that the receiver took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Points that it took.
    pub accepted: u64,
    /// Points that it said it would not store (`partial_success`).
    pub rejected: u64,
    /// What it had to say, with or without rejected points.
    pub message: Option<String>,
}

/// A try that failed.
struct Failure {
    why: String,
    again: Again,
}

/// Whether a try is worth repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Never,
    /// After a pause that is no shorter than what the receiver asked for.
    After(Option<Duration>),
}

enum Transport {
    Http(http::Http),
    Grpc(grpc::Grpc),
}

/// A client of one OTLP receiver.
pub struct Pusher {
    config: PushConfig,
    transport: Transport,
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pusher({} {})", self.config.protocol, self.endpoint())
    }
}

impl Pusher {
    /// Checks the endpoint; nothing is sent yet.
    ///
    /// # Errors
    /// [`PushError::Endpoint`].
    pub fn new(config: PushConfig) -> Result<Pusher, PushError> {
        // Another default provider may be installed already; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = match config.protocol {
            Protocol::Http => http::Http::new(&config).map(Transport::Http),
            Protocol::Grpc => grpc::Grpc::new(&config).map(Transport::Grpc),
        };
        let transport = transport.map_err(|why| PushError::Endpoint { endpoint: redacted(&config.endpoint), why })?;
        Ok(Pusher { config, transport })
    }

    /// The receiver's URL, without a password.
    pub fn endpoint(&self) -> String {
        redacted(&self.config.endpoint)
    }

    /// An empty batch builder for this receiver.
    pub fn batcher(&self) -> Batcher {
        Batcher::new(&self.config.resource, self.config.bounds)
    }

    /// Sends a batch until the receiver takes or refuses it, or the time for retries is over.
    ///
    /// # Errors
    /// [`PushError::Refused`] and [`PushError::GivenUp`].
    pub async fn push(&self, batch: Batch) -> Result<Pushed, PushError> {
        let points = batch.points();
        let body = self.body(&batch);
        let start = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = tokio::time::timeout(self.config.timeout, self.send(&body));
            let failure = match sent.await {
                Ok(Ok(answer)) => return Ok(pushed(points, answer)),
                Ok(Err(failure)) => failure,
                Err(_) => Failure { why: format!("no answer within {:?}", self.config.timeout), again: Again::After(None) },
            };
            let endpoint = self.endpoint();
            let Again::After(asked) = failure.again else {
                return Err(PushError::Refused { endpoint, points, why: failure.why });
            };
            let Some(pause) = self.config.retry.pause(tries, asked, start.elapsed(), retry::random_unit()) else {
                return Err(PushError::GivenUp { endpoint, points, tries, why: failure.why });
            };
            tracing::debug!(endpoint, why = failure.why, ?pause, "a batch of points is sent again");
            tokio::time::sleep(pause).await;
        }
    }

    fn body(&self, batch: &Batch) -> Body {
        match &self.transport {
            Transport::Http(http) => Body::Http(http.encode(batch)),
            Transport::Grpc(_) => Body::Grpc(batch.clone()),
        }
    }

    async fn send(&self, body: &Body) -> Result<ExportMetricsServiceResponse, Failure> {
        match (&self.transport, body) {
            (Transport::Http(http), Body::Http(bytes)) => http.send(bytes.clone()).await,
            (Transport::Grpc(grpc), Body::Grpc(batch)) => grpc.send(batch.request()).await,
            // `body` makes what the transport takes.
            _ => Err(Failure { why: "the batch is not encoded for this protocol".to_owned(), again: Again::Never }),
        }
    }
}

/// A batch as its transport wants it; made once for all tries.
enum Body {
    Http(bytes::Bytes),
    Grpc(Batch),
}

fn pushed(points: u64, answer: ExportMetricsServiceResponse) -> Pushed {
    let partial = answer.partial_success.unwrap_or_default();
    let rejected = u64::try_from(partial.rejected_data_points).unwrap_or_default().min(points);
    let message = Some(partial.error_message).filter(|text| !text.is_empty());
    Pushed { accepted: points - rejected, rejected, message }
}

fn redacted(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut url) if url.password().is_some() => {
            // Fails only for URLs that cannot have a password.
            let _ = url.set_password(Some("***"));
            url.to_string()
        }
        _ => url.to_owned(),
    }
}

//! Points of metrics to an OTLP receiver: in batches of bounded size, over HTTP or gRPC, repeated as the OTLP
//! specification says.
//!
//! A point carries the time of its row, so a batch that is sent twice says the same thing twice; that
//! is why a lost answer may be repeated too.

mod batch;
mod exporter;
mod grpc;
mod http;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use tokio::time::Instant;

pub use crate::attempt::Pushed;
use crate::attempt::{Again, Failure};
pub use crate::http::HttpOptions;
use crate::http::redacted;
use crate::retry;
pub use crate::retry::RetryPolicy;
use crate::tls::install_crypto;
pub use batch::{Batch, Batcher, Bounds};
pub use exporter::OtlpMetrics;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// The receiver's URL.
    pub endpoint: String,
    /// How batches travel.
    pub protocol: Protocol,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Attributes of the resource of every batch.
    pub resource: BTreeMap<String, String>,
    /// Headers, token and trusted certificates.
    pub http: HttpOptions,
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
            http: HttpOptions::default(),
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
        install_crypto();
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
        let body = self.encode(batch);
        let start = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.try_push(&body).await {
                Ok(pushed) => return Ok(pushed),
                Err(failure) => failure,
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

    /// Encodes a batch once for all its tries.
    pub(crate) fn encode(&self, batch: Batch) -> Encoded {
        let points = batch.points();
        let body = match &self.transport {
            Transport::Http(http) => Body::Http(http.encode(&batch)),
            Transport::Grpc(_) => Body::Grpc(batch),
        };
        Encoded { points, body }
    }

    /// One try.
    pub(crate) async fn try_push(&self, encoded: &Encoded) -> Result<Pushed, Failure> {
        match tokio::time::timeout(self.config.timeout, self.send(&encoded.body)).await {
            Ok(answer) => answer.map(|answer| pushed(encoded.points, answer)),
            Err(_) => Err(Failure::passing(format!("no answer within {:?}", self.config.timeout))),
        }
    }

    async fn send(&self, body: &Body) -> Result<ExportMetricsServiceResponse, Failure> {
        match (&self.transport, body) {
            (Transport::Http(http), Body::Http(bytes)) => http.send(bytes.clone()).await,
            (Transport::Grpc(grpc), Body::Grpc(batch)) => grpc.send(batch.request()).await,
            // `encode` makes what the transport takes.
            _ => Err(Failure { why: "the batch is not encoded for this protocol".to_owned(), again: Again::Never }),
        }
    }
}

/// A batch as its transport wants it.
#[derive(Debug)]
pub(crate) struct Encoded {
    points: u64,
    body: Body,
}

impl Encoded {
    pub(crate) fn points(&self) -> u64 {
        self.points
    }
}

#[derive(Debug)]
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

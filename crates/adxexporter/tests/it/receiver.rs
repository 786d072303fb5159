//! A scripted OTLP receiver for HTTP and gRPC on one port: answers in the order given, then takes
//! everything, and keeps what it got.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric};
use prost::Message as _;
use tonic::Status;

type Answer = ExportMetricsServiceResponse;

pub(crate) enum Reply {
    /// Of HTTP: status, `Retry-After`, body.
    Http(u16, Option<&'static str>, Vec<u8>),
    Grpc(Status),
    /// Taken, but for so many points.
    Partial(i64, &'static str),
    Hang,
}

/// What came over HTTP.
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) request: ExportMetricsServiceRequest,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) got: Arc<Mutex<Vec<Got>>>,
    pub(crate) tries: Arc<Mutex<usize>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    on_batch: Arc<Mutex<Option<OnBatch>>>,
    batches: tokio::sync::watch::Sender<usize>,
}

type OnBatch = Box<dyn FnMut(usize) + Send>;

impl Receiver {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Receiver {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver {
            url: format!("http://{}", listener.local_addr().unwrap()),
            got: Arc::default(),
            tries: Arc::default(),
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            on_batch: Arc::default(),
            batches: tokio::sync::watch::Sender::new(0),
        };
        let router = Router::new()
            .route("/v1/metrics", post(http))
            .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", post(grpc))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    pub(crate) fn http_url(&self) -> String {
        format!("{}/v1/metrics", self.url)
    }

    /// The largest of what `measure` says at each batch, given the points that came before it. Batches are
    /// not kept any more.
    pub(crate) fn on_batch(&self, measure: impl Fn(usize) -> usize + Send + 'static) -> Arc<Mutex<usize>> {
        let largest = Arc::new(Mutex::new(0));
        let (kept, mut before) = (largest.clone(), 0);
        *self.on_batch.lock().unwrap() = Some(Box::new(move |points| {
            let mut largest = kept.lock().unwrap();
            *largest = measure(before).max(*largest);
            before += points;
        }));
        largest
    }

    pub(crate) fn tries(&self) -> usize {
        *self.tries.lock().unwrap()
    }

    /// Every metric that was taken, in order.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let got = self.got.lock().unwrap();
        let scopes = got.iter().flat_map(|got| &got.request.resource_metrics).flat_map(|resource| &resource.scope_metrics);
        scopes.flat_map(|scope| scope.metrics.clone()).collect()
    }

    /// Waits until so many batches were taken.
    pub(crate) async fn until_batches(&self, count: usize) {
        let mut batches = self.batches.subscribe();
        let wait = batches.wait_for(|batches| *batches >= count);
        tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.unwrap().unwrap();
    }

    fn next(&self) -> Option<Reply> {
        *self.tries.lock().unwrap() += 1;
        self.replies.lock().unwrap().pop_front()
    }

    fn keep(&self, headers: HeaderMap, request: ExportMetricsServiceRequest) {
        match self.on_batch.lock().unwrap().as_mut() {
            Some(on_batch) => on_batch(request.resource_metrics[0].scope_metrics[0].metrics.len()),
            None => self.got.lock().unwrap().push(Got { headers, request }),
        }
        self.batches.send_modify(|batches| *batches += 1);
    }
}

/// Name, time in nanoseconds and value of a gauge with one point.
pub(crate) fn gauge(metric: &Metric) -> (String, u64, f64) {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!("{metric:?}") };
    let [point] = gauge.data_points.as_slice() else { panic!("{metric:?}") };
    let Some(Value::AsDouble(value)) = point.value else { panic!("{metric:?}") };
    (metric.name.clone(), point.time_unix_nano, value)
}

fn partial(rejected: i64, message: &str) -> Answer {
    let partial = ExportMetricsPartialSuccess { rejected_data_points: rejected, error_message: message.to_owned() };
    Answer { partial_success: Some(partial) }
}

async fn http(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let protobuf = [("content-type", "application/x-protobuf")];
    let answer = match receiver.next() {
        Some(Reply::Http(status, after, body)) if status >= 300 => {
            let mut response = (StatusCode::from_u16(status).unwrap(), protobuf, body).into_response();
            after.map(|after| response.headers_mut().insert("retry-after", after.parse().unwrap()));
            return response;
        }
        Some(Reply::Hang) => std::future::pending().await,
        Some(Reply::Partial(rejected, message)) => (protobuf, partial(rejected, message).encode_to_vec()).into_response(),
        Some(Reply::Http(status, _, body)) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Some(Reply::Grpc(_)) => panic!("a gRPC answer for HTTP"),
        None => (protobuf, Answer::default().encode_to_vec()).into_response(),
    };
    let mut plain = Vec::new();
    match headers.get("content-encoding").map(|v| v.to_str().unwrap()) {
        Some("gzip") => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap()),
        _ => plain = body.to_vec(),
    }
    receiver.keep(headers, ExportMetricsServiceRequest::decode(plain.as_slice()).unwrap());
    answer
}

async fn grpc(State(receiver): State<Receiver>, request: Request) -> Response {
    let headers = request.headers().clone();
    let service = Export { receiver, headers };
    let codec = tonic_prost::ProstCodec::<Answer, ExportMetricsServiceRequest>::default();
    let mut server = tonic::server::Grpc::new(codec).accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    server.unary(service, request).await.map(Body::new)
}

struct Export {
    receiver: Receiver,
    headers: HeaderMap,
}

impl tonic::server::UnaryService<ExportMetricsServiceRequest> for Export {
    type Response = Answer;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Answer>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<ExportMetricsServiceRequest>) -> Self::Future {
        let (receiver, headers) = (self.receiver.clone(), self.headers.clone());
        Box::pin(async move {
            let answer = match receiver.next() {
                Some(Reply::Grpc(status)) => return Err(status),
                Some(Reply::Hang) => std::future::pending().await,
                Some(Reply::Partial(rejected, message)) => partial(rejected, message),
                Some(Reply::Http(..)) => panic!("an HTTP answer for gRPC"),
                None => Answer::default(),
            };
            receiver.keep(headers, request.into_inner());
            Ok(tonic::Response::new(answer))
        })
    }
}

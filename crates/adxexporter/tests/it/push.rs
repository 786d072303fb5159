//! Pushing points to receivers that take, refuse, stumble and hang.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adxexporter::push::{Batch, Bounds, Protocol, PushConfig, PushError, Pusher, RetryPolicy};
use adxexporter::transform::Point;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::receiver::{Receiver, Reply, gauge};
use crate::vectors::cases;

fn config(url: &str, protocol: Protocol) -> PushConfig {
    let ms = Duration::from_millis;
    let retry = RetryPolicy { first_pause: ms(1), longest_pause: ms(2), total: Duration::from_secs(5) };
    PushConfig { protocol, retry, ..PushConfig::new(url) }
}

fn points(case: &Value) -> Vec<Point> {
    let labels = |metric: &Value| {
        let labels = metric["labels"].as_object().unwrap().iter();
        Arc::new(labels.map(|(k, v)| (k.as_str().into(), v.as_str().unwrap().to_owned())).collect::<BTreeMap<_, _>>())
    };
    let point = |metric: &Value| Point {
        name: metric["name"].as_str().unwrap().into(),
        labels: labels(metric),
        time_ms: metric["timestamp"].as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond().try_into().unwrap(),
        value: metric["value"].as_f64().unwrap(),
    };
    case["metrics"].as_array().into_iter().flatten().map(point).collect()
}

fn some_points(count: usize) -> Vec<Point> {
    (0..count).map(|n| Point { name: format!("m{n}").into(), labels: Arc::default(), time_ms: n as u64, value: n as f64 }).collect()
}

fn batches(pusher: &Pusher, points: &[Point]) -> Vec<Batch> {
    let mut batcher = pusher.batcher();
    let mut batches: Vec<Batch> = points.iter().filter_map(|point| point.add_to(&mut batcher)).collect();
    batches.extend(batcher.take());
    batches
}

/// The vectors' bodies, compared as messages: the order of fields on the wire is the encoder's.
#[tokio::test]
async fn bodies_are_those_of_the_vectors() {
    for case in cases("otlp_metrics_push.json") {
        for gzip in [false, true] {
            let receiver = Receiver::start([]).await;
            let resource = case["resource_attributes"].as_object().into_iter().flatten();
            let resource = resource.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
            let pusher = Pusher::new(PushConfig { gzip, resource, ..config(&receiver.http_url(), Protocol::Http) }).unwrap();
            for batch in batches(&pusher, &points(&case)) {
                pusher.push(batch).await.unwrap();
            }
            let wanted = case["expected"]["requests"].as_array().unwrap();
            let got = receiver.got.lock().unwrap();
            assert_eq!(got.len(), wanted.len(), "{}", case["name"]);
            for (got, wanted) in got.iter().zip(wanted) {
                let body = bytes(wanted["body_hex"].as_str().unwrap());
                assert_eq!(got.request, ExportMetricsServiceRequest::decode(body.as_slice()).unwrap(), "{}", case["name"]);
                assert_eq!(got.headers["content-type"], wanted["content_type"].as_str().unwrap());
                // The reference never compresses.
                assert_eq!(got.headers.contains_key("content-encoding"), gzip);
            }
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn large_results_go_in_batches_over_both_protocols() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let receiver = Receiver::start([]).await;
        let url = if protocol == Protocol::Http { receiver.http_url() } else { receiver.url.clone() };
        let bounds = Bounds { points: 10, bytes: 1 << 20 };
        let pusher = Pusher::new(PushConfig { bounds, ..config(&url, protocol) }).unwrap();
        let mut accepted = 0;
        for batch in batches(&pusher, &some_points(25)) {
            accepted += pusher.push(batch).await.unwrap().accepted;
        }
        assert_eq!((accepted, receiver.tries()), (25, 3), "{protocol}");
        let wanted: Vec<_> = (0..25).map(|n| (format!("m{n}"), n * 1_000_000, n as f64)).collect();
        assert_eq!(receiver.metrics().iter().map(gauge).collect::<Vec<_>>(), wanted, "{protocol}");
    }
}

async fn push_one(receiver: &Receiver, protocol: Protocol) -> Result<adxexporter::push::Pushed, PushError> {
    let url = if protocol == Protocol::Http { receiver.http_url() } else { receiver.url.clone() };
    let pusher = Pusher::new(config(&url, protocol)).unwrap();
    let batch = batches(&pusher, &some_points(3)).remove(0);
    pusher.push(batch).await
}

#[tokio::test]
async fn over_http_stumbles_are_repeated_and_refusals_shown() {
    let busy = [429, 502, 503, 504].map(|status| Reply::Http(status, Some("0"), Vec::new()));
    let receiver = Receiver::start(busy).await;
    assert_eq!(push_one(&receiver, Protocol::Http).await.unwrap().accepted, 3);
    assert_eq!((receiver.tries(), receiver.metrics().len()), (5, 3));

    let status = tonic_types::Status { code: 3, message: "metric name too long".into(), details: Vec::new() };
    for code in [400, 401, 404, 413, 500] {
        let receiver = Receiver::start([Reply::Http(code, None, status.encode_to_vec())]).await;
        let error = push_one(&receiver, Protocol::Http).await.unwrap_err();
        assert!(matches!(&error, PushError::Refused { why, .. } if why.contains("metric name too long")), "{error}");
        assert_eq!(receiver.tries(), 1, "{code}");
    }
}

/// The reference takes 200 only.
#[tokio::test]
async fn every_2xx_is_a_success_whatever_its_body() {
    for code in [200, 201, 202, 204] {
        let body = if code == 204 { Vec::new() } else { b"thanks".to_vec() };
        let receiver = Receiver::start([Reply::Http(code, None, body)]).await;
        assert_eq!(push_one(&receiver, Protocol::Http).await.unwrap().accepted, 3, "{code}");
        assert_eq!(receiver.tries(), 1);
    }
}

#[tokio::test]
async fn over_grpc_stumbles_are_repeated_and_refusals_shown() {
    let retry_info = ErrorDetails::with_retry_info(Some(Duration::ZERO));
    let receiver = Receiver::start([
        Reply::Grpc(Status::unavailable("restarting")),
        Reply::Grpc(Status::with_error_details(Code::ResourceExhausted, "slow down", retry_info)),
    ])
    .await;
    assert_eq!(push_one(&receiver, Protocol::Grpc).await.unwrap().accepted, 3);
    assert_eq!((receiver.tries(), receiver.metrics().len()), (3, 3));

    for status in [Status::invalid_argument("no such tenant"), Status::resource_exhausted("no such tenant")] {
        let receiver = Receiver::start([Reply::Grpc(status)]).await;
        let error = push_one(&receiver, Protocol::Grpc).await.unwrap_err();
        assert!(matches!(&error, PushError::Refused { why, .. } if why.contains("no such tenant")), "{error}");
        assert_eq!(receiver.tries(), 1);
    }
}

#[tokio::test]
async fn points_that_the_receiver_drops_are_counted_and_not_sent_again() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let receiver = Receiver::start([Reply::Partial(2, "too old")]).await;
        let pushed = push_one(&receiver, protocol).await.unwrap();
        assert_eq!((pushed.accepted, pushed.rejected, pushed.message.as_deref()), (1, 2, Some("too old")), "{protocol}");
        assert_eq!(receiver.tries(), 1);
    }
}

#[tokio::test]
async fn a_pause_that_does_not_fit_ends_the_tries() {
    let receiver = Receiver::start([Reply::Http(503, Some("3600"), Vec::new())]).await;
    let error = push_one(&receiver, Protocol::Http).await.unwrap_err();
    assert!(matches!(error, PushError::GivenUp { tries: 1, points: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_receiver_that_hangs_or_is_away_costs_a_try_and_not_for_ever() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let receiver = Receiver::start([Reply::Hang]).await;
        let url = if protocol == Protocol::Http { receiver.http_url() } else { receiver.url.clone() };
        let pusher = Pusher::new(PushConfig { timeout: Duration::from_millis(300), ..config(&url, protocol) }).unwrap();
        let batch = batches(&pusher, &some_points(1)).remove(0);
        pusher.push(batch).await.unwrap();
        assert_eq!(receiver.tries(), 2, "{protocol}");

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let retry = RetryPolicy { total: Duration::from_millis(5), ..config("", protocol).retry };
        let pusher = Pusher::new(PushConfig { retry, ..config(&url, protocol) }).unwrap();
        let batch = batches(&pusher, &some_points(1)).remove(0);
        let error = pusher.push(batch).await.unwrap_err();
        assert!(matches!(error, PushError::GivenUp { .. }), "{error}");
    }
}

#[tokio::test]
async fn endpoints_that_cannot_be_used_are_named_without_their_password() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        for url in ["", "collector:4318", "ftp://collector", "/v1/metrics"] {
            let error = Pusher::new(config(url, protocol)).unwrap_err();
            assert!(error.to_string().contains("give a full URL"), "{error}");
        }
    }
    let pusher = Pusher::new(config("http://me:secret@localhost:1/", Protocol::Http)).unwrap();
    assert!(!pusher.endpoint().contains("secret") && !format!("{pusher:?}").contains("secret"));
}

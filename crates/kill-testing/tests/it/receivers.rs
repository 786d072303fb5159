//! Receivers of notifications and of OTLP metrics. At random they are slow, refuse, or take something and say that they
//! did not.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use prost::Message as _;
use serde_json::Value;
use tokio::sync::watch;

use crate::program::PATIENCE;
use crate::random::Random;

#[derive(Debug)]
pub(crate) struct Got {
    random: Random,
    trouble: bool,
    /// How many requests went wrong.
    pub(crate) faults: usize,
    /// Notifications that were taken, by CorrelationID.
    pub(crate) alerts: BTreeMap<String, Taken>,
    /// Values of points by metric and nanoseconds, as often as they were taken.
    pub(crate) points: BTreeMap<(String, u64), Vec<f64>>,
}

/// How often a notification was taken.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) times: usize,
    /// How often of them the answer said that it was not.
    pub(crate) denied: usize,
}

#[derive(Clone)]
pub(crate) struct Receivers {
    pub(crate) url: String,
    got: watch::Sender<Got>,
}

impl Receivers {
    pub(crate) async fn start(seed: u64) -> Receivers {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let got = Got { random: Random::new(seed), trouble: false, faults: 0, alerts: BTreeMap::new(), points: BTreeMap::new() };
        let receivers = Receivers { url: format!("http://{}", listener.local_addr().unwrap()), got: watch::Sender::new(got) };
        let router = Router::new().route("/alerts", post(alert)).route("/v1/metrics", post(metrics)).with_state(receivers.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receivers
    }

    pub(crate) fn trouble(&self, trouble: bool) {
        self.got.send_modify(|got| got.trouble = trouble);
    }

    pub(crate) fn got(&self) -> watch::Ref<'_, Got> {
        self.got.borrow()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Got) -> bool) {
        let mut got = self.got.subscribe();
        let waited = tokio::time::timeout(PATIENCE, got.wait_for(holds)).await.map(|held| drop(held.unwrap()));
        assert!(waited.is_ok(), "never: {what}");
    }

    async fn take(&self, take: impl FnOnce(&mut Got, bool), refusal: StatusCode) -> StatusCode {
        let (mut refused, mut taken, mut pauses) = (false, true, [Duration::ZERO; 2]);
        self.got.send_modify(|got| {
            if got.trouble {
                refused = got.random.percent(20);
                taken = !refused || got.random.percent(50);
                pauses = [(); 2].map(|()| if got.random.percent(20) { got.random.milliseconds(50, 2000) } else { Duration::ZERO });
            }
            got.faults += usize::from(refused);
        });
        // Who has sent it may be gone when it is over: then this ends here, and it is not taken.
        tokio::time::sleep(pauses[0]).await;
        if taken {
            self.got.send_modify(|got| take(got, refused));
        }
        tokio::time::sleep(pauses[1]).await;
        if refused { refusal } else { StatusCode::OK }
    }
}

async fn alert(Shared(receivers): Shared<Receivers>, body: Bytes) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let id = body["CorrelationID"].as_str().unwrap().to_owned();
    let take = |got: &mut Got, denied| {
        let taken = got.alerts.entry(id).or_default();
        taken.times += 1;
        taken.denied += usize::from(denied);
    };
    receivers.take(take, StatusCode::INTERNAL_SERVER_ERROR).await
}

async fn metrics(Shared(receivers): Shared<Receivers>, body: Bytes) -> StatusCode {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    let mut points = Vec::new();
    for metric in scopes.flat_map(|scope| scope.metrics) {
        let Some(metric::Data::Gauge(gauge)) = metric.data else { panic!("no gauge: {}", metric.name) };
        for point in gauge.data_points {
            let Some(number_data_point::Value::AsDouble(value)) = point.value else { panic!("no double: {}", metric.name) };
            points.push(((metric.name.clone(), point.time_unix_nano), value));
        }
    }
    let take = |got: &mut Got, _| points.into_iter().for_each(|(point, value)| got.points.entry(point).or_default().push(value));
    receivers.take(take, StatusCode::SERVICE_UNAVAILABLE).await
}

//! Clients: each sends one numbered request after the other, and keeps what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use telemetry::client::{Series, remote_write_body};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::{World, now_ms};

/// Metrics of each request of remote write; their tables are [`super::check::METRIC_TABLES`].
const METRICS: [&str; 3] = ["load_alpha", "load_beta", "load_urgent"];
/// Between two requests of a sender: the load is to be everywhere all the time, not to fill two cores.
const PAUSE: Duration = Duration::from_millis(30);
/// After one that was not taken.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Numbers of requests, by what became of them.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) acknowledged: BTreeSet<u64>,
    /// There was an answer, and it was no.
    pub(super) refused: BTreeSet<u64>,
    /// There was no answer.
    pub(super) unknown: BTreeSet<u64>,
}

pub(super) struct Senders {
    stop: CancellationToken,
    tasks: JoinSet<Sent>,
}

impl Senders {
    /// Two for each collector: one of metrics, one of logs.
    pub(super) fn start(world: &World) -> Senders {
        Senders::start_at(world, 1)
    }

    /// The same, with numbers from `first` on.
    pub(super) fn start_at(world: &World, first: u64) -> Senders {
        let (stop, next, mut tasks) = (CancellationToken::new(), Arc::new(AtomicU64::new(first)), JoinSet::new());
        for collector in &world.collectors {
            for metrics in [true, false] {
                let sender = Sender { url: collector.url.clone(), http: world.http().clone(), metrics };
                tasks.spawn(sender.run(next.clone(), stop.clone()));
            }
        }
        Senders { stop, tasks }
    }

    /// Ends them, with what all of them know.
    pub(super) async fn stop(self) -> Sent {
        self.stop.cancel();
        let mut all = Sent::default();
        for sent in self.tasks.join_all().await {
            all.acknowledged.extend(sent.acknowledged);
            all.refused.extend(sent.refused);
            all.unknown.extend(sent.unknown);
        }
        all
    }
}

struct Sender {
    url: String,
    http: reqwest::Client,
    metrics: bool,
}

impl Sender {
    async fn run(self, next: Arc<AtomicU64>, stop: CancellationToken) -> Sent {
        let mut sent = Sent::default();
        while !stop.is_cancelled() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let answer = self.request(number).send().await;
            let (list, pause) = match answer {
                Ok(answer) if answer.status().is_success() => (&mut sent.acknowledged, PAUSE),
                Ok(_) => (&mut sent.refused, PAUSE_AFTER_FAILURE),
                Err(_) => (&mut sent.unknown, PAUSE_AFTER_FAILURE),
            };
            list.insert(number);
            tokio::time::sleep(pause).await;
        }
        sent
    }

    fn request(&self, number: u64) -> reqwest::RequestBuilder {
        let Sender { url, http, .. } = self;
        match self.metrics {
            true => {
                let request = http.post(format!("{url}/receive")).header("content-encoding", "snappy");
                let body = snap::raw::Encoder::new().compress_vec(&samples(number)).unwrap();
                request.header("content-type", "application/x-protobuf").body(body)
            }
            false => http.post(format!("{url}/v1/logs")).header("content-type", "application/json").body(records(number)),
        }
    }
}

fn samples(number: u64) -> Vec<u8> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let series = |metric: &str| Series {
        labels: vec![label("__name__", metric), label("request", &number.to_string())],
        samples: vec![(now_ms().cast_signed(), number as f64)],
    };
    remote_write_body(&METRICS.map(series))
}

fn records(number: u64) -> String {
    let record =
        |part: u64| json!({"timeUnixNano": (now_ms() * 1_000_000).to_string(), "body": {"stringValue": format!("{number}/{part}")}});
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record(0), record(1), record(2)]}]}]}).to_string()
}

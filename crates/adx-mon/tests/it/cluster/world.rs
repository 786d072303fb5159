//! What surrounds the components: an API server, kustd with rows, Alertmanager, receivers; and how objects are awaited.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use crds::Condition;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::core::v1::Namespace;
use kube_client::api::{Api, PostParams};
use kube_client::core::{NamespaceResourceScope, Resource};
use kube_client::{Client, Error};
use kube_testing::ApiServer;
use kusto::QueryOptions;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use parking_lot::Mutex;
use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, Process, free_ports, needed};

/// Where the rules are; the components are elsewhere.
pub(super) const NAMESPACE: &str = "rules";
/// The namespace of the manifests.
pub(super) const OURS: &str = "adx-mon";
pub(super) const COMPONENTS: [&str; 3] = ["alerter", "adxexporter", "ingestor"];
/// Rows of [`World`] are at every whole second from this long ago
const SECONDS_BEFORE: i64 = 300;
/// up to this time from now.
const SECONDS_AFTER: i64 = 900;

pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) admin: Client,
    pub(super) kusto: kusto::Client,
    kustd: kustd::Running,
    stop_kustd: CancellationToken,
    alertmanager: Process,
    pub(super) alertmanager_url: String,
    pub(super) alerts: Alerts,
    pub(super) points: Points,
}

impl World {
    /// None where Alertmanager is missing.
    pub(super) async fn start(server: &ApiServer) -> Option<World> {
        let program = needed(PathBuf::from("/usr/bin/prometheus-alertmanager"), "Alertmanager")?;
        let folder = tempfile::tempdir().unwrap();
        let admin = server.admin().await;
        server.install_crds().await.unwrap();
        for name in [OURS, NAMESPACE] {
            let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            Api::all(admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        }
        for component in COMPONENTS {
            let path = format!("{}/../../deploy/rbac/{component}.yaml", env!("CARGO_MANIFEST_DIR"));
            server.create(&std::fs::read_to_string(path).unwrap()).await.unwrap();
        }
        let stop_kustd = CancellationToken::new();
        let kustd = start_kustd(&folder, stop_kustd.clone()).await;
        let kusto = kusto::Client::new(&format!("http://{}", kustd.addr)).unwrap();
        fill(&kusto).await;
        let (alertmanager, alertmanager_url) = start_alertmanager(program, &folder).await;
        let (alerts, points) = (Alerts::start().await, Points::start().await);
        Some(World { folder, admin, kusto, kustd, stop_kustd, alertmanager, alertmanager_url, alerts, points })
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.kustd.addr)
    }

    /// The rows of a query.
    pub(super) async fn rows(&self, csl: &str) -> Vec<Vec<Value>> {
        let answer = self.kusto.query("Metrics", csl, &QueryOptions::default()).await;
        answer.unwrap_or_else(|error| panic!("{csl}: {error}")).tables.remove(0).rows
    }

    /// Names of the stored functions.
    pub(super) async fn functions(&self) -> Vec<String> {
        let table = self.kusto.mgmt("Metrics", ".show functions").await.unwrap();
        (0..table.rows.len()).map(|row| table.text(row, "Name").unwrap().to_owned()).collect()
    }

    /// The alerts that fire in Alertmanager, by name and rule.
    pub(super) async fn firing(&self) -> BTreeMap<(String, String), Value> {
        let text = reqwest::get(format!("{}/api/v2/alerts", self.alertmanager_url)).await.unwrap().text().await.unwrap();
        let alerts: Vec<Value> = serde_json::from_str(&text).unwrap();
        let name = |alert: &Value, label: &str| alert["labels"][label].as_str().unwrap().to_owned();
        alerts.into_iter().map(|alert| ((name(&alert, "alertname"), name(&alert, "rule")), alert)).collect()
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }

    /// Creates an object.
    pub(super) async fn create<K>(&self, name: &str, spec: Value) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let kind = K::kind(&());
        let object = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
    }

    /// Waits until an object is as it shall be.
    pub(super) async fn until<K>(&self, name: &str, reached: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let api = self.api::<K>();
        eventually(async || {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            if reached(&object) {
                return Ok(object);
            }
            let status = serde_json::to_value(&object).map(|mut object| object["status"].take());
            Err(format!("{} {name} stays as it is: {status:#?}", K::kind(&())))
        })
        .await
    }

    /// How many requests the API server has refused because the user lacks the right.
    pub(super) async fn forbidden(&self) -> Vec<String> {
        let request = axum::http::Request::get("/metrics").body(Vec::new()).unwrap();
        let text = self.admin.request_text(request).await.unwrap();
        let refused = |line: &&str| line.starts_with("apiserver_request_total{") && line.contains("code=\"403\"");
        text.lines().filter(refused).map(str::to_owned).collect()
    }

    pub(super) async fn stop(mut self) {
        self.alertmanager.kill();
        self.stop_kustd.cancel();
        self.kustd.finished().await.unwrap();
    }
}

async fn start_kustd(folder: &TempDir, stop: CancellationToken) -> kustd::Running {
    let config = kustd::Config {
        data_dir: folder.path().join("kustd"),
        listen: "127.0.0.1:0".parse().unwrap(),
        durability: wal::Durability::Process,
        databases: vec!["Metrics".into()],
        retention: None,
        max_bytes: None,
        ingestion_storage: Vec::new(),
        remote: kustd::RemoteSettings::default(),
    };
    kustd::start(config, stop).await.unwrap()
}

/// A row a second of each of two hosts, in the past and in the future: windows have rows to the day that they are run.
async fn fill(kusto: &kusto::Client) {
    let now = Timestamp::now().as_second();
    let time = |second: i64| Timestamp::from_second(second).unwrap();
    let (from, to) = (time(now - SECONDS_BEFORE), time(now + SECONDS_AFTER));
    for (host, value) in [("web-1", 97), ("web-2", 12)] {
        let rows = format!("range Timestamp from datetime({from}) to datetime({to}) step 1s | extend Host = '{host}', Value = {value}");
        kusto.mgmt("Metrics", &format!(".set-or-append Cpu <| {rows}")).await.unwrap();
    }
}

async fn start_alertmanager(program: PathBuf, folder: &TempDir) -> (Process, String) {
    let config = folder.path().join("alertmanager.yml");
    // The one of docs/rules.md.
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rules.md")).unwrap();
    let from = document.find("```yaml\nroute:").expect("the document's configuration") + "```yaml\n".len();
    std::fs::write(&config, document[from..].split("```").next().unwrap()).unwrap();
    let port = free_ports(1);
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.path={}", folder.path().join("alertmanager").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--cluster.listen-address=");
    let process = Process::start(&mut command, folder.path().join("alertmanager.log"));
    let url = format!("http://127.0.0.1:{port}");
    eventually(async || match reqwest::get(format!("{url}/-/ready")).await {
        Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
        other => Err(format!("Alertmanager is not ready: {other:?}")),
    })
    .await;
    (process, url)
}

/// A kubeconfig of a component's service account, whose rights the API server knows of by now: it follows roles by watch.
pub(super) async fn account(server: &ApiServer, component: &str) -> PathBuf {
    let kubeconfig = server.service_account(OURS, component).await.unwrap();
    let client = rules::store::kubernetes::connect(Some(&kubeconfig)).await.unwrap().unwrap();
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(OURS.to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    eventually(async || {
        let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
        let rights = serde_json::to_string(&answer.status).unwrap();
        let known = ["adx-mon.azure.com", "leases"].iter().all(|right| rights.contains(right));
        if known { Ok(()) } else { Err(format!("{component} has these rights only: {rights}")) }
    })
    .await;
    kubeconfig
}

/// Waits for something that happens within seconds on an idle machine.
pub(super) async fn eventually<T>(check: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Status, reason and message of a condition.
pub(super) fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let condition = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&condition.status, &condition.reason, &condition.message))
}

/// The receiver of notifications.
#[derive(Clone)]
pub(super) struct Alerts {
    pub(super) url: String,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Alerts {
    async fn start() -> Alerts {
        let received = Arc::new(Mutex::new(Vec::new()));
        let take = async |State(received): State<Arc<Mutex<Vec<Value>>>>, body: Bytes| {
            received.lock().push(serde_json::from_slice(&body).unwrap());
            StatusCode::CREATED
        };
        let router = Router::new().route("/alerts", post(take)).with_state(received.clone());
        Alerts { url: serve(router).await, received }
    }

    /// What came, by correlation.
    pub(super) fn received(&self) -> BTreeMap<String, Vec<Value>> {
        let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for body in self.received.lock().iter() {
            all.entry(body["CorrelationID"].as_str().unwrap().to_owned()).or_default().push(body.clone());
        }
        all
    }
}

/// A point of a gauge: name of the metric, attributes, seconds since 1970, value.
pub(super) type Point = (String, BTreeMap<String, String>, u64, f64);

/// An OTLP receiver.
#[derive(Clone)]
pub(super) struct Points {
    pub(super) url: String,
    received: Arc<Mutex<Vec<Point>>>,
}

impl Points {
    async fn start() -> Points {
        let received = Arc::new(Mutex::new(Vec::new()));
        let take = async |State(received): State<Arc<Mutex<Vec<Point>>>>, body: Bytes| {
            received.lock().extend(points(&ExportMetricsServiceRequest::decode(body).unwrap()));
            ([("content-type", "application/x-protobuf")], ExportMetricsServiceResponse::default().encode_to_vec())
        };
        let router = Router::new().route("/v1/metrics", post(take)).with_state(received.clone());
        Points { url: format!("{}/v1/metrics", serve(router).await), received }
    }

    pub(super) fn received(&self) -> Vec<Point> {
        self.received.lock().clone()
    }
}

fn points(request: &ExportMetricsServiceRequest) -> Vec<Point> {
    let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
    let mut points = Vec::new();
    for metric in metrics {
        let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!("{metric:?}") };
        for point in &gauge.data_points {
            let Some(number_data_point::Value::AsDouble(value)) = point.value else { panic!("{point:?}") };
            let text = |value: &Option<_>| serde_json::to_value(value).unwrap()["stringValue"].as_str().unwrap().to_owned();
            let attributes = point.attributes.iter().map(|a| (a.key.clone(), text(&a.value))).collect();
            points.push((metric.name.clone(), attributes, point.time_unix_nano / 1_000_000_000, value));
        }
    }
    points
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

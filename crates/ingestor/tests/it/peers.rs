//! Three ingestors in this process, that pass the segments of each table on to its owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use ingestor::peers::{Discovery, Members, Peers, owner};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::{NARROW, Process, client, image, ledger, start};

pub(crate) const NAMES: [&str; 3] = ["ingestor-0", "ingestor-1", "ingestor-2"];

/// One of a cluster, with a Kusto of its own so that it can be seen who uploaded what.
struct Node {
    dir: tempfile::TempDir,
    kusto: FakeKusto,
    process: Option<Process>,
}

struct Cluster {
    members: watch::Sender<Members>,
    nodes: Vec<Node>,
}

impl Cluster {
    async fn start() -> Cluster {
        let unknown = NAMES.map(|name| (name.to_owned(), "http://127.0.0.1:1".to_owned()));
        let mut cluster = Cluster { members: watch::channel(unknown.into()).0, nodes: Vec::new() };
        for index in 0..NAMES.len() {
            let node = Node { dir: tempfile::tempdir().unwrap(), kusto: FakeKusto::start(Kind::Kustd).await, process: None };
            cluster.nodes.push(node);
            cluster.start_node(index, |_| {}).await;
        }
        cluster
    }

    async fn start_node(&mut self, index: usize, change: impl FnOnce(&mut ingestor::Config)) {
        let members = self.members.subscribe();
        let node = &self.nodes[index];
        let process = start(node.dir.path(), &[("Metrics", &node.kusto)], |config| {
            config.cluster = Some(ingestor::Cluster { hostname: Some(NAMES[index].to_owned()), ..Default::default() });
            config.peers = Some(Peers::new(Discovery::Told(members)));
            change(config);
        })
        .await;
        self.move_to(index, &process.plain);
        self.nodes[index].process = Some(process);
    }

    /// The others find a node at this address.
    fn move_to(&self, index: usize, url: &str) {
        self.members.send_modify(|members| drop(members.insert(NAMES[index].to_owned(), url.to_owned())));
    }

    async fn stop_node(&mut self, index: usize) {
        self.nodes[index].process.take().unwrap().finish().await;
    }

    fn process(&self, index: usize) -> &Process {
        self.nodes[index].process.as_ref().unwrap()
    }

    /// As a collector's: compressed.
    async fn post(&self, index: usize, table: &str, number: u64, row: &str) -> StatusCode {
        post(&self.process(index).plain, table, number, row).await
    }

    /// How often each row is in any Kusto.
    fn rows(&self) -> BTreeMap<String, usize> {
        let mut rows = BTreeMap::new();
        for node in &self.nodes {
            let seen = node.kusto.seen.lock();
            let tables = seen.rows.iter().filter(|(table, _)| !table.ends_with(" mapped"));
            tables.flat_map(|(_, rows)| rows).for_each(|row| *rows.entry(row.clone()).or_default() += 1);
        }
        rows
    }

    async fn until_rows(&self, count: usize) {
        let reached = async {
            while self.rows().len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), reached).await.is_ok(), "{} of {count}", self.rows().len());
    }

    /// Stops all; every row was taken in once and went once.
    async fn finish(mut self) -> Vec<wal::Counts> {
        for index in 0..self.nodes.len() {
            if self.nodes[index].process.is_some() {
                self.stop_node(index).await;
            }
        }
        let twice: Vec<_> = self.rows().into_iter().filter(|(_, times)| *times != 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        self.nodes.iter().map(|node| ledger(node.dir.path())).collect()
    }
}

pub(crate) async fn post(url: &str, table: &str, number: u64, row: &str) -> StatusCode {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&image(NARROW, &format!("{row}\n"))).unwrap();
    let url = format!("{url}/transfer?filename=Metrics_{table}_aaa_{number:016x}.wal");
    let request = client().post(url).header("content-encoding", "gzip").body(gzip.finish().unwrap());
    request.send().await.unwrap().status()
}

fn owner_of(table: &str) -> usize {
    let owner = owner(&format!("Metrics_{table}_aaa"), NAMES).unwrap();
    NAMES.iter().position(|name| *name == owner).unwrap()
}

/// Of the first two.
pub(crate) fn owner_of_two(table: &str) -> usize {
    usize::from(owner(&format!("Metrics_{table}_aaa"), NAMES[..2].iter().copied()) == Some(NAMES[1]))
}

/// A table of each owner.
fn tables() -> [String; 3] {
    let table_of = |owner: usize| (0..).map(|n| format!("T{n}")).find(|table| owner_of(table) == owner).unwrap();
    [table_of(0), table_of(1), table_of(2)]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_everywhere_is_uploaded_by_the_owner_of_its_table() {
    let cluster = Cluster::start().await;
    let mut number = 0;
    for table in tables() {
        for index in 0..3 {
            for row in 0..3 {
                number += 1;
                assert_eq!(cluster.post(index, &table, number, &format!("{table}-{index}-{row},1")).await, 202);
            }
        }
    }
    cluster.until_rows(27).await;
    for (owner, table) in tables().iter().enumerate() {
        for (index, node) in cluster.nodes.iter().enumerate() {
            let rows = node.kusto.rows(&format!("Metrics.{table}")).len();
            assert_eq!(rows, if index == owner { 9 } else { 0 }, "{table}, owned by {owner}, at {index}");
        }
    }
    let metrics = cluster.process(0).get("/metrics").await.1;
    assert!(metrics.contains("adxmon_ingestor_members 3"), "{metrics}");
    let totals = cluster.finish().await;
    for total in totals {
        // Nine rows of clients, of which six are others', and six from the peers.
        assert_eq!((total.accepted, total.forwarded, total.landed, total.maybe_duplicate), (15, 6, 9, 0));
    }
}

/// Many small segments of several senders become one upload.
#[tokio::test(flavor = "multi_thread")]
async fn segments_of_all_are_merged_at_the_owner() {
    let mut cluster = Cluster::start().await;
    let table = &tables()[0];
    cluster.stop_node(0).await;
    cluster.start_node(0, |config| config.max_segment_age = Duration::from_secs(3600)).await;
    for number in 0..20 {
        let index = 1 + number as usize % 2;
        assert_eq!(cluster.post(index, table, number, &format!("r{number},1")).await, 202);
        // Each in a segment of its own.
        cluster.process(index).until("/debug/store", |text| text.contains(&forwarded(number / 2 + 1))).await;
    }
    assert!(cluster.rows().is_empty());
    cluster.stop_node(0).await;
    assert_eq!(cluster.rows().len(), 20);
    assert_eq!(cluster.nodes[0].kusto.seen.lock().batches.len(), 1);
    cluster.finish().await;
}

/// The line of `/debug/store` for so many rows.
fn forwarded(rows: u64) -> String {
    format!("  {:<16}{rows:>16}\n", "forwarded")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_that_is_away_would_get_is_uploaded_where_it_is() {
    let mut cluster = Cluster::start().await;
    let table = &tables()[0];
    cluster.stop_node(0).await;
    for number in 0..6 {
        assert_eq!(cluster.post(1 + number as usize % 2, table, number, &format!("r{number},1")).await, 202);
    }
    cluster.until_rows(6).await;
    assert!(cluster.nodes[0].kusto.rows(&format!("Metrics.{table}")).is_empty());
    let metrics = cluster.process(1).get("/metrics").await.1;
    assert!(metrics.contains("adxmon_transfer_segments_released_total{reason=\"its owner is unhealthy\"}"), "{metrics}");
    assert!(cluster.finish().await.iter().all(|total| total.maybe_duplicate == 0));
}

/// A network between two peers that loses the answers of what it has delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_peer_makes_no_duplicate() {
    let cluster = Cluster::start().await;
    let table = &tables()[0];
    let losing = Losing { to: cluster.process(0).plain.clone(), lose: Arc::new(AtomicUsize::new(2)), delivered: Arc::default() };
    cluster.move_to(0, &losing.clone().start().await);
    for number in 0..4 {
        assert_eq!(cluster.post(1, table, number, &format!("r{number},1")).await, 202);
    }
    cluster.until_rows(4).await;
    // The owner has what was sent, and the sender asks it again until it knows; it does not wait with the rest.
    cluster.process(1).sealed(0).await;
    assert_eq!(losing.delivered.load(Ordering::SeqCst), 3);
    let totals = cluster.finish().await;
    assert!(totals[1].forwarded > 0 && totals[0].landed == totals[1].forwarded, "{totals:?}");
    assert!(totals.iter().all(|total| total.maybe_duplicate == 0));
}

#[derive(Clone)]
struct Losing {
    to: String,
    lose: Arc<AtomicUsize>,
    delivered: Arc<AtomicUsize>,
}

impl Losing {
    async fn start(self) -> String {
        let router = axum::Router::new().fallback(forward).with_state(self);
        serve(router).await
    }
}

async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn forward(State(losing): State<Losing>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let is_post = parts.method == http::Method::POST;
    let sent =
        client().request(parts.method, format!("{}{}", losing.to, parts.uri)).headers(parts.headers).body(body).send().await.unwrap();
    if is_post {
        losing.delivered.fetch_add(1, Ordering::SeqCst);
        if losing.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return StatusCode::BAD_GATEWAY.into_response();
        }
    }
    let mut answer = Response::builder().status(sent.status());
    for (name, value) in sent.headers() {
        answer = answer.header(name, value);
    }
    answer.body(axum::body::Body::from(sent.bytes().await.unwrap())).unwrap()
}

/// One after the other stops and starts, while clients go on with whoever is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_repeats_nothing() {
    let mut cluster = Cluster::start().await;
    let mut number = 0;
    let mut sent = BTreeSet::new();
    for restarted in 0..3 {
        for phase in 0..2 {
            for table in tables() {
                for index in (0..3).filter(|index| phase == 0 || *index != restarted) {
                    number += 1;
                    let row = format!("r{number},1");
                    assert_eq!(cluster.post(index, &table, number, &row).await, 202);
                    sent.insert(row);
                }
            }
            match phase {
                0 => cluster.stop_node(restarted).await,
                _ => cluster.start_node(restarted, |_| {}).await,
            }
        }
    }
    cluster.until_rows(sent.len()).await;
    assert_eq!(cluster.rows().into_keys().collect::<BTreeSet<_>>(), sent);
    assert!(cluster.finish().await.iter().all(|total| total.maybe_duplicate == 0));
}

/// A file name with its body.
type File = (String, Vec<u8>);

/// The reference's ingestor.
#[derive(Clone, Default)]
struct ReferencePeer {
    /// In the order in which they came.
    stored: Arc<Mutex<Vec<File>>>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
}

impl ReferencePeer {
    async fn start(&self) -> String {
        serve(axum::Router::new().route("/transfer", axum::routing::any(take)).with_state(self.clone())).await
    }

    fn rows(&self) -> Vec<String> {
        let stored = self.stored.lock();
        let values = stored.iter().map(|(_, image)| String::from_utf8(wal::segment::values(image, true)).unwrap());
        let mut rows: Vec<String> = values.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        rows.sort();
        rows
    }
}

async fn take(State(peer): State<ReferencePeer>, request: Request) -> Response {
    let Some(name) = request.uri().query().and_then(|query| query.strip_prefix("filename=")).map(str::to_owned) else {
        return (StatusCode::BAD_REQUEST, "missing filename\n").into_response();
    };
    assert!(!request.headers().contains_key("content-encoding"), "nothing is compressed between ingestors");
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let answer = peer.answers.lock().pop().unwrap_or(StatusCode::ACCEPTED);
    if answer == StatusCode::ACCEPTED {
        peer.stored.lock().push((name, body.to_vec()));
    }
    answer.into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_the_reference_gets_one_table_a_request_and_what_it_refuses_is_uploaded() {
    let mut cluster = Cluster::start().await;
    cluster.stop_node(0).await;
    let reference = ReferencePeer::default();
    cluster.move_to(0, &reference.start().await);
    let table = &tables()[0];
    for number in 0..3 {
        assert_eq!(cluster.post(1, table, number, &format!("r{number},1")).await, 202);
        cluster.process(1).until("/debug/store", |text| text.contains(&forwarded(number + 1))).await;
    }
    assert_eq!(reference.rows(), ["r0,1", "r1,1", "r2,1"]);
    let prefix = format!("Metrics_{table}_aaa_");
    assert!(reference.stored.lock().iter().all(|(name, _)| name.starts_with(&prefix)), "{:?}", reference.stored.lock());
    // 400, on which the reference deletes, and 429.
    for (number, answer) in [(3, StatusCode::BAD_REQUEST), (4, StatusCode::TOO_MANY_REQUESTS)] {
        reference.answers.lock().push(answer);
        assert_eq!(cluster.post(1, table, number, &format!("r{number},1")).await, 202);
        cluster.nodes[1]
            .kusto
            .wait(|seen| seen.rows.get(&format!("Metrics.{table}")).is_some_and(|rows| rows.len() == number as usize - 2))
            .await;
    }
    assert_eq!(reference.rows().len(), 3);
    assert!(cluster.finish().await.iter().all(|total| total.maybe_duplicate == 0));
}

/// What a peer of the reference sends is uploaded here, also where another one would be the owner.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_sends_is_not_passed_on() {
    let cluster = Cluster::start().await;
    let table = &tables()[0];
    // The reference's peers do not compress.
    let name = format!("Metrics_{table}_aaa_2f5d0c3e517e4001.wal");
    assert_eq!(cluster.process(1).post(&name, image(NARROW, "plain,1\n")).await, 202);
    cluster.nodes[1].kusto.wait(|seen| seen.rows.contains_key(&format!("Metrics.{table}"))).await;
    assert!(cluster.nodes[0].kusto.rows(&format!("Metrics.{table}")).is_empty());
    let totals = cluster.finish().await;
    assert_eq!((totals[1].forwarded, totals[1].landed), (0, 1));
}

//! Queries over several clusters: entity groups, `macro-expand`, `cluster("…")`, and what happens when clusters fail.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use kustd::RemoteSettings;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::harness::Kustd;
use crate::program::Program;

const ROWS: [&str; 2] = ["2024-05-01T00:00:00Z,a,1\n2024-05-01T00:00:01Z,b,2\n", "2024-05-01T00:00:02Z,c,3\n"];
const TABLE: &str = ".create table T (Timestamp:datetime, Name:string, N:long)";

/// A kustd with the table and some rows.
async fn partition(folder: &std::path::Path, rows: &str) -> Kustd {
    let kustd = Kustd::start(folder).await;
    kustd.done(TABLE).await;
    assert_eq!(kustd.ingest("T", "streamFormat=csv", rows).await.status, 200);
    kustd
}

fn entities(addresses: &[&str]) -> String {
    let entity = |address: &&str| format!("cluster('{address}').database('Metrics')");
    addresses.iter().map(entity).collect::<Vec<_>>().join(", ")
}

async fn group(hub: &Kustd, addresses: &[&str]) {
    hub.done(&format!(".create-or-alter entity_group MetricsSpoke ({})", entities(addresses))).await;
}

/// The rows of a version 2 answer, and its warnings.
async fn asked(hub: &Kustd, text: &str) -> (Vec<Value>, Vec<String>) {
    let reply = hub.post("/v2/rest/query", json!({"db": "Metrics", "csl": text})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let frames = reply.json();
    let table = |kind: &str| frames.as_array().unwrap().iter().find(|frame| frame["TableKind"] == kind).unwrap()["Rows"].clone();
    let status = table("QueryCompletionInformation");
    let warnings = status.as_array().unwrap().iter().filter(|row| row[6] == "Warning").map(|row| row[11].as_str().unwrap().to_owned());
    (table("PrimaryResult").as_array().unwrap().clone(), warnings.collect())
}

#[tokio::test]
async fn entity_groups_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let one = json!(["G", ["cluster('http://a').database('D')"]]);
    assert_eq!(kustd.done(".create entity_group G (cluster(\"http://a\").database(\"D\"))").await, std::slice::from_ref(&one));
    assert!(kustd.command(".create entity_group G (cluster('http://b').database('D'))").await.error(400).contains("exists"));
    assert_eq!(kustd.done(".create entity_group ifnotexists G (database('E'))").await, std::slice::from_ref(&one));
    assert_eq!(
        kustd.done(".alter-merge entity_group G (database('E'), cluster('http://a').database('D'))").await[0][1].as_array().unwrap().len(),
        2
    );
    assert_eq!(kustd.done(".alter entity_group G (cluster('http://a').database('D'))").await, std::slice::from_ref(&one));
    assert_eq!(
        kustd.done(".create-or-alter entity_group ['H h'] (database('it\\'s').T)").await,
        [json!(["H h", ["database('it\\'s').['T']"]])]
    );
    for (command, said) in [
        (".alter entity_group Other (database('E'))", "'Other'"),
        (".drop entity_group Other", "'Other'"),
        (".show entity_group Other", "'Other'"),
        (".create entity_group Empty ()", "expected"),
        (".create entity_group Bad (1 + 1)", "expected references"),
        (".create entity_group Bad (T)", "not supported"),
        (".create entity_group Bad (database('E')", "')'"),
    ] {
        assert!(kustd.command(command).await.error(400).contains(said), "{command}");
    }
    kustd.done(".drop entity_group Other ifexists").await;
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!(kustd.done(".show entity_groups | project Name").await, [json!(["G"]), json!(["H h"])]);
    assert_eq!(kustd.done(".show entity_group G").await, std::slice::from_ref(&one));
    assert_eq!(kustd.done(".drop entity_group ['H h']").await, [one]);
    kustd.stop().await;
}

#[tokio::test]
async fn a_query_sees_the_rows_of_all_clusters() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (a, b) = (partition(folders[0].path(), ROWS[0]).await, partition(folders[1].path(), ROWS[1]).await);
    b.done(".alter-merge table T (Extra:dynamic)").await;
    b.done(".create function Big (least:long) { T | where N >= least }").await;
    let hub = Kustd::start(folders[2].path()).await;
    hub.done(TABLE).await;
    group(&hub, &[&a.address, &b.address]).await;
    hub.done(".create-or-alter function T() { macro-expand isfuzzy=true best_effort=true MetricsSpoke as X ( X.T ) }").await;
    for (text, wanted) in [
        ("T | count", json!([[3]])),
        ("T | where N > 1 | project Name, N | order by N asc", json!([["b", 2], ["c", 3]])),
        ("T | summarize total = sum(N), last = max(Timestamp)", json!([[6, "2024-05-01T00:00:02Z"]])),
        ("T | summarize avg(N) by big = N > 2 | order by big asc", json!([[false, 1.5], [true, 3.0]])),
        ("T | top 1 by N desc | project Name, isnull(Extra)", json!([["c", true]])),
        ("T | where Name in ((T | where N == 3 | project Name)) | project N", json!([[3]])),
        (
            "T | extend parts = split(strcat(Name, ',x'), ',') | mv-expand parts to typeof(string) | summarize count() by parts | count",
            json!([[4]]),
        ),
        ("table('T') | count", json!([[0]])),
        ("macro-expand MetricsSpoke as X (X.T | where Timestamp > datetime(2024-05-01 00:00:01) | project Name)", json!([["c"]])),
        ("macro-expand kind=inner MetricsSpoke as X (X.T) | getschema | count", json!([[3]])),
        ("macro-expand isfuzzy=true MetricsSpoke as X (X.Big(2)) | project Name", json!([["c"]])),
        (
            "macro-expand MetricsSpoke as X (X.T | join kind=inner (X.T | where N > 1) on Name | project Name, N1) | order by N1 asc",
            json!([["b", 2], ["c", 3]]),
        ),
        (
            "macro-expand MetricsSpoke as X (X.T | extend at = X.$current_cluster_endpoint | summarize n = sum(N) by at) | project n | order by n asc",
            json!([[3], [3]]),
        ),
    ] {
        let (rows, warnings) = asked(&hub, text).await;
        assert_eq!(json!(rows), wanted, "{text}");
        // `Big` is in one of them alone
        assert_eq!(warnings.len(), usize::from(text.contains("Big")), "{text}: {warnings:?}");
    }
    let direct = format!("cluster('{}').database('Metrics').T | where N == 2 | project Name", a.address);
    assert_eq!(asked(&hub, &direct).await.0, [json!(["b"])]);
    let missing = hub.query("macro-expand MetricsSpoke as X (X.Big(2))").await.error(400);
    assert!(missing.contains(&a.address) && missing.contains("Big"), "{missing}");
    // functions are checked without asking anybody
    hub.done(".create function Later() { macro-expand MetricsSpoke as X (X.NotYet) }").await;
    for kustd in [a, b, hub] {
        kustd.stop().await;
    }
}

/// A cluster that tells the columns of its table and notes what it is asked.
struct Fake {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// A permit for each query for rows.
    rows: Arc<Semaphore>,
}

/// What it does when it is asked for rows.
#[derive(Clone, Copy)]
enum Manner {
    /// One row.
    Answers,
    /// Nothing, for ever.
    Hangs,
    /// The beginning of an answer.
    Breaks,
    /// 400.
    Refuses,
    /// Not even columns.
    IsSilent,
}

impl Fake {
    async fn start(manner: Manner) -> Fake {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let rows = Arc::new(Semaphore::new(0));
        let (notes, counted) = (asked.clone(), rows.clone());
        let answer = move |body: String| {
            let text = serde_json::from_str::<Value>(&body).unwrap()["csl"].as_str().unwrap().to_owned();
            notes.lock().push(text.clone());
            counted.add_permits(usize::from(!is_for_columns(&text)));
            answer(manner, text)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v2/rest/query", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Fake { address, asked, rows }
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

fn is_for_columns(text: &str) -> bool {
    text.ends_with("| take 0")
}

async fn answer(manner: Manner, text: String) -> (axum::http::StatusCode, String) {
    let table = |rows: Value| {
        json!([{"FrameType": "DataSetHeader", "Version": "v2.0"},
            {"FrameType": "DataTable", "TableId": 1, "TableKind": "PrimaryResult", "TableName": "PrimaryResult",
             "Columns": [{"ColumnName": "Timestamp", "ColumnType": "datetime"}, {"ColumnName": "Name", "ColumnType": "string"},
                         {"ColumnName": "N", "ColumnType": "long"}], "Rows": rows},
            {"FrameType": "DataSetCompletion", "HasErrors": false, "Cancelled": false}])
        .to_string()
    };
    let body = match manner {
        Manner::IsSilent => std::future::pending().await,
        _ if is_for_columns(&text) => table(json!([])),
        Manner::Answers => table(json!([["2024-05-02T00:00:00Z", "f", 9]])),
        Manner::Hangs => std::future::pending().await,
        Manner::Breaks => {
            let whole = table(json!([["2024-05-02T00:00:00Z", "f", 9]]));
            whole[..whole.len() - 40].to_owned()
        }
        Manner::Refuses => {
            let error = json!({"error": {"code": "BadRequest", "@message": "no such thing", "@permanent": true}});
            return (axum::http::StatusCode::BAD_REQUEST, error.to_string());
        }
    };
    (axum::http::StatusCode::OK, body)
}

fn impatient() -> RemoteSettings {
    RemoteSettings { timeout: Duration::from_millis(500), ..RemoteSettings::default() }
}

#[tokio::test]
async fn clusters_run_what_they_can_of_a_query() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, fake) = (Kustd::start(folder.path()).await, Fake::start(Manner::Answers).await);
    group(&hub, &[&fake.address]).await;
    for (operators, sent) in [
        ("", "['T']"),
        ("| where N > 3 and Name has 'f'", "['T'] | where ((['N'] > long(3)) and (['Name'] has \"f\"))"),
        ("| project Name", "['T'] | project ['Name']=['Name']"),
        // nobody looks at the other columns
        ("| order by N asc | project N", "['T'] | project ['N']"),
    ] {
        hub.query(&format!("macro-expand MetricsSpoke as X (X.T {operators})")).await;
        let last = fake.asked.lock().last().unwrap().clone();
        assert_eq!(last, sent, "{operators}");
    }
    // columns were asked for once
    assert_eq!(fake.asked.lock().iter().filter(|text| is_for_columns(text)).count(), 1);
    hub.stop().await;
}

/// Every way to fail costs the cluster its own rows, and no others; without `best_effort` it costs the query, which names
/// the cluster.
#[tokio::test]
async fn a_cluster_that_fails_costs_itself_only() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let good = partition(folders[0].path(), ROWS[0]).await;
    let hub = Kustd::start_federated(folders[1].path(), impatient()).await;
    for (manner, status) in [(Manner::Hangs, 503), (Manner::Breaks, 503), (Manner::Refuses, 400), (Manner::IsSilent, 503)] {
        let bad = Fake::start(manner).await;
        group(&hub, &[&good.address, &bad.address]).await;
        for operators in ["| count", "| summarize sum(N / N)", "| order by N asc | extend one = row_number(1) | summarize count()"] {
            let text = format!("macro-expand isfuzzy=true best_effort=true MetricsSpoke as X (X.T) {operators}");
            let (rows, warnings) = asked(&hub, &text).await;
            assert_eq!(json!(rows), json!([[2]]), "{text}");
            assert!(warnings.len() == 1 && warnings[0].contains(&bad.address), "{warnings:?}");
        }
        // a sub-query that a cluster cannot run alone
        let local = "macro-expand best_effort=true MetricsSpoke as X (X.T | order by N asc | extend p = prev(N)) | count";
        assert_eq!(asked(&hub, local).await.0, [json!([2])]);
        let error = hub.query("macro-expand MetricsSpoke as X (X.T) | count").await.error(status);
        assert!(error.contains(&bad.address), "{error}");
        // and none at all is an error
        group(&hub, &[&bad.address]).await;
        let error = hub.query("macro-expand isfuzzy=true best_effort=true MetricsSpoke as X (X.T) | count").await.error(status);
        assert!(error.contains(&bad.address), "{error}");
    }
    good.stop().await;
    hub.stop().await;
}

/// `isfuzzy` is about what exists, not about what fails later.
#[tokio::test]
async fn fuzzy_resolution_alone_does_not_hide_failures() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let good = partition(folders[0].path(), ROWS[0]).await;
    let hub = Kustd::start_federated(folders[1].path(), impatient()).await;
    let bad = Fake::start(Manner::Refuses).await;
    group(&hub, &[&good.address, &bad.address]).await;
    let error = hub.query("macro-expand isfuzzy=true MetricsSpoke as X (X.T) | count").await.error(400);
    assert!(error.contains(&bad.address) && error.contains("no such thing"), "{error}");
    // the option of a request does what that of the operator does
    let (rows, _) = asked(&hub, "set best_effort; macro-expand MetricsSpoke as X (X.T) | count").await;
    assert_eq!(rows, [json!([2])]);
    good.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn a_silent_cluster_is_waited_for_once() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let good = partition(folders[0].path(), ROWS[0]).await;
    let hub = Kustd::start_federated(folders[1].path(), impatient()).await;
    let silent = Fake::start(Manner::IsSilent).await;
    group(&hub, &[&silent.address, &good.address]).await;
    for _ in 0..5 {
        let (rows, warnings) = asked(&hub, "macro-expand isfuzzy=true MetricsSpoke as X (X.T) | count").await;
        assert_eq!((rows, warnings.len()), (vec![json!([2])], 1));
    }
    assert_eq!(silent.asked(), 1);
    good.stop().await;
    hub.stop().await;
}

/// That rows come late may be the query's fault: the next one asks again, for columns first.
#[tokio::test]
async fn a_late_answer_does_not_make_a_cluster_ill() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Kustd::start_federated(folder.path(), impatient()).await;
    let fake = Fake::start(Manner::Hangs).await;
    group(&hub, &[&fake.address]).await;
    for _ in 0..2 {
        hub.query("macro-expand MetricsSpoke as X (X.T)").await.error(503);
    }
    assert_eq!(*fake.asked.lock(), ["['T'] | take 0", "['T']", "['T'] | take 0", "['T']"]);
    hub.stop().await;
}

/// More queries wait for a cluster than may run at the same time, and one that does not need it runs.
#[tokio::test]
async fn queries_that_wait_for_a_cluster_hold_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Arc::new(partition(folder.path(), ROWS[0]).await);
    let fake = Fake::start(Manner::Hangs).await;
    group(&hub, &[&fake.address]).await;
    let places = (std::thread::available_parallelism().unwrap().get() * 2).max(4);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..places * 2 {
        let hub = hub.clone();
        waiting.spawn(async move { hub.query("macro-expand best_effort=true MetricsSpoke as X (X.T)").await });
    }
    fake.rows.acquire_many(u32::try_from(places).unwrap()).await.unwrap().forget();
    assert_eq!(asked(&hub, "T | count").await.0, [json!([2])]);
    assert!(waiting.try_join_next().is_none(), "the others wait still");
    waiting.shutdown().await;
    Arc::into_inner(hub).unwrap().stop().await;
}

#[tokio::test]
async fn only_clusters_that_are_named_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(Manner::Answers).await;
    let query = format!("cluster('{}').database('Metrics').T | project N", fake.address);
    let inline = format!("macro-expand isfuzzy=true entity_group [{}] as X (X.T)", entities(&[&fake.address]));
    let hub = Kustd::start(folder.path()).await;
    for text in [&query, &inline] {
        assert!(hub.query(text).await.error(400).contains("--allowed-clusters"));
    }
    // a name that is no address is this cluster
    assert_eq!(hub.query("cluster('help').database('Metrics').T").await.status, 400);
    assert_eq!(fake.asked(), 0);
    hub.stop().await;
    let hub =
        Kustd::start_federated(folder.path(), RemoteSettings { allowed: vec![fake.address.clone()], ..RemoteSettings::default() }).await;
    assert_eq!(asked(&hub, &query).await.0, [json!([9])]);
    hub.stop().await;
}

#[tokio::test]
async fn a_group_that_names_its_own_cluster_ends() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Kustd::start(folder.path()).await;
    group(&hub, &[&hub.address]).await;
    hub.done(".create-or-alter function Round() { macro-expand MetricsSpoke as X ( X.Round ) }").await;
    let error = hub.query("Round | count").await;
    assert!(error.status >= 400 && error.text.contains("came through"), "{}", error.text);
    hub.stop().await;
}

/// Three processes: one is killed, another stopped, and the hub goes on with what is left.
#[tokio::test]
async fn programs_that_die_and_hang() {
    server::install_crypto();
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let start = |at: usize, flags: &[&str]| Program::start_with(folders[at].path(), flags);
    let (mut a, b) = (start(0, &["--databases", "Metrics"]), start(1, &["--databases", "Metrics"]));
    let hub = start(2, &["--databases", "Metrics", "--remote-timeout", "1s"]);
    let client = reqwest::Client::new();
    let send = |address: &str, path: &str, text: &str| {
        let request = client.post(format!("{address}{path}")).json(&json!({"db": "Metrics", "csl": text}));
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            (status, response.json::<Value>().await.unwrap())
        }
    };
    for (program, rows) in [(&a, ROWS[0]), (&b, ROWS[1])] {
        assert_eq!(send(&program.address, "/v1/rest/mgmt", TABLE).await.0, 200);
        assert_eq!(send(&program.address, "/v1/rest/mgmt", &format!(".ingest inline into table T <| {rows}")).await.0, 200);
    }
    let create = format!(".create entity_group MetricsSpoke ({})", entities(&[&a.address, &b.address]));
    assert_eq!(send(&hub.address, "/v1/rest/mgmt", &create).await.0, 200);
    let function = ".create function T() { macro-expand isfuzzy=true best_effort=true MetricsSpoke as X ( X.T ) }";
    assert_eq!(send(&hub.address, "/v1/rest/mgmt", function).await.0, 200);
    let names = async || send(&hub.address, "/v1/rest/query", "T | project Name | order by Name asc").await.1["Tables"][0]["Rows"].clone();
    assert_eq!(names().await, json!([["a"], ["b"], ["c"]]));
    // stopped, its connections stay open and nothing comes
    let signal = |name: &str| std::process::Command::new("kill").args([name, &b.child.id().to_string()]).status().unwrap();
    assert!(signal("-STOP").success());
    assert_eq!(names().await, json!([["a"], ["b"]]));
    assert!(signal("-CONT").success());
    a.child.kill().unwrap();
    a.child.wait().unwrap();
    let (status, answer) = send(&hub.address, "/v1/rest/query", "macro-expand MetricsSpoke as X (X.T)").await;
    assert!(status == 503 && answer.to_string().contains(&a.address), "{answer}");
    let metrics = client.get(format!("{}/metrics", hub.address)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("kustd_remote_failures_total") && metrics.contains("kustd_remote_skipped_total"), "{metrics}");
}

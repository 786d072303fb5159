//! The program is killed while rows come in, update policies run and windows are rolled up: what was acknowledged is
//! there once, and source, target and operation agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::Program;

const ROUNDS: u64 = 4;
/// Windows of a round.
const WINDOWS: u64 = 15;
const POLICY: &str = r#".alter table Lifted policy update @'[{"IsEnabled":true,"Source":"Raw","Query":"Raw | where n == 0 | project batch","IsTransactional":true,"PropagateIngestionProperties":false}]'"#;

/// What the senders know.
#[derive(Default)]
struct Known {
    /// Batches sent so far.
    sent: u64,
    acknowledged: BTreeSet<u64>,
    /// Windows sent so far.
    windows: u64,
    /// Operations by window, of those that were answered.
    operations: BTreeMap<u64, String>,
}

#[tokio::test]
async fn kills_lose_nothing_and_double_nothing() {
    server::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    for round in 0..ROUNDS {
        send_until_killed(folder.path(), &mut known, Duration::from_millis(250 + 200 * round)).await;
    }
    assert!(known.acknowledged.len() > 20 && known.operations.len() > 5, "too little was sent to say anything");
    let program = Program::start(folder.path());
    let client = Client::new(&program.address);
    let rows = client.rows("query", "Raw | summarize c = count() by batch | join kind=leftouter (Lifted | summarize l = count() by batch) on batch | project batch, c, l").await;
    let stored: BTreeSet<u64> = rows.iter().map(|row| row[0].as_u64().unwrap()).collect();
    let torn: Vec<&Value> = rows.iter().filter(|row| row[1] != 3 || row[2] != 1).collect();
    assert!(torn.is_empty(), "batches that are not there once and whole, in both tables: {torn:?}");
    assert!(known.acknowledged.is_subset(&stored), "lost: {:?}", known.acknowledged.difference(&stored));
    // what is sent again is stored if it was not before
    for batch in (0..known.sent).filter(|batch| batch % 10 == 0 || !known.acknowledged.contains(batch)) {
        assert!(client.ingest(batch).await, "batch {batch}");
    }
    let counts = client.rows("query", "print toscalar(Raw | count), toscalar(Lifted | count)").await;
    assert_eq!(counts, [json!([known.sent * 3, known.sent])]);

    let rolled: BTreeMap<u64, u64> = client
        .rows("query", "Rolled | summarize count() by window")
        .await
        .iter()
        .map(|row| (row[0].as_u64().unwrap(), row[1].as_u64().unwrap()))
        .collect();
    for (window, operation) in &known.operations {
        let shown = client.rows("mgmt", &format!(".show operations {operation} | project State, ShouldRetry")).await;
        let wanted = if shown == [json!(["Completed", false])] { 10 } else { 0 };
        assert!(wanted == 10 || shown == [json!(["Failed", true])], "window {window}: {shown:?}");
        assert_eq!(rolled.get(window).copied().unwrap_or(0), wanted, "window {window}: {shown:?}");
    }
    // windows that are sent again are stored if they were not before
    for window in (0..known.windows).filter(|window| window % 10 == 0 || !rolled.contains_key(window)) {
        client.rows("mgmt", &rollup(".set-or-append", window)).await;
    }
    let counts = client.rows("query", "Rolled | summarize c = count() by window | summarize count(), min(c), max(c)").await;
    assert_eq!(counts, [json!([known.windows, 10, 10])]);
}

/// Starts the program, sends batches and windows one after the other, and kills it after that time.
async fn send_until_killed(folder: &Path, known: &mut Known, after: Duration) {
    let mut program = Program::start(folder);
    let client = Client::new(&program.address);
    if known.sent == 0 {
        for command in
            [".create tables Raw (batch:long, n:long), Lifted (batch:long)", POLICY, ".create table Rolled (x:long, window:long)"]
        {
            client.rows("mgmt", command).await;
        }
    }
    let Known { sent, acknowledged, windows, operations } = known;
    let batches = async {
        loop {
            let batch = *sent;
            *sent += 1;
            if !client.ingest(batch).await {
                return;
            }
            acknowledged.insert(batch);
        }
    };
    let rollups = async {
        for _ in 0..WINDOWS {
            let window = *windows;
            *windows += 1;
            // when the answer is lost nobody knows the operation
            let Some(reply) = client.post("mgmt", &rollup(".set-or-append async", window)).await else { return };
            operations.insert(window, reply["Tables"][0]["Rows"][0][0].as_str().unwrap().to_owned());
        }
    };
    let kill = async {
        tokio::time::sleep(after).await;
        program.child.kill().unwrap();
    };
    tokio::join!(batches, rollups, kill);
}

fn rollup(verb: &str, window: u64) -> String {
    format!(
        "{verb} Rolled with (tags='[\"ingest-by:{window}\"]', ingestIfNotExists='[\"{window}\"]') \
         <| range x from 1 to 10 step 1 | extend window = {window}"
    )
}

struct Client {
    http: reqwest::Client,
    address: String,
}

impl Client {
    fn new(address: &str) -> Client {
        Client { http: reqwest::Client::new(), address: address.to_owned() }
    }

    /// The answer; None when there is none because the program is gone.
    async fn post(&self, route: &str, text: &str) -> Option<Value> {
        let request = self.http.post(format!("{}/v1/rest/{route}", self.address)).json(&json!({"csl": text}));
        let response = request.send().await.ok()?;
        let status = response.status();
        let body = response.text().await.ok()?;
        assert_eq!(status, 200, "{text}: {body}");
        serde_json::from_str(&body).ok()
    }

    async fn rows(&self, route: &str, text: &str) -> Vec<Value> {
        self.post(route, text).await.unwrap()["Tables"][0]["Rows"].as_array().unwrap().clone()
    }

    /// Sends three rows; whether they were acknowledged.
    async fn ingest(&self, batch: u64) -> bool {
        let address = format!("{}/v1/rest/ingest/NetDefaultDB/Raw?streamFormat=csv", self.address);
        let body: String = (0..3).map(|n| format!("{batch},{n}\n")).collect();
        let request = self.http.post(address).header("x-adxmon-batch-id", format!("{batch:08x}")).body(body);
        match request.send().await {
            Ok(response) => {
                assert_eq!(response.status(), 200);
                true
            }
            Err(_) => false,
        }
    }
}

//! The functions that the ingestor gives a metrics database, run by kustd on samples whose answers are worked out by hand.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A kustd of a test's own.
pub(crate) struct Kustd {
    _folder: tempfile::TempDir,
    address: String,
    client: reqwest::Client,
}

impl Kustd {
    /// An empty one.
    pub(crate) async fn start() -> Kustd {
        server::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let config = kustd::Config {
            data_dir: folder.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            durability: wal::Durability::Process,
            databases: Vec::new(),
            retention: None,
            max_bytes: None,
            ingestion_storage: Vec::new(),
            remote: kustd::RemoteSettings::default(),
        };
        let running = kustd::start(config, CancellationToken::new()).await.unwrap();
        Kustd { _folder: folder, address: format!("http://{}", running.addr), client: reqwest::Client::new() }
    }

    /// With the functions and a table of samples.
    async fn with_samples(samples: &str) -> Kustd {
        let metrics = Kustd::start().await;
        for statement in ingestor::kql::create_functions() {
            metrics.rows("/v1/rest/mgmt", &statement).await;
        }
        metrics.rows("/v1/rest/mgmt", ".create table S (Timestamp:datetime, SeriesId:long, Labels:dynamic, Value:real)").await;
        metrics.rows("/v1/rest/mgmt", &format!(".ingest inline into table S <|\n{samples}")).await;
        metrics
    }

    /// The rows of the first result.
    pub(crate) async fn rows(&self, path: &str, text: &str) -> Value {
        let body = json!({ "db": kustd::DEFAULT_DATABASE, "csl": text });
        let response = self.client.post(format!("{}{path}", self.address)).json(&body).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert!(answer["Tables"].is_array(), "{text}: {answer}");
        answer["Tables"][0]["Rows"].clone()
    }

    /// `[series, value]` of what a function makes of samples, by series and time.
    async fn invoke(&self, samples: &str, function: &str) -> Value {
        let text = format!("{samples} | invoke {function}() | order by SeriesId asc, Timestamp asc | project SeriesId, Value");
        self.rows("/v1/rest/query", &text).await
    }
}

#[tokio::test]
async fn change_of_gauges_and_growth_of_counters() {
    // series 1 rises and falls; 2 is a counter that is reset after 130; 3 is reset at its last sample. Rows come in any
    // order, and a sample that is no number does not count.
    let metrics = Kustd::with_samples(
        "2024-05-01T00:01:00Z,1,,9\n2024-05-01T00:00:00Z,1,,10\n2024-05-01T00:00:30Z,1,,4\n2024-05-01T00:00:40Z,1,,NaN\n\
         2024-05-01T00:00:00Z,2,,100\n2024-05-01T00:00:30Z,2,,130\n2024-05-01T00:01:00Z,2,,20\n2024-05-01T00:01:30Z,2,,50\n\
         2024-05-01T00:00:00Z,3,,10\n2024-05-01T00:00:10Z,3,,3\n",
    )
    .await;
    let delta = json!([[1, 0.0], [1, -6.0], [1, 5.0], [2, 0.0], [2, 30.0], [2, -110.0], [2, 30.0], [3, 0.0], [3, -7.0]]);
    assert_eq!(metrics.invoke("S", "prom_delta").await, delta);
    let increase = metrics.invoke("S | where SeriesId > 1", "prom_increase").await;
    assert_eq!(increase, json!([[2, 0.0], [2, 30.0], [2, 30.0], [2, 30.0], [3, 0.0], [3, null]]));
    // per second, over the 30 seconds before; there is none for the first sample
    let rate = metrics.invoke("S | where SeriesId > 1", "prom_rate").await;
    assert_eq!(rate, json!([[2, 1.0], [2, 1.0], [2, 1.0]]));
}

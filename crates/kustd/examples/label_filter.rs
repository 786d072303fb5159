//! Measures `Labels.host == "…"` over many samples, as a client sees it: ingests them as CSV into a kustd in this
//! process, waits until they are in extents, then times a few queries over HTTP. Where a machine is shared, compare the
//! CPU times, which are of this whole process.
//!
//! `cargo run --release -p kustd --example label_filter [samples] [series]`

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const ROWS_PER_REQUEST: usize = 50_000;
const ROUNDS: usize = 5;
/// Hot rows of a table stay below this: it is sealed then.
const SEAL_ROWS: usize = 1_000_000;

const QUERIES: &[&str] = &[
    "Samples | count",
    "Samples | where Labels.host == 'host-7' | count",
    "Samples | where Labels.host == 'host-7' | summarize avg(Value) by bin(Timestamp, 1h)",
    "Samples | where Labels.absent == 'x' | count",
    "Samples | where Timestamp < datetime(2026-01-01 00:10) and Labels.host == 'host-7' | count",
    "Samples | summarize count() by tostring(Labels.host) | count",
    "Samples | summarize max(Value) by SeriesId | count",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let samples: usize = args.next().map_or(Ok(10_000_000), |n| n.parse()).context("reading the number of samples")?;
    let series: usize = args.next().map_or(Ok(20_000), |n| n.parse()).context("reading the number of series")?;
    let folder = std::env::temp_dir().join(format!("label_filter-{}", std::process::id()));
    let measured = measure(&folder, samples, series).await;
    std::fs::remove_dir_all(&folder)?;
    measured
}

async fn measure(folder: &Path, samples: usize, series: usize) -> anyhow::Result<()> {
    server::install_crypto();
    let shutdown = CancellationToken::new();
    let config = kustd::Config {
        data_dir: folder.to_owned(),
        listen: "127.0.0.1:0".parse()?,
        durability: wal::Durability::Process,
        databases: Vec::new(),
        retention: None,
        max_bytes: None,
        ingestion_storage: Vec::new(),
        remote: kustd::RemoteSettings::default(),
    };
    let running = kustd::start(config, shutdown.clone()).await?;
    let kustd = Client { http: reqwest::Client::new(), address: format!("http://{}", running.addr) };
    kustd.post("/v1/rest/mgmt", ".create table Samples (Timestamp:datetime, SeriesId:long, Labels:dynamic, Value:real)").await?;
    let begun = Instant::now();
    kustd.ingest(samples, series).await?;
    println!("{samples} samples of {series} series ingested in {:.1?}", begun.elapsed());
    kustd.wait_for_extents(samples).await?;
    for query in QUERIES {
        kustd.time(query).await?;
    }
    shutdown.cancel();
    running.finished().await
}

struct Client {
    http: reqwest::Client,
    address: String,
}

impl Client {
    /// The rows of the answer.
    async fn post(&self, path: &str, text: &str) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.address)).json(&json!({ "db": kustd::DEFAULT_DATABASE, "csl": text }));
        let response = request.send().await?;
        let status = response.status();
        let mut answer: Value = response.json().await?;
        ensure!(status.is_success(), "{text}: {answer}");
        Ok(answer["Tables"][0]["Rows"].take())
    }

    async fn ingest(&self, samples: usize, series: usize) -> anyhow::Result<()> {
        let address = format!("{}/v1/rest/ingest/{}/Samples?streamFormat=csv", self.address, kustd::DEFAULT_DATABASE);
        for first in (0..samples).step_by(ROWS_PER_REQUEST) {
            let body = csv(first..samples.min(first + ROWS_PER_REQUEST), series);
            loop {
                let response = self.http.post(&address).body(body.clone()).send().await?;
                match response.status().as_u16() {
                    200 => break,
                    // sealing is behind
                    429 => tokio::time::sleep(Duration::from_secs(1)).await,
                    status => anyhow::bail!("{status}: {}", response.text().await?),
                }
            }
        }
        Ok(())
    }

    async fn wait_for_extents(&self, samples: usize) -> anyhow::Result<()> {
        loop {
            let text = ".show table Samples extents | summarize sum(RowCount), sum(ExtentSize), count()";
            let found = self.post("/v1/rest/mgmt", text).await?;
            let rows = found[0][0].as_u64().unwrap_or(0);
            if rows + SEAL_ROWS as u64 > samples as u64 {
                let bytes = found[0][1].as_f64().unwrap_or(0.0);
                println!("{rows} of them in {} extents of {:.0} MB together", found[0][2], bytes / 1e6);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn time(&self, query: &str) -> anyhow::Result<()> {
        let mut times = Vec::new();
        let mut answer = Value::Null;
        let before = cpu_seconds()?;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            answer = self.post("/v1/rest/query", query).await?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let rows = answer.as_array().map_or(0, Vec::len);
        let (median, best, cpu) = (times[ROUNDS / 2], times[0], (cpu_seconds()? - before) / ROUNDS as f64);
        println!("{median:>9.1?} median, {best:>9.1?} best, {cpu:.3} CPU-s, {rows} rows, first {}: {query}", answer[0]);
        Ok(())
    }
}

/// CPU time of this process so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = procfs::process::Process::myself()?.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// Samples as rows of CSV. Series take turns every 15 seconds, as scrapes of many targets arrive.
fn csv(samples: std::ops::Range<usize>, series: usize) -> String {
    let mut text = String::new();
    for sample in samples {
        let (round, n) = (sample / series, sample % series);
        let seconds = round * 15;
        let (day, hour, minute, second) = (1 + seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        // writing into a String does not fail
        let _ = writeln!(
            text,
            "2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z,{},\"{{\"\"cluster\"\":\"\"prod-{}\"\",\"\"container\"\":\"\"app\"\",\
             \"\"host\"\":\"\"host-{}\"\",\"\"namespace\"\":\"\"team-{}\"\",\"\"pod\"\":\"\"app-{n}-x7k2p\"\",\
             \"\"region\"\":\"\"eastus\"\",\"\"job\"\":\"\"kubernetes-pods\"\"}}\",{}",
            n * 7_919,
            n % 3,
            n % 500,
            n % 40,
            // values as real ones are: hardly two alike
            (sample as u64).wrapping_mul(2_654_435_761) % 1_000_000_007,
        );
    }
    text
}

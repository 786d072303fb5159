//! CPU time from CRI lines to rows: `cargo run --release -p logs --example line_bench`.

use std::sync::Arc;
use std::time::Instant;

use logs::{Batch, Destination, Encoder, LineFormat, LineOptions, LineReader, Map, MultiLine, Parser, Parsers, Transforms};

const LINES: u64 = 1_000_000;
/// Lines of one commit.
const BATCH: u64 = 1000;
const NOW: u64 = 1_700_000_000_000_000_000;

fn main() {
    let plain: Vec<String> =
        lines(|i| format!("GET /api/v1/items/{i} 200 12ms client=10.0.0.{} agent=\"Mozilla/5.0 (X11; Linux x86_64)\"", i % 256));
    let json: Vec<String> =
        lines(|i| format!("{{\"level\":\"info\",\"msg\":\"request served\",\"path\":\"/items/{i}\",\"status\":200,\"took\":0.{i}}}"));
    report("lines to rows", &plain, None, &Parsers::default(), &Transforms::default());
    report("lines to rows, traces joined", &plain, Some(MultiLine::traces(&languages())), &Parsers::default(), &Transforms::default());
    report("json", &json, None, &Parsers::from(vec![Parser::Json]), &Transforms::default());
    let query = "query = \"where Body.status != 404 | extend path = tostring(Body.path)\"";
    for (name, config) in [("redact", "presets = ['email', 'credit-card', 'ipv4']"), ("kql", query)] {
        let config = config.parse().map(toml::Value::Table).expect("TOML");
        let transforms = Transforms::new([(name, &config)]).expect("a transform");
        report(&format!("json and {name}"), &json, None, &Parsers::from(vec![Parser::Json]), &transforms);
    }
}

fn languages() -> Vec<logs::Language> {
    logs::Language::NAMES.iter().filter_map(|name| name.parse().ok()).collect()
}

fn lines(message: impl Fn(usize) -> String) -> Vec<String> {
    (0..1000).map(|i| format!("2024-05-01T12:00:00.{:09}Z stdout F {}", i * 1000, message(i))).collect()
}

fn report(what: &str, lines: &[String], multi_line: Option<MultiLine>, parsers: &Parsers, transforms: &Transforms) {
    let encoder = Encoder::new(Default::default(), Vec::new());
    let pod = ["pod", "namespace", "container", "containerID", "label.app", "annotation.x"];
    let resource: Arc<Map> = Arc::new(pod.into_iter().map(|key| (key.to_owned(), "some-value-of-it".into())).collect());
    let encoded = encoder.resource(&resource);
    let destination = Destination::new("Logs", "App").expect("a name");
    let options = LineOptions { format: LineFormat::Kubernetes, multi_line: multi_line.map(Arc::new), ..LineOptions::default() };
    let mut reader = LineReader::new(Arc::new(options));
    let mut transforms = transforms.clone();
    let (mut bytes, mut rows) = (0, 0);
    let mut set = telemetry::RowSet::new();
    let begin = Instant::now();
    for round in 0..LINES / BATCH {
        set.clear();
        let mut batch = Batch::reusing(&encoder, set);
        for index in 0..BATCH {
            let line = &lines[((round * BATCH + index) % lines.len() as u64) as usize];
            bytes += line.len();
            reader.push(line.as_bytes(), 0, NOW, |entry| {
                if parsers.is_empty() && transforms.is_empty() {
                    let _ = batch.line(&entry, &encoded, &destination);
                    return;
                }
                let mut record = entry.record(parsers, &resource, Some(&destination));
                if transforms.apply(&mut record, NOW) {
                    let _ = batch.record(&record);
                }
            });
        }
        let (done, counts) = batch.finish();
        (set, rows) = (done, rows + counts.rows);
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what}: {seconds:.2} s for {rows} rows of {} bytes", bytes as u64 / LINES);
}

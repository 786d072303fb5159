//! Another configuration while the collector runs.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::host_logs::sent;
use crate::log_transforms::Ingestor;
use crate::pod_logs::rows;
use crate::support::{Collector, RECEIVERS, client, one_sample};

const RELOADS_FAILED: &str = "adxmon_collector_config_reloads_total{result=\"failed\"}";
const LAST_SUCCESSFUL: &str = "adxmon_collector_config_last_reload_successful";

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_rules_change() {
    let collector = Collector::start("", RECEIVERS).await;
    assert_eq!(collector.write("dropme", 1.0).await, 202);
    assert_eq!(collector.metric("adxmon_collector_samples_stored_total").await, Some(0.0));
    let tables = "[[prometheus-remote-write]]\ndatabase = 'Other'\npath = '/receive'\n[[otel-metric]]\ndatabase = 'Metrics'\npath = '/m'\n";
    assert_eq!(collector.reload("", tables).await.unwrap(), [""; 0]);
    assert_eq!(collector.write("dropme", 1.0).await, 202);
    assert_eq!(collector.metric("adxmon_ledger_rows{database=\"Other\",state=\"accepted\"}").await, Some(1.0));
    let status = |path: &str| client().post(format!("{}{path}", collector.url)).send();
    assert_eq!(status("/v1/metrics").await.unwrap().status(), 404);
    assert_eq!(status("/m").await.unwrap().status(), 415);
    assert_eq!(collector.metric(LAST_SUCCESSFUL).await, Some(1.0));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_stays() {
    let collector = Collector::start("", RECEIVERS).await;
    let changed = collector.reload("max-connections = 1\nregion = 'elsewhere'", RECEIVERS).await.unwrap();
    assert_eq!(changed, ["region", "max-connections"]);
    // Asked again, the answer is the same: the collector still runs with the old values.
    let changed = collector.reload("max-connections = 1\nregion = 'elsewhere'", RECEIVERS).await.unwrap();
    assert_eq!(changed, ["region", "max-connections"]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_changes_nothing() {
    let collector = Collector::start("", RECEIVERS).await;
    let error = collector.reload("no-such-key = 1", "").await.unwrap_err();
    assert!(error.to_string().contains("unknown key no-such-key"), "{error:#}");
    assert_eq!(collector.write("up", 1.0).await, 202);
    assert_eq!((collector.metric(RELOADS_FAILED).await, collector.metric(LAST_SUCCESSFUL).await), (Some(1.0), Some(0.0)));
    collector.reload("", RECEIVERS).await.unwrap();
    assert_eq!(collector.metric(LAST_SUCCESSFUL).await, Some(1.0));
    collector.stop().await;
}

/// A client on one connection sends without a pause while the configuration changes fifty times.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_and_no_connection_is_lost() {
    let collector = Collector::start("", RECEIVERS).await;
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sender = tokio::spawn({
        let (url, sent, stop) = (format!("{}/receive", collector.url), Arc::clone(&sent), Arc::clone(&stop));
        // One idle connection is kept; a closed one would show as another accepted one.
        let client = client();
        async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.post(&url).body(one_sample("up", 1.0)).send().await.unwrap().status(), 202);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for i in 0..50 {
        let before = sent.load(Ordering::Relaxed);
        collector.reload("", &format!("{RECEIVERS}\n[[otel-metric]]\ndatabase = 'M'\npath = '/m{i}'\n")).await.unwrap();
        while sent.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    sender.await.unwrap();
    let stored = collector.metric("adxmon_collector_samples_stored_total").await;
    assert_eq!(stored, Some(sent.load(Ordering::Relaxed) as f64));
    collector.stop().await;
}

/// Writes line after line, about one in a millisecond.
struct Writer {
    begun: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(mut write: impl FnMut(u32) + Send + 'static) -> Writer {
        let (begun, stop) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (count, until) = (Arc::clone(&begun), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                write(count.fetch_add(1, Ordering::Relaxed));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Writer { begun, stop, thread }
    }

    /// Lines that were written or are being written: later ones have this number or a higher one.
    fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    async fn writes_on(&self) {
        let before = self.begun();
        while self.begun() < before + 20 {
            assert!(!self.thread.is_finished(), "the writer has ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many lines there were.
    fn end(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.begun.load(Ordering::Relaxed)
    }
}

/// Numbers of the lines of a writer in the rows of `tables`, each with the round that its label says.
fn lines(ingestor: &Ingestor, tables: &[&str], writer: &str) -> Vec<(u32, u32)> {
    let line = |(body, resource): (Value, Value)| {
        let number = body["message"].as_str().unwrap().strip_prefix(writer)?.parse().unwrap();
        Some((number, resource["round"].as_str().unwrap().parse().unwrap()))
    };
    let mut lines: Vec<(u32, u32)> = tables.iter().flat_map(|table| rows(ingestor, table)).filter_map(line).collect();
    lines.sort_unstable();
    lines
}

/// Each of `all` lines came once, and those from `last` on with the label of `round`.
fn assert_once(lines: &[(u32, u32)], all: u32, last: u32, round: u32) {
    let numbers: Vec<u32> = lines.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..all).collect::<Vec<_>>());
    let after: BTreeSet<u32> = lines.iter().filter(|(number, _)| *number >= last).map(|(_, round)| *round).collect();
    assert_eq!(after, BTreeSet::from([round]));
    let rounds: BTreeSet<u32> = lines.iter().map(|(_, round)| *round).collect();
    assert!(rounds.len() > 1, "lines of one reload only: {rounds:?}");
}

const ROUNDS: u32 = 12;

/// Changes what becomes of lines, round after round; every third configuration cannot be run, for want of a port.
async fn reload_in_rounds(collector: &Collector, settings: &str, tables: impl Fn(u32) -> String, writers: &[&Writer]) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for round in 1..=ROUNDS {
        for writer in writers {
            writer.writes_on().await;
        }
        if round % 3 == 2 {
            let port = format!("[[syslog]]\nlisten-addr = '{}'\nprotocol = 'tcp'\n{SYSLOG_TABLE}", taken.local_addr().unwrap());
            let error = format!("{:#}", collector.reload(settings, &(tables(round) + &port)).await.unwrap_err());
            assert!(error.contains("is another process using the port?"), "{error}");
        } else {
            collector.reload(settings, &tables(round)).await.unwrap();
        }
    }
}

const SYSLOG_TABLE: &str = "database = 'Logs'\ntable = 'Other'\n";

#[tokio::test(flavor = "multi_thread")]
async fn no_line_of_syslog_is_lost_when_its_settings_change() {
    let ingestor = Ingestor::default();
    let settings = ingestor.start().await;
    let tables = |round: u32| {
        let server = |protocol: &str| {
            let table = round % 2;
            format!("[[syslog]]\nlisten-addr = '127.0.0.1:0'\nprotocol = '{protocol}'\ndatabase = 'Logs'\ntable = 'Syslog{table}'\n")
        };
        format!("add-labels = {{ round = '{round}' }}\n{}{}", server("udp"), server("tcp"))
    };
    let collector = Collector::start(&settings, &tables(0)).await;
    let [udp, tcp] = collector.running().syslog[..] else { panic!("two servers") };
    let mut stream = TcpStream::connect(tcp).unwrap();
    let over_tcp = Writer::start(move |number| stream.write_all(format!("<13>1 - h a - - - tcp {number}\n").as_bytes()).unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let over_udp = Writer::start(move |number| {
        socket.send_to(format!("<13>1 - h a - - - udp {number}").as_bytes(), udp).unwrap();
    });
    reload_in_rounds(&collector, &settings, tables, &[&over_tcp, &over_udp]).await;
    let (last_tcp, last_udp) = (over_tcp.begun(), over_udp.begun());
    over_tcp.writes_on().await;
    over_udp.writes_on().await;
    let ended = "adxmon_collector_syslog_connections_ended_total{reason=\"closed\"}";
    assert_eq!(collector.metric(ended).await, None, "the connection goes on");
    let (tcp, udp) = (over_tcp.end(), over_udp.end());
    collector.until(&sent("syslog"), |count| count >= f64::from(tcp + udp)).await;
    collector.until(ended, |count| count == 1.0).await;
    collector.stop().await;
    let tables = ["Logs_Syslog0", "Logs_Syslog1"];
    assert_once(&lines(&ingestor, &tables, "tcp "), tcp, last_tcp, ROUNDS);
    assert_once(&lines(&ingestor, &tables, "udp "), udp, last_udp, ROUNDS);
    assert!(tables.iter().all(|table| !ingestor.rows(table).is_empty()));
}

/// What is under way when a socket ends by a reload was sent in time.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_to_a_syslog_server_that_ends_is_read() {
    let server = |protocol: &str| format!("[[syslog]]\nlisten-addr = '127.0.0.1:0'\nprotocol = '{protocol}'\n{SYSLOG_TABLE}");
    let collector = Collector::start("", &(server("udp") + &server("tcp"))).await;
    let [udp, tcp] = collector.running().syslog[..] else { panic!("two servers") };
    let mut stream = TcpStream::connect(tcp).unwrap();
    stream.write_all(b"<13>1 - h a - - - first\n").unwrap();
    collector.until(&sent("syslog"), |count| count == 1.0).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Few enough for the kernel's buffer, whoever is slow.
    for number in 0..100 {
        stream.write_all(format!("<13>1 - h a - - - tcp {number}\n").as_bytes()).unwrap();
        socket.send_to(format!("<13>1 - h a - - - udp {number}").as_bytes(), udp).unwrap();
    }
    collector.reload("", "").await.unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(collector.metric(&sent("syslog")).await, Some(201.0));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_file_is_stored_once_through_reloads() {
    let ingestor = Ingestor::default();
    let settings = ingestor.start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let tables = |round: u32| {
        format!(
            "add-labels = {{ round = '{round}' }}\n[[host-log]]\ndisable-kube-discovery = true\n[[host-log.file-target]]\nfile-path = '{}'\n\
             database = 'Logs'\ntable = 'File'\nmax-line-bytes = {}\n",
            path.display(),
            1000 + round
        )
    };
    let mut file = std::fs::File::create(&path).unwrap();
    let collector = Collector::start(&settings, &tables(0)).await;
    let writer = Writer::start(move |number| writeln!(file, "file {number}").unwrap());
    reload_in_rounds(&collector, &settings, tables, &[&writer]).await;
    let last = writer.begun();
    writer.writes_on().await;
    let all = writer.end();
    collector.until(&sent("tailsource"), |count| count >= f64::from(all)).await;
    collector.stop().await;
    assert_once(&lines(&ingestor, &["Logs_File"], "file "), all, last, ROUNDS);
}

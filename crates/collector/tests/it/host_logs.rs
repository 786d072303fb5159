//! The journal, the kernel log and syslog, from their makers to the store.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::secure::Certificates;
use crate::support::Collector;

const LOGS: &str = "adxmon_ledger_rows{database=\"Logs\",state=\"accepted\"}";

pub(crate) fn sent(source: &str) -> String {
    format!("adxmon_collector_logs_sent{{source=\"{source}\",sink=\"StoreSink\"}}")
}

static ENTRIES: AtomicU64 = AtomicU64::new(0);

/// Adds entries with these messages to a journal.
pub(crate) fn journal(file: &Path, messages: &[&str]) {
    let fields: Vec<_> = messages.iter().map(|message| format!("MESSAGE={message}\n").into_bytes()).collect();
    journal_of(file, &fields);
}

/// Adds entries with these fields to a journal, each as the journal's export format has it.
fn journal_of(file: &Path, entries: &[Vec<u8>]) {
    let entry = |fields: &Vec<u8>| {
        let i = ENTRIES.fetch_add(1, Ordering::Relaxed);
        let time = 1_700_000_000_000_000 + i;
        let head = format!("__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={i}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n");
        [head.as_bytes(), fields, b"\n"].concat()
    };
    let export: Vec<u8> = entries.iter().flat_map(entry).collect();
    let input = file.with_extension("export");
    std::fs::write(&input, export).unwrap();
    let program = "/lib/systemd/systemd-journal-remote";
    let made = Command::new(program).arg("-o").arg(file).arg(&input).stderr(Stdio::null()).status();
    assert!(made.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it")).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_read_once_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("system.journal");
    journal(&file, &["one", "two"]);
    let path = folder.path().display();
    let tables = format!(
        "[[host-log]]\ndisable-kube-discovery = true\n[[host-log.journal-target]]\ndatabase = 'Logs'\ntable = 'Journal'\njournal-path = '{path}'\nparsers = ['keyvalue']\n"
    );
    let collector = Collector::start("", &tables).await;
    collector.until(&sent("journal"), |count| count == 2.0).await;
    journal(&file, &["three"]);
    collector.until(&sent("journal"), |count| count == 3.0).await;
    let dir = collector.stop().await;

    journal(&file, &["four"]);
    let collector = Collector::start_in(dir, "", &tables).await;
    collector.until(&sent("journal"), |count| count == 1.0).await;
    // A reload takes the source over where it is.
    collector.reload("", &format!("{tables}\n[otel-trace]\ndatabase = 'T'\n")).await.unwrap();
    journal(&file, &["five"]);
    collector.until(&sent("journal"), |count| count == 2.0).await;
    assert_eq!(collector.metric(LOGS).await, Some(5.0));
    let (_, page) = collector.get("/debug/store").await;
    assert!(page.contains("Logs.Journal"), "{page}");
    collector.stop().await;
}

/// Records that the kernel log has now, each of which `/dev/kmsg` gives to one read.
fn kernel_records() -> usize {
    let not_waiting = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut log = std::fs::File::options().read(true).custom_flags(not_waiting).open("/dev/kmsg").unwrap();
    let mut buffer = vec![0; 8192];
    std::iter::from_fn(|| log.read(&mut buffer).ok()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_log_is_read_once_over_restarts() {
    let tables = "[[host-log]]\ndisable-kube-discovery = true\n[[host-log.kernel-target]]\ndatabase = 'Logs'\ntable = 'Kernel'\npriority = 'debug'\n";
    let there = kernel_records();
    assert!(there > 10, "{there}");
    let collector = Collector::start("", tables).await;
    let read = collector.until(&sent("kernelsource"), |count| count >= there as f64).await;
    let dir = collector.stop().await;
    let marker = format!("a test of the collector, {:?}", std::time::SystemTime::now());
    // Without its line end the kernel would wait for more of it.
    std::fs::write("/dev/kmsg", format!("{marker}\n")).unwrap();
    let collector = Collector::start_in(dir, "", tables).await;
    collector.until(&sent("kernelsource"), |count| count >= 1.0).await;
    let messages = crate::files::messages(&collector.stop().await);
    assert_eq!(messages.iter().filter(|message| **message == marker).count(), 1);
    // What the kernel says meanwhile is far less than what it said since boot.
    assert!((messages.len() as f64) < read * 1.5, "{} of {read}", messages.len());
}

fn syslog(protocol: &str, more: &str) -> String {
    format!("[[syslog]]\nlisten-addr = '127.0.0.1:0'\nprotocol = '{protocol}'\ndatabase = 'Logs'\ntable = 'Syslog'\n{more}\n")
}

/// Sends with Debian's own client.
pub(crate) fn logger(arguments: &[&str]) {
    let sent = Command::new("logger").args(arguments).status();
    assert!(sent.expect("logger is missing; `cargo xtask setup` installs it").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn logger_sends_in_every_way_that_it_knows() {
    let collector = Collector::start("", &(syslog("udp", "") + &syslog("tcp", ""))).await;
    let [udp, tcp] = collector.running().syslog[..] else { panic!("two servers") };
    let (udp, tcp) = (udp.port().to_string(), tcp.port().to_string());
    let mut expected = 0.0;
    for format in ["--rfc3164", "--rfc5424"] {
        for arguments in [
            &["--udp", "--port", udp.as_str()][..],
            &["--tcp", "--port", tcp.as_str()],
            &["--tcp", "--octet-count", "--port", tcp.as_str()],
        ] {
            let common = ["--server", "127.0.0.1", format, "--tag", "test", "--priority", "user.err"];
            logger(&[&common[..], arguments, &["a message"]].concat());
            expected += 1.0;
            collector.until(&sent("syslog"), |count| count == expected).await;
        }
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_a_reload_and_long_messages_are_cut() {
    let tables = syslog("tcp", "max-message-bytes = 100");
    let collector = Collector::start("", &tables).await;
    let mut stream = TcpStream::connect(collector.running().syslog[0]).await.unwrap();
    stream.write_all(b"<13>1 - h a - - - first\n").await.unwrap();
    collector.until(&sent("syslog"), |count| count == 1.0).await;
    collector.reload("", &format!("{tables}[otel-trace]\ndatabase = 'T'\n")).await.unwrap();
    let long = format!("<13>1 - h a - - - {}\n<13>1 - h a - - - last", "x".repeat(1000));
    stream.write_all(long.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    collector.until(&sent("syslog"), |count| count == 3.0).await;
    let cut = 18.0 + 1000.0 - 100.0;
    assert_eq!(collector.metric("adxmon_collector_logs_truncated_bytes_total{source=\"syslog\"}").await, Some(cut));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_is_stored_before_the_end() {
    let collector = Collector::start("", &syslog("tcp", "")).await;
    let mut stream = TcpStream::connect(collector.running().syslog[0]).await.unwrap();
    let lines: String = (0..100).map(|i| format!("<13>1 - h a - - - {i}\n")).collect();
    // In one piece: who has the lines has the last message too, which waits for its newline.
    stream.write_all(format!("{lines}<13>1 - h a - - - last").as_bytes()).await.unwrap();
    collector.until(&sent("syslog"), |count| count == 100.0).await;
    let messages = crate::files::messages(&collector.stop().await);
    let expected: Vec<_> = (0..100).map(|i| i.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(messages, expected);
}

/// A client that trusts the authority of `server` and shows the certificate of `client`, if it has one.
async fn tls(collector: &Collector, server: &Certificates, client: Option<&Certificates>) -> TlsStream<TcpStream> {
    let certificate = |path| CertificateDer::from_pem_file(path).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate(server.file("ca.crt"))).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match client {
        Some(client) => {
            let key = PrivateKeyDer::from_pem_file(client.file("client.key")).unwrap();
            config.with_client_auth_cert(vec![certificate(client.file("client.crt"))], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(collector.running().syslog[0]).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_over_tls_is_taken_from_known_clients_only() {
    let (known, unknown) = (Certificates::new(), Certificates::new());
    let file = |name: &str| known.file(name).display().to_string();
    let (certificate, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let files = format!("tls-cert-file = '{certificate}'\ntls-key-file = '{key}'\ntls-client-ca-file = '{ca}'");
    let collector = Collector::start("", &syslog("tcp", &files)).await;
    // The authorities have the same name, so that the signature decides.
    let refused = [("DecryptError", Some(&unknown)), ("CertificateRequired", None)];
    for (alert, client) in refused {
        // In TLS 1.3 the client learns of it after its handshake.
        let mut stream = tls(&collector, &known, client).await;
        let _ = stream.write_all(b"<13>1 - h a - - - refused\n").await;
        let error = stream.read(&mut [0]).await.unwrap_err().to_string();
        assert!(error.contains(alert), "{error} is not {alert}");
    }
    let mut stream = tls(&collector, &known, Some(&known)).await;
    stream.write_all(b"<13>1 - h a - - - one\n<13>1 - h a - - - two\n").await.unwrap();
    collector.until(&sent("syslog"), |count| count == 2.0).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_syslog_go_through_transforms() {
    let transforms = "[[syslog.transforms]]\nname = 'drop'\nconfig = { all = [{ field = 'Attributes.appname', equals = 'noise' }] }\n";
    let collector = Collector::start("", &syslog("tcp", transforms)).await;
    let mut stream = TcpStream::connect(collector.running().syslog[0]).await.unwrap();
    stream.write_all(b"<13>1 - h noise - - - a\n<13>1 - h signal - - - b\n").await.unwrap();
    collector.until(&sent("syslog"), |count| count == 1.0).await;
    let dropped = "adxmon_collector_logs_dropped{source=\"syslog\",stage=\"drop\"}";
    collector.until(dropped, |count| count == 1.0).await;
    collector.stop().await;
}

fn ended(reason: &str) -> String {
    format!("adxmon_collector_syslog_connections_ended_total{{reason=\"{reason}\"}}")
}

fn dropped(stage: &str) -> String {
    format!("adxmon_collector_logs_dropped{{source=\"syslog\",stage=\"{stage}\"}}")
}

/// Sends over a connection of its own.
async fn send(collector: &Collector, text: &[u8]) {
    let mut stream = TcpStream::connect(collector.running().syslog[0]).await.unwrap();
    stream.write_all(text).await.unwrap();
    stream.shutdown().await.unwrap();
    // The other side ends it.
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_senders_of_syslog_is_counted() {
    let collector = Collector::start("", &syslog("tcp", "max-connections = 1\nmax-message-bytes = 50")).await;
    let problem = |kind: &str| format!("adxmon_collector_log_line_problems_total{{source=\"syslog\",problem=\"{kind}\"}}");
    send(&collector, b"no syslog\n<13>1 - h a - - - \xff\n").await;
    collector.until(&ended("closed"), |count| count == 1.0).await;
    assert_eq!(collector.metric(&problem("format")).await, Some(1.0));
    assert_eq!(collector.metric(&problem("utf8")).await, Some(1.0));
    let long = format!("<13>1 - h a - - - {}\n", "x".repeat(100));
    send(&collector, long.as_bytes()).await;
    collector.until(&problem("cut"), |count| count == 1.0).await;
    // A count that more was to follow.
    send(&collector, b"19 <13>1 - h a - - - x30 <13>1 - h a - - - torn").await;
    collector.until(&dropped("torn"), |count| count == 1.0).await;
    send(&collector, b"12x<13>1 - h a - - - x").await;
    collector.until(&ended("framing"), |count| count == 1.0).await;
    let mut first = TcpStream::connect(collector.running().syslog[0]).await.unwrap();
    first.write_all(b"<13>1 - h a - - - first\n").await.unwrap();
    collector.until(&sent("syslog"), |count| count == 5.0).await;
    let mut second = TcpStream::connect(collector.running().syslog[0]).await.unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap_or(0), 0);
    collector.until(&ended("too_many"), |count| count == 1.0).await;
    // A message without its newline when the server ends is a message.
    first.write_all(b"<13>1 - h a - - - last").await.unwrap();
    tokio::task::yield_now().await;
    collector.stop().await;
}

/// However fast they come: what is sent is stored, or counted as lost by whoever lost it.
#[tokio::test(flavor = "multi_thread")]
async fn every_datagram_is_stored_or_counted() {
    const SENT: u32 = 100_000;
    let collector = Collector::start("", &syslog("udp", "")).await;
    let to = collector.running().syslog[0];
    let sending = tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in 0..SENT {
            socket.send_to(format!("<13>1 - h a - - - {n} {}", "x".repeat(200)).as_bytes(), to).unwrap();
        }
    });
    sending.await.unwrap();
    let mut counts = [0.0; 3];
    for _ in 0..600 {
        for (count, name) in counts.iter_mut().zip([sent("syslog"), dropped("kernel"), dropped("receive")]) {
            *count = collector.metric(&name).await.unwrap_or_default();
        }
        if counts.iter().sum::<f64>() == f64::from(SENT) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(counts.iter().sum::<f64>(), f64::from(SENT), "{counts:?}");
    assert!(counts[0] > 0.0, "{counts:?}");
    println!("stored, dropped by the kernel, and for want of room: {counts:?}");
    collector.stop().await;
}

/// Bytes that are no text, a message that is too long in two parts, and a journal that cannot be read at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_journal_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let binary = |name: &str, value: &[u8]| [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat();
    let part = |size: usize, more: &str| format!("_STREAM_ID=5\n{more}MESSAGE={}\n", "x".repeat(size)).into_bytes();
    let parts = [part(600 << 10, "_LINE_BREAK=line-max\n"), part(600 << 10, "")];
    journal_of(&folder.path().join("system.journal"), &[&[binary("MESSAGE", b"a \xff b")], &parts[..]].concat());
    let source = |path: &Path, table: &str| {
        format!(
            "[[host-log]]\ndisable-kube-discovery = true\n[[host-log.journal-target]]\ndatabase = 'Logs'\ntable = '{table}'\njournal-path = '{}'\n",
            path.display()
        )
    };
    let collector = Collector::start("", &source(folder.path(), "Journal")).await;
    let of_journal = |name: &str, more: &str| format!("adxmon_collector_{name}{{source=\"journal\"{more}}}");
    collector.until(&sent("journal"), |count| count == 2.0).await;
    assert_eq!(collector.metric(&of_journal("log_line_problems_total", ",problem=\"utf8\"")).await, Some(1.0));
    assert_eq!(collector.metric(&of_journal("log_line_problems_total", ",problem=\"cut\"")).await, Some(1.0));
    let cut = f64::from(2 * (600 << 10) - (1 << 20));
    assert_eq!(collector.metric(&of_journal("logs_truncated_bytes_total", "")).await, Some(cut));
    assert_eq!(collector.metric(&of_journal("log_source_failures_total", "")).await, None);
    collector.stop().await;

    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("system.journal"), [&b"LPKSHHRH"[..], &[0xa5; 100_000]].concat()).unwrap();
    let collector = Collector::start("", &(source(folder.path(), "Journal") + &source(broken.path(), "Broken"))).await;
    collector.until(&of_journal("log_source_failures_total", ""), |failures| failures >= 1.0).await;
    collector.until(&sent("journal"), |count| count == 2.0).await;
    collector.stop().await;
}

/// An entry with a damaged field, and a named pipe, which a reader would wait at.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_of_a_journal_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    journal(&path("system.journal"), &["one", "two", "three"]);
    let mut bytes = std::fs::read(path("system.journal")).unwrap();
    let field = bytes.windows(11).position(|window| window == b"MESSAGE=two").unwrap();
    bytes[field + 7] = b'#';
    std::fs::write(path("system.journal"), bytes).unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe.journal")).status().unwrap().success());
    let tables = format!(
        "[[host-log]]\ndisable-kube-discovery = true\n[[host-log.journal-target]]\ndatabase = 'Logs'\ntable = 'Journal'\njournal-path = '{}'\n",
        folder.path().display()
    );
    let collector = Collector::start("", &tables).await;
    let dropped = "adxmon_collector_logs_dropped{source=\"journal\",stage=\"unreadable\"}";
    collector.until(dropped, |count| count == 1.0).await;
    collector.until(&sent("journal"), |count| count == 2.0).await;
    assert_eq!(collector.metric("adxmon_collector_log_source_failures_total{source=\"journal\"}").await, Some(1.0));
    collector.reload("", &format!("{tables}[otel-trace]\ndatabase = 'T'\n")).await.unwrap();
    let dir = collector.stop().await;
    journal(&path("user.journal"), &["four"]);
    let collector = Collector::start_in(dir, "", &tables).await;
    collector.until(&sent("journal"), |count| count == 1.0).await;
    let mut messages = crate::files::messages(&collector.stop().await);
    messages.sort();
    assert_eq!(messages, ["four", "one", "three"]);
}

/// A file that calls itself a journal and is none: it is counted, and what is not broken is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_journal_file_does_not_keep_others_from_being_read() {
    let folder = tempfile::tempdir().unwrap();
    journal(&folder.path().join("system.journal"), &["one"]);
    let mut broken = b"LPKSHHRH".to_vec();
    broken.resize(100_000, 0xa5);
    std::fs::write(folder.path().join("broken.journal"), broken).unwrap();
    let path = folder.path().display();
    let tables = format!(
        "[[host-log]]\ndisable-kube-discovery = true\n[[host-log.journal-target]]\ndatabase = 'Logs'\ntable = 'Journal'\njournal-path = '{path}'\n"
    );
    let collector = Collector::start("", &tables).await;
    collector.until(&sent("journal"), |count| count == 1.0).await;
    assert_eq!(collector.metric("adxmon_collector_log_source_failures_total{source=\"journal\"}").await, Some(1.0));
    collector.stop().await;
}

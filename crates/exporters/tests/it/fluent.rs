//! Fluent forward out of a buffer: the vector, acknowledgements, broken connections, TLS and the shared key.

use std::sync::Arc;
use std::time::Duration;

use exporters::fluent::{Destination, FluentConfig, FluentForward};
use rmpv::Value;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

use crate::support::{LONG, Rig, vector};

fn record(tag: Option<&str>, nanos: &str, body: serde_json::Value) -> serde_json::Value {
    let tag: Vec<_> = tag.iter().map(|tag| json!({"key": "tag", "value": {"stringValue": tag}})).collect();
    json!({"timeUnixNano": nanos, "attributes": tag, "body": {"kvlistValue": {"values": [body]}}})
}

fn text(n: usize) -> serde_json::Value {
    record(Some("t"), "1700000000000000000", json!({"key": "message", "value": {"stringValue": format!("line {n}")}}))
}

/// What comes in time.
async fn within<T>(what: impl Future<Output = std::io::Result<T>>) -> T {
    tokio::time::timeout(LONG, what).await.expect("nobody connects").unwrap()
}

async fn listen() -> (TcpListener, Destination) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = Destination::parse(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    (listener, destination)
}

/// The next message on a socket, read by rmpv.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        if let Ok(value) = rmpv::decode::read_value(&mut bytes.as_slice()) {
            return Some(value);
        }
        bytes.push(tokio::time::timeout(LONG, stream.read_u8()).await.expect("nothing comes").ok()?);
    }
}

fn lines(message: &Value) -> Vec<String> {
    let entries = message[1].as_array().unwrap();
    entries.iter().map(|entry| entry[1]["message"].as_str().unwrap().to_owned()).collect()
}

async fn acknowledge(stream: &mut (impl AsyncWrite + Unpin), message: &Value) {
    let mut ack = Vec::new();
    rmpv::encode::write_value(&mut ack, &Value::Map(vec![("ack".into(), message[2]["chunk"].clone())])).unwrap();
    stream.write_all(&ack).await.unwrap();
}

/// `exporters.json`: bytes of the reference; the log without a tag is skipped. Ours counts it as skipped, the reference as sent [D].
#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_are_those_of_the_vector() {
    let case = &vector("collector/exporters.json")["fluent_forward"];
    let hex = case["hex"].as_str().unwrap();
    let wanted: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let rig = Rig::new();
    let path = rig.dir.path().join("fluent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    rig.keep_logs(&json!([
        record(Some("b"), "1700000000123456789", json!({"key": "message", "value": {"stringValue": "one"}})),
        record(Some("a"), "1700000001000000000", json!({"key": "n", "value": {"intValue": "5"}})),
        record(Some("b"), "1700000002000000000", json!({"key": "f", "value": {"doubleValue": 1.5}})),
        record(None, "1700000003000000000", json!({"key": "message", "value": {"stringValue": "lost"}})),
    ]))
    .await;
    let destination = Destination::parse(&format!("unix://{}", path.display())).unwrap();
    let exporter = rig.start(FluentForward::new(FluentConfig::new(destination, case["tag_attribute"].as_str().unwrap())));
    let (mut stream, _) = within(listener.accept()).await;
    let mut got = vec![0; wanted.len()];
    tokio::time::timeout(LONG, stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, wanted);
    exporter.drain(LONG).await;
    assert_eq!((rig.sent(), rig.metric("skipped_total{name=\"ex\"}"), rig.failed()), (3.0, 1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_lasts_and_a_closed_one_is_replaced() {
    let (rig, (listener, destination)) = (Rig::new(), listen().await);
    let _exporter = rig.start(FluentForward::new(FluentConfig::new(destination, "tag")));
    rig.keep_logs(&json!([text(1)])).await;
    let (mut stream, _) = within(listener.accept()).await;
    assert_eq!(lines(&message(&mut stream).await.unwrap()), ["line 1"]);
    rig.keep_logs(&json!([text(2)])).await;
    assert_eq!(lines(&message(&mut stream).await.unwrap()), ["line 2"]);
    // The receiver restarts between two messages: nothing is written into the dead connection.
    drop(stream);
    rig.until("the count", |rig| rig.sent() == 2.0).await;
    rig.keep_logs(&json!([text(3)])).await;
    let (mut stream, _) = within(listener.accept()).await;
    assert_eq!(lines(&message(&mut stream).await.unwrap()), ["line 3"]);
}

/// Without the right acknowledgement a message is sent again, on a new connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_is_sent_again() {
    let (rig, (listener, destination)) = (Rig::new(), listen().await);
    let config = FluentConfig { acknowledge: Some(Duration::from_millis(300)), ..FluentConfig::new(destination, "tag") };
    let _exporter = rig.start(FluentForward::new(config));
    rig.keep_logs(&json!([text(1)])).await;
    // Silence.
    let (mut silent, _) = within(listener.accept()).await;
    let first = message(&mut silent).await.unwrap();
    assert_eq!((first[2]["size"].as_u64(), lines(&first)), (Some(1), vec!["line 1".to_owned()]));
    // Another chunk.
    let (mut stream, _) = within(listener.accept()).await;
    message(&mut stream).await.unwrap();
    acknowledge(&mut stream, &first).await;
    // A torn connection.
    let (mut stream, _) = within(listener.accept()).await;
    message(&mut stream).await.unwrap();
    drop(stream);
    let (mut stream, _) = within(listener.accept()).await;
    let last = message(&mut stream).await.unwrap();
    assert_eq!((rig.sent(), lines(&last)), (0.0, vec!["line 1".to_owned()]));
    acknowledge(&mut stream, &last).await;
    rig.until_empty().await;
    assert_eq!((rig.sent(), rig.metric("retries_total{name=\"ex\"}")), (1.0, 3.0));
}

/// Where a record goes can be its tag, though the column Attributes does not hold it.
#[tokio::test(flavor = "multi_thread")]
async fn the_destination_can_be_the_tag() {
    for (attribute, tag) in [("adxmon_destination_database", "Logs"), ("adxmon_destination_table", "App")] {
        let (rig, (listener, destination)) = (Rig::new(), listen().await);
        rig.keep_logs(&json!([text(1)])).await;
        let _exporter = rig.start(FluentForward::new(FluentConfig::new(destination, attribute)));
        let (mut stream, _) = within(listener.accept()).await;
        assert_eq!(message(&mut stream).await.unwrap()[0].as_str(), Some(tag));
    }
}

/// The receiver's side of the handshake, from the protocol's specification.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_key_is_proved_over_tls() {
    use sha2::{Digest as _, Sha512};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let server = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    for knows_key in [false, true] {
        let rig = Rig::new();
        let (ca, shared) = (rig.dir.path().join("ca.pem"), rig.dir.path().join("key"));
        std::fs::write(&ca, made.cert.pem()).unwrap();
        std::fs::write(&shared, "secret\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let destination = Destination::parse(&format!("tls://localhost:{}", listener.local_addr().unwrap().port())).unwrap();
        let config = FluentConfig { ca_file: Some(ca), shared_key_file: Some(shared), ..FluentConfig::new(destination, "tag") };
        let exporter = rig.start(FluentForward::new(config));
        rig.keep_logs(&json!([text(1)])).await;
        let mut stream = acceptor.accept(within(listener.accept()).await.0).await.unwrap();
        let mut helo = Vec::new();
        let options =
            vec![("nonce".into(), Value::Binary(b"0123456789".to_vec())), ("auth".into(), "".into()), ("keepalive".into(), true.into())];
        rmpv::encode::write_value(&mut helo, &Value::Array(vec!["HELO".into(), Value::Map(options)])).unwrap();
        stream.write_all(&helo).await.unwrap();
        let ping = message(&mut stream).await.unwrap();
        let salt = ping[2].as_slice().unwrap().to_vec();
        let digest =
            |host: &str, key: &str| hex(&Sha512::digest([salt.as_slice(), host.as_bytes(), b"0123456789", key.as_bytes()].concat()));
        assert_eq!((ping[0].as_str(), ping[3].as_str()), (Some("PING"), Some(digest(ping[1].as_str().unwrap(), "secret").as_str())));
        let proof = digest("server", if knows_key { "secret" } else { "guess" });
        let mut pong = Vec::new();
        let answer = vec!["PONG".into(), true.into(), "".into(), "server".into(), proof.as_str().into()];
        rmpv::encode::write_value(&mut pong, &Value::Array(answer)).unwrap();
        stream.write_all(&pong).await.unwrap();
        if knows_key {
            assert_eq!(lines(&message(&mut stream).await.unwrap()), ["line 1"]);
        } else {
            rig.until("the refusal", |_| exporter.status().failing.is_some()).await;
            let why = exporter.status().failing.unwrap();
            assert!(why.contains("does not know the shared key") && !why.contains("secret"), "{why}");
        }
    }
}

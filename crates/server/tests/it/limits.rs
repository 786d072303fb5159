//! What a connection may do with its time, and how many there may be.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Server, client};

/// Longer than any limit of these tests, shorter than patience.
const PATIENCE: Duration = Duration::from_secs(20);

fn short(header_ms: u64, idle_ms: u64) -> Limits {
    Limits { header_timeout: Duration::from_millis(header_ms), idle_timeout: Duration::from_millis(idle_ms), ..Limits::default() }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// Reads until the server closes.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    // A reset is a close, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("the server did not close the connection");
    got
}

#[tokio::test]
async fn a_header_that_does_not_end_closes_the_connection() {
    let server = Server::start(hello(), short(100, 60_000)).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    assert!(closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn a_header_timeout_does_not_end_idle_connections() {
    let server = Server::start(hello(), short(500, 60_000)).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    for idle in [0, 700, 700] {
        tokio::time::sleep(Duration::from_millis(idle)).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0u8; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = Vec::new();
        while !rest.ends_with(b"hello") {
            assert!(stream.read_buf(&mut rest).await.unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn silent_and_idle_connections_are_closed() {
    let server = Server::start(hello(), short(60_000, 100)).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    assert!(closed(&mut silent).await.is_empty());
    let mut used = TcpStream::connect(server.addr).await.unwrap();
    used.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(closed(&mut used).await.ends_with(b"hello"));
}

#[tokio::test]
async fn surplus_connections_are_closed_and_places_come_back() {
    let server = Server::start(hello(), Limits { max_connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0u8; 1];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    assert!(closed(&mut second).await.is_empty());
    drop(first);
    let again = async {
        loop {
            if let Ok(response) = client().get(server.url("/")).send().await {
                return response.status();
            }
        }
    };
    assert_eq!(timeout(PATIENCE, again).await.unwrap(), 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_503_with_retry_after() {
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let server = Server::start(router, Limits { request_timeout: Duration::from_millis(50), ..Limits::default() }).await;
    let response = client().get(server.url("/")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn shutdown_waits_for_running_requests_and_refuses_new_ones() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (e, r) = (Arc::clone(&entered), Arc::clone(&release));
    let handler = move || {
        let (e, r) = (Arc::clone(&e), Arc::clone(&r));
        async move {
            e.notify_one();
            r.notified().await;
            "done"
        }
    };
    let mut server = Server::start(Router::new().route("/", get(handler)), Limits::default()).await;
    let url = server.url("/");
    let request = tokio::spawn(async move { client().get(url).send().await.unwrap().text().await.unwrap() });
    entered.notified().await;
    server.shutdown.cancel();
    while TcpStream::connect(server.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    assert_eq!(request.await.unwrap(), "done");
    timeout(PATIENCE, &mut server.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_and_tls_too() {
    let server = Server::start(hello(), Limits::default()).await;
    server::install_crypto();
    let h2 = reqwest::Client::builder().http2_prior_knowledge().tls_danger_accept_invalid_certs(true).build().unwrap();
    let response = h2.get(server.url("/")).send().await.unwrap();
    assert_eq!((response.version(), response.text().await.unwrap().as_str()), (reqwest::Version::HTTP_2, "hello"));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let tls = server::Tls::self_signed(&["localhost".to_owned()]).unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let served = tokio::spawn(server::serve(listener, hello(), Limits::default(), Some(tls), shutdown.clone()));
    assert_eq!(client().get(url).send().await.unwrap().text().await.unwrap(), "hello");
    shutdown.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_never_sends_is_closed_like_one_whose_header_does_not_end() {
    let server = Server::start(hello(), short(100, 60_000)).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    assert!(closed(&mut silent).await.is_empty());
}

/// Bytes that trickle do not buy time.
#[tokio::test]
async fn a_slow_header_is_cut_off() {
    let server = Server::start(hello(), short(200, 60_000)).await;
    let (mut read, mut write) = TcpStream::connect(server.addr).await.unwrap().into_split();
    write.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let trickle = async {
        while write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut got = Vec::new();
    tokio::select! {
        // A reset is a close, too.
        _ = timeout(PATIENCE, read.read_to_end(&mut got)) => {}
        () = trickle => {}
    }
    assert!(got.is_empty());
}

/// Many connections that say nothing take places only until their time is over.
#[tokio::test]
async fn half_open_connections_do_not_keep_others_out() {
    let limits = Limits { max_connections: 100, ..short(300, 60_000) };
    let server = Server::start(hello(), limits).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let answered = async {
        loop {
            if let Ok(response) = client().get(server.url("/")).send().await {
                return response.status();
            }
        }
    };
    assert_eq!(timeout(PATIENCE, answered).await.unwrap(), 200);
    for stream in &mut silent {
        closed(stream).await;
    }
}

/// A body that stops coming is given up after its time, however long the request may take.
#[tokio::test]
async fn a_body_that_stops_is_408() {
    let (server, stored) = crate::support::receivers_with(Limits { body_timeout: Duration::from_millis(200), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"POST /receive HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc").await.unwrap();
    let answer = String::from_utf8(closed(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("nothing of the request body came"), "{answer}");
    assert!(stored.rows.lock().unwrap().is_empty());
}

/// As long as something comes, the time begins anew.
#[tokio::test]
async fn a_slow_body_that_keeps_coming_is_read() {
    let (server, stored) = crate::support::receivers_with(Limits { body_timeout: Duration::from_millis(1000), ..Limits::default() }).await;
    let labels = vec![("__name__".to_owned(), "up".to_owned())];
    let body = telemetry::client::remote_write_body(&[telemetry::client::Series { labels, samples: vec![(1, 1.0)] }]);
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = format!("POST /receive HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in body.chunks(body.len().div_ceil(4)) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        stream.write_all(piece).await.unwrap();
    }
    assert!(closed(&mut stream).await.starts_with(b"HTTP/1.1 202 "));
    assert!(!stored.table("Metrics.Up").is_empty());
}

#[tokio::test]
async fn headers_over_their_limit_are_431() {
    let server = Server::start(hello(), Limits::default()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let (mut read, mut write) = stream.split();
    let flood = async {
        let _ = write.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await;
        let line = format!("X-Long: {}\r\n", "a".repeat(8000));
        while write.write_all(line.as_bytes()).await.is_ok() {}
    };
    let mut got = Vec::new();
    tokio::select! {
        // A reset is a close, too.
        _ = timeout(PATIENCE, read.read_to_end(&mut got)) => {}
        () = flood => { let _ = timeout(PATIENCE, read.read_to_end(&mut got)).await; }
    }
    assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&got));
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await.unwrap();
    assert!(closed(&mut stream).await.starts_with(b"HTTP/1.1 431 "));
}

async fn h2_connection(server: &Server) -> (h2::client::SendRequest<bytes::Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (sender, connection) = h2::client::Builder::new().initial_max_send_streams(100_000).handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn h2_request(server: &Server, value: &str) -> http::Request<()> {
    http::Request::get(server.url("/")).header("x-value", value).body(()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_headers_over_their_limit_are_431() {
    let server = Server::start(hello(), Limits::default()).await;
    let (sender, _connection) = h2_connection(&server).await;
    let mut sender = sender.ready().await.unwrap();
    let (answer, _) = sender.send_request(h2_request(&server, &"a".repeat(100_000)), true).unwrap();
    match timeout(PATIENCE, answer).await.unwrap() {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    let (answer, _) = sender.send_request(h2_request(&server, "small"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// CVE-2023-44487: streams that are opened and reset at once cost the client little, and the server must not pay more.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection_and_nobody_elses() {
    let router = Router::new().route("/", get(|| async { "hello" })).route("/wait", get(std::future::pending::<()>));
    let server = Server::start(router, Limits::default()).await;
    let (sender, connection) = h2_connection(&server).await;
    let flood = async {
        let mut sender = sender;
        for _ in 0..200_000 {
            let Ok(mut ready) = sender.ready().await else { return };
            let request = http::Request::get(server.url("/wait")).body(()).unwrap();
            let Ok((_, mut stream)) = ready.send_request(request, false) else { return };
            stream.send_reset(h2::Reason::CANCEL);
            sender = ready;
        }
    };
    timeout(PATIENCE, flood).await.unwrap();
    let ended = timeout(PATIENCE, connection).await.expect("the connection goes on").unwrap().unwrap_err();
    // The server says why before it closes; a client that is still writing may find it closed before it has read that.
    assert!(ended.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) || ended.is_io(), "{ended}");
    assert_eq!(client().get(server.url("/")).send().await.unwrap().status(), 200);
}

/// Streams beyond the limit wait at the client; a client that does not care is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_so_many_streams_and_no_more() {
    let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&running);
    let wait = move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::future::pending::<()>()
    };
    let server = Server::start(Router::new().route("/wait", get(wait)), Limits::default()).await;
    let (mut sender, _connection) = h2_connection(&server).await;
    let mut answers = Vec::new();
    for _ in 0..1000 {
        let request = http::Request::get(server.url("/wait")).body(()).unwrap();
        match sender.send_request(request, true) {
            Ok((answer, _)) => answers.push(answer),
            Err(_) => break,
        }
    }
    let full = async {
        while running.load(std::sync::atomic::Ordering::Relaxed) < 128 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, full).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(running.load(std::sync::atomic::Ordering::Relaxed), 128);
}

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

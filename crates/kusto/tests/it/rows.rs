//! Rows one by one, from a service that makes its answer while it is read.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use kusto::{Client, QueryOptions, RetryPolicy};
use serde_json::json;

use crate::fake::{Fake, Reply};

const START: &str = r#"[{"FrameType":"DataSetHeader","IsProgressive":false,"Version":"v2.0"},{"FrameType":"DataTable","TableId":1,"TableKind":"PrimaryResult","TableName":"PrimaryResult","Columns":[{"ColumnName":"n","ColumnType":"long"},{"ColumnName":"text","ColumnType":"string"}],"Rows":["#;
const END: &str = r#"]},{"FrameType":"DataSetCompletion","HasErrors":false,"Cancelled":false}]"#;
const FAILED: &str = r#"]},{"FrameType":"DataSetCompletion","HasErrors":true,"Cancelled":false,"OneApiErrors":[{"error":{"code":"E_LATE","@message":"memory","@permanent":false}}]}]"#;

/// A service whose answer is `rows` rows and `end`; counts the bytes it has made.
async fn service(rows: usize, end: &'static str) -> (Client, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = made.clone();
    let router = Router::new().fallback(move || async move {
        let row = move |n: usize| format!("{}[{n},\"{}\"]", if n == 0 { "" } else { "," }, "x".repeat(1000));
        let chunks = std::iter::once(START.to_owned()).chain((0..rows).map(row)).chain(std::iter::once(end.to_owned()));
        let chunks = chunks.map(move |text| {
            counter.fetch_add(text.len(), Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from(text))
        });
        Body::from_stream(futures::stream::iter(chunks))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    // Less than the answer: the limit on whole answers is not one on streams.
    (Client::builder(&url).max_answer_bytes(1 << 20).build().unwrap(), made)
}

/// The service cannot run ahead of the reader by more than the sockets hold, so nothing piles up.
#[tokio::test]
async fn a_long_answer_is_not_read_ahead() {
    let (client, made) = service(60_000, END).await;
    let mut rows = client.query_rows("d", "T", &QueryOptions::default()).await.unwrap();
    assert_eq!(rows.columns().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["n", "text"]);
    let (mut taken, mut ahead) = (0, 0);
    while let Some(row) = rows.next().await.unwrap() {
        assert_eq!(row[0], json!(taken));
        taken += 1;
        ahead = ahead.max(made.load(Ordering::Relaxed).saturating_sub(taken * 1000));
    }
    assert_eq!(taken, 60_000);
    assert!(made.load(Ordering::Relaxed) > 60_000_000);
    assert!(ahead < 20_000_000, "{ahead} bytes were made before they were asked for");
}

#[tokio::test]
async fn a_failure_behind_the_last_row_is_seen() {
    let (client, _) = service(10, FAILED).await;
    let mut rows = client.query_rows("d", "T", &QueryOptions::default()).await.unwrap();
    for _ in 0..10 {
        assert!(rows.next().await.unwrap().is_some());
    }
    let error = rows.next().await.unwrap_err();
    assert_eq!((error.code.as_str(), error.is_transient()), ("E_LATE", true));
}

#[tokio::test]
async fn refusals_are_repeated_until_rows_come_and_mistakes_are_not() {
    const ONE_ROW: &str = r#"[{"FrameType":"DataTable","TableId":0,"TableKind":"PrimaryResult","Columns":[{"ColumnName":"x","ColumnType":"string"}],"Rows":[["y"]]},{"FrameType":"DataSetCompletion","HasErrors":false}]"#;
    let fake = Fake::start([
        Reply::Status(503, &[], ""),
        Reply::Json(r#"[{"FrameType":"DataSetHeader"}"#),
        Reply::Json(ONE_ROW),
        Reply::Status(400, &[], r#"{"error":{"code":"General_BadRequest","@permanent":true,"innererror":{"code":"SEM0100"}}}"#),
    ])
    .await;
    let retry = RetryPolicy { attempts: 3, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(2) };
    let client = Client::builder(&fake.url).retry(retry).build().unwrap();
    let options = QueryOptions { options: vec![("notruncation".into(), json!(true))], ..QueryOptions::default() };
    let mut rows = client.query_rows("d", "T", &options).await.unwrap();
    assert_eq!((rows.next().await.unwrap(), rows.next().await.unwrap()), (Some(vec![json!("y")]), None));
    assert_eq!(fake.asked(), 3);
    let error = client.query_rows("d", "T", &options).await.unwrap_err();
    assert_eq!((error.code.as_str(), fake.asked()), ("SEM0100", 4));
    let asked: serde_json::Value = serde_json::from_slice(&fake.asked.lock().unwrap()[0].body).unwrap();
    assert_eq!(asked["properties"]["Options"]["notruncation"], true);
}

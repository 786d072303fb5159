use std::io::Read as _;
use std::time::Duration;

use kusto::{BatchId, Client, Delivery, Kind, QueryOptions, RetryPolicy, StreamOptions};
use serde_json::{Value, json};

use crate::fake::{Fake, Reply};

const EMPTY_V1: &str = r#"{"Tables":[{"TableName":"Table_0","Columns":[],"Rows":[]}]}"#;
const ONE_ROW: &str = r#"[{"FrameType":"DataSetHeader","IsProgressive":false,"Version":"v2.0"}
,{"FrameType":"DataTable","TableId":0,"TableKind":"PrimaryResult","TableName":"PrimaryResult","Columns":[{"ColumnName":"x","ColumnType":"string"}],"Rows":[["y"]]}
,{"FrameType":"DataSetCompletion","HasErrors":false,"Cancelled":false}
]"#;

fn client(fake: &Fake) -> Client {
    let retry = RetryPolicy { attempts: 3, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(2) };
    Client::builder(&fake.url).retry(retry).build().unwrap()
}

#[tokio::test]
async fn a_query_sends_database_text_deadline_and_parameters() {
    let fake = Fake::start([Reply::Json(ONE_ROW)]).await;
    let options = QueryOptions {
        timeout: Duration::from_secs(90),
        parameters: vec![("p".into(), "\"v\"".into())],
        options: vec![("truncationmaxrecords".into(), json!(7))],
    };
    let data = client(&fake).query("Metrics", "T | take 1", &options).await.unwrap();
    assert_eq!(data.primary().unwrap().text(0, "x"), Some("y"));

    let asked = fake.asked.lock().unwrap();
    assert_eq!(asked[0].uri.path(), "/v2/rest/query");
    assert!(asked[0].headers.get("authorization").is_none());
    assert!(asked[0].headers["x-ms-client-request-id"].to_str().unwrap().starts_with("ADXMon.execute;"));
    let body: Value = serde_json::from_slice(&asked[0].body).unwrap();
    assert_eq!((&body["db"], &body["csl"]), (&json!("Metrics"), &json!("T | take 1")));
    assert_eq!(body["properties"]["Parameters"], json!({"p": "\"v\""}));
    assert_eq!(body["properties"]["Options"]["truncationmaxrecords"], 7);
    let timeout = body["properties"]["Options"]["servertimeout"].as_str().unwrap().to_owned();
    assert!(timeout.starts_with("00:01:29.") || timeout == "00:01:30", "{timeout}");
}

#[tokio::test]
async fn transient_failures_are_repeated_and_permanent_ones_are_not() {
    let fake = Fake::start([
        Reply::Status(503, &[], ""),
        Reply::Status(429, &[("retry-after", "0")], ""),
        Reply::Json(ONE_ROW),
        Reply::Status(400, &[], r#"{"error":{"code":"General_BadRequest","@message":"Syntax error: SYN0002 [line:position=1:3]","@permanent":true,"innererror":{"code":"SYN0002"}}}"#),
    ])
    .await;
    let client = client(&fake);
    client.query("d", "print 1", &QueryOptions::default()).await.unwrap();
    assert_eq!(fake.asked(), 3);
    let error = client.query("d", "x", &QueryOptions::default()).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.kind), ("SYN0002", Kind::Permanent));
    assert_eq!(error.position.map(|p| (p.line, p.column)), Some((1, 3)));
    assert_eq!(fake.asked(), 4);
}

#[tokio::test]
async fn a_command_that_may_have_run_is_not_repeated_unless_it_is_harmless() {
    let fake = Fake::start([
        Reply::Status(500, &[], ""),
        Reply::Status(429, &[], ""),
        Reply::Json(EMPTY_V1),
        Reply::Status(500, &[], ""),
        Reply::Json(EMPTY_V1),
    ])
    .await;
    let client = client(&fake);
    let error = client.mgmt("d", ".ingest inline into table T <| 1").await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (Kind::Transient, Delivery::Unknown));
    client.mgmt("d", ".ingest inline into table T <| 1").await.unwrap();
    assert_eq!(fake.asked(), 3);
    client.mgmt("d", ".create-merge table ['T'] ()").await.unwrap();
    assert_eq!(fake.asked(), 5);
}

#[tokio::test]
async fn the_pause_that_the_service_asks_for_is_not_cut_short() {
    let fake = Fake::start([Reply::Status(429, &[("retry-after", "30")], ""), Reply::Json(ONE_ROW)]).await;
    // Half a minute does not fit into the deadline, so the error comes back at once with it.
    let options = QueryOptions { timeout: Duration::from_secs(20), ..QueryOptions::default() };
    let error = client(&fake).query("d", "x", &options).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(30)));
    assert_eq!(fake.asked(), 1);
}

#[tokio::test]
async fn streaming_names_mapping_and_batch_and_compresses() {
    let fake = Fake::start([Reply::Json("{}"), Reply::Status(404, &[], "")]).await;
    let client = client(&fake);
    let options = StreamOptions { mapping: Some("T_1".into()), batch_id: Some(BatchId([0xab; 16])), ..StreamOptions::default() };
    client.ingest_streaming("Da ta", "T", "1,2\n".into(), options.clone()).await.unwrap();
    {
        let asked = fake.asked.lock().unwrap();
        assert_eq!(asked[0].uri.path(), "/v1/rest/ingest/Da%20ta/T");
        assert_eq!(asked[0].uri.query(), Some("streamFormat=Csv&mappingName=T_1"));
        assert_eq!(asked[0].headers["x-adxmon-batch-id"], "ab".repeat(16));
        assert_eq!(asked[0].headers["content-encoding"], "gzip");
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&asked[0].body[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, "1,2\n");
    }
    let error = client.ingest_streaming("d", "T", "1\n".into(), options).await.unwrap_err();
    assert_eq!((error.kind, error.status), (Kind::Permanent, Some(404)));
}

/// Rows are given up by the caller after a success, so only the service itself may report one.
#[tokio::test]
async fn streamed_rows_are_acknowledged_by_the_service_only() {
    let fake = Fake::start([
        Reply::Status(200, &[("content-type", "text/html")], "<html>sign in</html>"),
        Reply::Json(r#"{"error":{"code":"General_InternalServerError","@message":"no","@permanent":false}}"#),
        Reply::Json(""),
    ])
    .await;
    let client = client(&fake);
    for code in ["BAD_ANSWER", "General_InternalServerError"] {
        let error = client.ingest_streaming("d", "T", "1\n".into(), StreamOptions::default()).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.kind, error.delivery), (code, Kind::Transient, Delivery::Unknown));
    }
    client.ingest_streaming("d", "T", "1\n".into(), StreamOptions::default()).await.unwrap();
    assert_eq!(fake.asked(), 3);
}

#[tokio::test]
async fn failures_inside_an_answer_are_failures() {
    let fake = Fake::start([
        Reply::Json(r#"[{"FrameType":"DataSetCompletion","HasErrors":true,"Cancelled":false,"OneApiErrors":[{"error":{"code":"LimitsExceeded","@message":"too much","@permanent":true}}]}]"#),
        Reply::Json(r#"[{"FrameType":"DataSetCompletion","HasErrors":false,"Cancelled":true}]"#),
        Reply::Json(r#"{"Tables":[],"Exceptions":["Query was throttled"]}"#),
    ])
    .await;
    let client = client(&fake);
    let error = client.query("d", "x", &QueryOptions::default()).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.kind), ("LimitsExceeded", Kind::Permanent));
    assert!(client.query("d", "x", &QueryOptions::default()).await.unwrap_err().is_transient());
    assert!(client.mgmt("d", ".ingest inline into table T <| 1").await.unwrap_err().message.contains("throttled"));
}

#[tokio::test]
async fn a_refusal_with_an_endless_body_is_still_a_refusal() {
    static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "x".repeat(2 << 20));
    let fake = Fake::start([Reply::Status(400, &[], LONG.as_str())]).await;
    let error = client(&fake).query("d", "x", &QueryOptions::default()).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.kind, error.status), ("HTTP_400", Kind::Permanent, Some(400)));
}

#[tokio::test]
async fn nobody_there_is_transient_and_known_not_to_have_run() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::builder(&url).retry(RetryPolicy::none()).build().unwrap();
    let error = client.ingest_streaming("d", "T", "1\n".into(), StreamOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (Kind::Transient, Delivery::NotExecuted));
    assert_eq!(error.code, "CONNECT");
}

#[tokio::test]
async fn dropping_a_call_closes_its_connection() {
    let (held, gone) = tokio::sync::oneshot::channel();
    let fake = Fake::start([Reply::Hang(held)]).await;
    let client = client(&fake);
    let call = tokio::spawn(async move { client.query("d", "x", &QueryOptions::default()).await });
    while fake.asked() == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    // The service's side of the request ends, which drops the sender.
    assert!(tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap().is_err());
}

#[tokio::test]
async fn an_answer_too_large_is_refused() {
    let fake = Fake::start([Reply::Json(ONE_ROW)]).await;
    let client = Client::builder(&fake.url).max_answer_bytes(100).build().unwrap();
    let error = client.query("d", "x", &QueryOptions::default()).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.kind), ("ANSWER_TOO_LARGE", Kind::Permanent));
}

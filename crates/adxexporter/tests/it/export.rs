//! One window from a Kusto to a receiver.

use std::sync::atomic::Ordering;
use std::time::Duration;

use adxexporter::export::{Counts, ExportError, Job, export};
use adxexporter::push::{Bounds, PushConfig, Pusher, RetryPolicy};
use adxexporter::transform::Transform;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fake_kusto::{Answer, FakeKusto};
use crate::receiver::{Receiver, Reply, gauge};

const COLUMNS: [(&str, &str); 3] = [("at", "datetime"), ("n", "long"), ("host", "string")];

fn row(n: usize) -> Value {
    json!([format!("2024-05-01T10:00:00.{:03}Z", n % 1000), n, "a"])
}

fn job() -> Job {
    Job {
        database: "Metrics".into(),
        query: "let _startTime=datetime(2024-05-01);\nT".into(),
        lines_before_body: 1,
        transform: Transform {
            default_metric_name: Some("m".into()),
            value_columns: vec!["n".into()],
            timestamp_column: "at".into(),
            label_columns: vec!["host".into(), "pod".into()],
            ..Transform::default()
        },
        default_time: "2024-05-01T11:00:00Z".parse().unwrap(),
        timeout: Duration::from_secs(60),
    }
}

fn pusher(receiver: &Receiver, points: usize) -> Pusher {
    let ms = Duration::from_millis;
    let retry = RetryPolicy { first_pause: ms(1), longest_pause: ms(2), total: ms(500) };
    let bounds = Bounds { points, ..Bounds::default() };
    Pusher::new(PushConfig { bounds, retry, ..PushConfig::new(&receiver.http_url()) }).unwrap()
}

async fn run(kusto: &FakeKusto, receiver: &Receiver, points: usize) -> (Result<(), ExportError>, Counts) {
    let mut counts = Counts::default();
    let result = export(&kusto.client(), &pusher(receiver, points), &job(), &mut counts).await;
    (result, counts)
}

#[tokio::test]
async fn rows_arrive_as_points_and_the_services_own_limit_is_off() {
    let kusto = FakeKusto::start(|_| Answer::made(&COLUMNS, 3, row)).await;
    let receiver = Receiver::start([]).await;
    let (result, counts) = run(&kusto, &receiver, 100).await;
    result.unwrap();
    let base = 1_714_557_600_000_000_000;
    let wanted: Vec<_> = (0..3).map(|n| ("m_n".to_owned(), base + n * 1_000_000, n as f64)).collect();
    assert_eq!(receiver.metrics().iter().map(gauge).collect::<Vec<_>>(), wanted);
    assert_eq!(counts, Counts { rows: 3, points: 3, missing_labels: vec!["pod".into()], ..Counts::default() });
    let asked = kusto.asked();
    assert_eq!((asked[0].database.as_str(), &asked[0].options["notruncation"]), ("Metrics", &json!(true)));
    assert_eq!(asked[0].query, job().query);
}

/// The reference gives up at 50,000 rows. Ours gets no more rows than a batch, and the one that does not fit into it any more,
/// before it has pushed them, and needs no more.
/// That the client reads nothing ahead of those who take its rows is shown in its own tests (`a_long_answer_is_not_read_ahead`).
#[tokio::test]
async fn a_result_of_any_length_needs_memory_for_one_batch() {
    const BATCH: usize = 1000;
    const ROWS: usize = 30 * BATCH;
    let (allow, allowed) = watch::channel(BATCH + 1);
    let kusto = FakeKusto::start(move |_| Answer::made(&COLUMNS, ROWS, row).allowed_by(allowed.clone())).await;
    let receiver = Receiver::start([]).await;
    let ahead = receiver.on_batch({
        let made = kusto.made.clone();
        move |points_before| {
            let ahead = made.load(Ordering::Relaxed) - points_before;
            allow.send_replace(points_before + 2 * BATCH + 1);
            ahead
        }
    });
    let (result, counts) = tokio::time::timeout(Duration::from_secs(120), run(&kusto, &receiver, BATCH)).await.unwrap();
    result.unwrap();
    assert_eq!((counts.rows, counts.points), (ROWS as u64, ROWS as u64));
    assert_eq!((receiver.tries(), *ahead.lock().unwrap()), (ROWS / BATCH, BATCH + 1));
}

#[tokio::test]
async fn a_bad_row_costs_a_row_and_the_first_reason_is_kept() {
    let rows = vec![row(0), json!(["2024-05-01T10:00:00Z", null, "a"]), row(2), json!([null, 1, "a"])];
    let kusto = FakeKusto::start(move |_| Answer::rows(&COLUMNS, rows.clone())).await;
    let receiver = Receiver::start([]).await;
    let (result, counts) = run(&kusto, &receiver, 100).await;
    result.unwrap();
    assert_eq!((counts.rows, counts.skipped, counts.points, receiver.metrics().len()), (4, 2, 2, 2));
    assert!(counts.first_skipped.unwrap().starts_with("row 2, column \"n\": the value is null"));
}

#[tokio::test]
async fn a_failure_behind_the_rows_fails_the_run_though_batches_went_out() {
    let kusto = FakeKusto::start(|_| Answer::made(&COLUMNS, 25, row).failing_late()).await;
    let receiver = Receiver::start([]).await;
    let (result, counts) = run(&kusto, &receiver, 10).await;
    assert!(matches!(result, Err(ExportError::Query { .. })));
    assert_eq!((counts.rows, counts.points), (25, 20));
    // The run that succeeds sends the same points again, with the same times.
    kusto.answer_with(|_| Answer::made(&COLUMNS, 25, row));
    run(&kusto, &receiver, 10).await.0.unwrap();
    let metrics = receiver.metrics();
    assert_eq!(metrics[..20], metrics[20..40]);
    assert_eq!(metrics.len(), 45);
}

#[tokio::test]
async fn a_receiver_that_refuses_ends_the_run_and_counts_its_points() {
    let kusto = FakeKusto::start(|_| Answer::made(&COLUMNS, 25, row)).await;
    let receiver = Receiver::start([Reply::Partial(3, "too old"), Reply::Http(400, None, Vec::new())]).await;
    let (result, counts) = run(&kusto, &receiver, 10).await;
    assert!(matches!(result, Err(ExportError::Push(_))));
    assert_eq!((counts.points, counts.rejected, counts.failed), (7, 3, 10));
    assert_eq!(counts.receiver_said.as_deref(), Some("too old"));
}

#[tokio::test]
async fn mistakes_are_placed_in_the_users_own_text() {
    let kusto = FakeKusto::start(|_| Answer::refusal(400, "SEM0100", "no such column [line:position=2:7]", true)).await;
    let receiver = Receiver::start([]).await;
    let error = run(&kusto, &receiver, 10).await.0.unwrap_err().to_string();
    assert!(error.starts_with("line 1, column 7 of the body: SEM0100: "), "{error}");
}

#[tokio::test]
async fn results_without_rows_or_without_the_columns() {
    let kusto = FakeKusto::start(|_| Answer::rows(&[("other", "long")], Vec::new())).await;
    let receiver = Receiver::start([]).await;
    let (result, counts) = run(&kusto, &receiver, 10).await;
    result.unwrap();
    assert_eq!((counts, receiver.tries()), (Counts::default(), 0));
    kusto.answer_with(|_| Answer::rows(&[("other", "long")], vec![json!([1])]));
    let error = run(&kusto, &receiver, 10).await.0.unwrap_err().to_string();
    assert_eq!(error, "value column \"n\" is not in the query's result, which has other");
}

/// The service sends some rows and then nothing more, on a connection that stays open: the deadline ends the run.
#[tokio::test]
async fn an_answer_that_stands_still_ends_at_the_deadline() {
    let kusto = FakeKusto::start(|_| Answer::made(&COLUMNS, 25, row).hanging_after(15)).await;
    let receiver = Receiver::start([]).await;
    let exporting = tokio::spawn({
        let (client, pusher) = (kusto.client(), pusher(&receiver, 10));
        async move {
            let mut counts = Counts::default();
            let start = tokio::time::Instant::now();
            let result = export(&client, &pusher, &job(), &mut counts).await;
            (result, counts, start.elapsed())
        }
    });
    receiver.until_batches(1).await;
    // Nothing is on its way any more: time runs on to the deadline.
    tokio::time::pause();
    let (result, counts, took) = exporting.await.unwrap();
    let error = result.unwrap_err().to_string();
    assert!(error.contains("the answer did not end within 60s"), "{error}");
    assert_eq!(counts.points, 10, "what was pushed stays pushed; {counts:?}");
    assert!(took >= Duration::from_secs(60) && took < Duration::from_secs(90), "{took:?}");
}

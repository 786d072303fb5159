use std::net::SocketAddr;
use std::time::Duration;

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::{NARROW, WIDE, client, image, ledger, start};

#[tokio::test(flavor = "multi_thread")]
async fn segments_become_tables_that_widen_and_rows() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    let name = "Metrics_Cpu_aaa_2f5d0c3e517e4001.wal";
    assert_eq!(process.post(name, image(NARROW, "t1,1\nt2,2\n")).await, 202);
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    let name = "Metrics_Cpu_bbb_2f5d0c3e517e4002.wal";
    assert_eq!(process.post(name, image(WIDE, "t3,3,h\n")).await, 202);
    kusto.wait(|seen| seen.rows["Metrics.Cpu"].len() == 3).await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1", "t2,2", "t3,3,h"]);

    let commands = kusto.seen.lock().commands.clone();
    let position = |part: &str| commands.iter().position(|c| c.starts_with(part)).unwrap_or_else(|| panic!("{part}: {commands:?}"));
    let functions = position(".create-or-alter function prom_increase");
    assert!(functions < position(".create-or-alter function prom_rate"));
    assert!(functions < position(".create-merge table ['Cpu'] (['Timestamp']:datetime, ['Value']:real)"));
    position(".create-merge table ['Cpu'] (['Timestamp']:datetime, ['Value']:real, ['Host']:string)");
    assert_eq!(commands.iter().filter(|c| c.contains("ingestion csv mapping")).count(), 2);
    assert_eq!(kusto.rows("Metrics.Cpu mapped"), ["Timestamp=t1 Value=1", "Timestamp=t2 Value=2", "Timestamp=t3 Value=3 Host=h"]);
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_makes_no_duplicates_with_a_service_that_remembers() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().lose_answers = 1;
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    process.post("Metrics_Cpu_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await;
    kusto.wait(|seen| seen.batches.len() == 2).await;
    let batches = kusto.seen.lock().batches.clone();
    assert_eq!(batches[0], batches[1]);
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1"]);
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_sends_exactly_the_same_batch() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().lose_answers = usize::MAX;
    let process = start(dir.path(), &[("Metrics", &kusto)], |c| c.grace = Duration::ZERO).await;
    process.post("Metrics_Cpu_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await;
    kusto.wait(|seen| !seen.batches.is_empty()).await;
    process.finish().await;
    kusto.faults.lock().lose_answers = 0;
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    let before = kusto.seen.lock().batches.len();
    kusto.wait(|seen| seen.batches.len() > before).await;
    process.finish().await;
    let batches = kusto.seen.lock().batches.clone();
    assert!(batches.iter().all(|id| *id == batches[0]), "{batches:?}");
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_database_does_not_stop_a_healthy_one() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, healthy) = (FakeKusto::start(Kind::Kustd).await, FakeKusto::start(Kind::Kustd).await);
    sick.faults.lock().down = true;
    let process = start(dir.path(), &[("Sick", &sick), ("Fit", &healthy)], |_| {}).await;
    for n in 1..=3 {
        let rows = format!("t{n},{n}\n");
        assert_eq!(process.post(&format!("Sick_Cpu_aaa_2f5d0c3e517e400{n}.wal"), image(NARROW, &rows)).await, 202);
        assert_eq!(process.post(&format!("Fit_Cpu_aaa_2f5d0c3e517e400{n}.wal"), image(NARROW, &rows)).await, 202);
        healthy.wait(|seen| seen.rows.get("Fit.Cpu").is_some_and(|rows| rows.len() == n)).await;
    }
    sick.faults.lock().down = false;
    sick.wait(|seen| seen.rows.get("Sick.Cpu").is_some_and(|rows| rows.len() == 3)).await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_segment_dies_alone() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().down = true;
    kusto.faults.lock().bad_text = Some("poison".to_owned());
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    for (n, row) in ["t1,1", "poison,2", "t3,3"].into_iter().enumerate() {
        let name = format!("Metrics_Cpu_aaa_2f5d0c3e517e400{n}.wal");
        assert_eq!(process.post(&name, image(NARROW, &format!("{row}\n"))).await, 202);
        // Each into a segment of its own.
        process.sealed(n + 1).await;
    }
    kusto.faults.lock().down = false;
    kusto.wait(|seen| seen.rows.get("Metrics.Cpu").is_some_and(|rows| rows.len() == 2)).await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1", "t3,3"]);
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (2, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_gets_its_rows_inline() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Emulator).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    process.post("Metrics_Cpu_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\nt2,2\n")).await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1", "t2,2"]);
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_uploads_what_is_in_memory() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], |c| c.max_segment_age = Duration::from_secs(3600)).await;
    process.post("Metrics_Cpu_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await;
    assert!(kusto.rows("Metrics.Cpu").is_empty());
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_endpoints_segments_are_logged_and_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), &[], |_| {}).await;
    assert_eq!(process.post("FakeLogs_App_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await, 202);
    assert_eq!(process.post("Metrics_App_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await, 400);
    let dropped = "adxmon_ingestor_ledger_rows{database=\"FakeLogs\",state=\"dropped\"}";
    process.until("/metrics", |text| text.contains(&format!("{dropped} 1"))).await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoints_for_people_and_tools() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], |c| c.listen_tls = Some(SocketAddr::from(([127, 0, 0, 1], 0)))).await;
    let tls = format!("https://{}", process.running.tls.unwrap());
    let get = |path: &str| client().get(format!("{tls}{path}")).send();
    assert_eq!(get("/readyz").await.unwrap().text().await.unwrap(), "ok");
    assert_eq!(get("/transfer").await.unwrap().status(), 204);
    assert_eq!(get("/metrics").await.unwrap().status(), 404);
    assert_eq!(process.get("/healthz").await.0, 200);
    assert!(process.get("/debug/store").await.1.contains("sealed segments 0"));
    process.post("Metrics_Cpu_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await;
    let requests = "adxmon_ingestor_requests_received_total{path=\"/transfer\",code=\"202\"}";
    assert_eq!(process.metric(requests).await, Some(1.0));
    process.finish().await;
}

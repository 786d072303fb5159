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
    let before = kusto.seen.lock().batches.len();
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
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

/// The form of the reference's OTLP logs and of its oldest collectors.
#[tokio::test(flavor = "multi_thread")]
async fn segments_without_a_schema_have_the_columns_of_their_kind() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let logs = |c: &mut ingestor::Config| c.logs = vec![ingestor::Endpoint { database: "Logs".to_owned(), url: kusto.url.clone() }];
    let process = start(dir.path(), &[("Metrics", &kusto)], logs).await;
    let headless = |rows: &str| {
        let mut out = wal::segment::HEADER.to_vec();
        let meta = wal::segment::BlockMeta { sample_type: 1, rows: 1 };
        wal::segment::encode_block(&mut out, meta, rows.as_bytes(), &mut wal::segment::Scratch::default());
        out
    };
    assert_eq!(process.post("Metrics_Cpu_2f5d0c3e517e4001.wal", headless("t,1,{},2\n")).await, 202);
    assert_eq!(process.post("Logs_App_2f5d0c3e517e4002.wal", headless("t,o,,,,9,b,r,a\n")).await, 202);
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu") && seen.rows.contains_key("Logs.App")).await;
    assert_eq!(kusto.rows("Metrics.Cpu mapped"), ["Timestamp=t SeriesId=1 Labels={} Value=2"]);
    let log = "Timestamp=t ObservedTimestamp=o TraceId= SpanId= SeverityText= SeverityNumber=9 Body=b Resource=r Attributes=a";
    assert_eq!(kusto.rows("Logs.App mapped"), [log]);
    process.finish().await;
}

/// Dashboards and alerts of the reference go on working.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_names_of_the_reference() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let change = |c: &mut ingestor::Config| {
        c.region = "north".to_owned();
        c.drop_prefixes = vec!["Metrics_Noise".to_owned()];
    };
    let process = start(dir.path(), &[("Metrics", &kusto)], change).await;
    process.post("Metrics_Noise_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await;
    process.post("Metrics_Cpu_aaa_2f5d0c3e517e4002.wal", image(NARROW, "t1,1\n")).await;
    process.until("/metrics", |text| text.contains("adxmon_ingestor_wal_segments_uploaded_total{metric=\"Metrics_Cpu_aaa\"} 1")).await;
    let text = process.get("/metrics").await.1;
    for series in [
        "adxmon_ingestor_health_check{region=\"north\"} 1",
        "adxmon_ingestor_requests_received_total{path=\"/transfer\",code=\"202\"} 2",
        "adxmon_ingestor_requests_received_bytes_total ",
        "adxmon_ingestor_dropped_prefixes_total{prefix=\"Metrics_Noise\"} 1",
        "adxmon_ingestor_active_connections ",
        "adxmon_ingestor_dropped_connections_total ",
        "adxmon_ingestor_queue_size{queue=\"upload\"",
        "adxmon_ingestor_sample_latency{database=\"Metrics\",table=\"Cpu\"} ",
        "adxmon_ingestor_wal_segments_count ",
        "adxmon_ingestor_wal_segments_size_bytes ",
        "adxmon_ingestor_wal_segments_max_age_seconds ",
        "adxmon_ingestor_invalid_logs_dropped ",
    ] {
        assert!(text.lines().any(|line| line.starts_with(series)), "{series} is not in\n{text}");
    }
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
    // Without files the certificate is ECDSA: the object identifier of its key says so (RFC 5480).
    let info = client_with_tls_info().get(&tls).send().await.unwrap();
    let certificate = info.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec();
    let holds = |oid: &[u8]| certificate.windows(oid.len()).any(|part| part == oid);
    assert!(holds(&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]));
    assert_eq!(get("/metrics").await.unwrap().status(), 404);
    assert_eq!(process.get("/healthz").await.0, 200);
    assert!(process.get("/debug/store").await.1.contains("sealed segments 0"));
    process.post("Metrics_Cpu_aaa_2f5d0c3e517e4001.wal", image(NARROW, "t1,1\n")).await;
    let requests = "adxmon_ingestor_requests_received_total{path=\"/transfer\",code=\"202\"}";
    assert_eq!(process.metric(requests).await, Some(1.0));
    process.finish().await;
}

fn client_with_tls_info() -> reqwest::Client {
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).tls_info(true).build().unwrap()
}

//! When the ingestor takes no more, for which database, and what goes on meanwhile.

use std::time::Duration;

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::{NARROW, Process, image, start};

fn name(database: &str, n: usize) -> String {
    format!("{database}_Cpu_aaa_2f5d0c3e517e4{n:03x}.wal")
}

/// Fills the database `Sick`; the answer that ends it must be its own.
async fn fill(process: &Process, body: impl Fn(usize) -> Vec<u8>, sealed: bool) -> usize {
    for n in 0..200 {
        let answer = process.transfer(&name("Sick", n), body(n)).await;
        if answer.status() == 429 {
            assert_eq!(answer.headers()["retry-after"], "10");
            return n;
        }
        assert_eq!(answer.status(), 202);
        if sealed {
            process.sealed(n + 1).await;
        }
    }
    panic!("it never was full");
}

/// The other database, uploads and reads go on, and afterwards this one too.
async fn others_go_on(process: &Process, sick: &FakeKusto, healthy: &FakeKusto, landed: usize) {
    for n in 1..=3 {
        assert_eq!(process.post(&name("Fit", n), image(NARROW, &format!("t{n},{n}\n"))).await, 202);
        healthy.wait(|seen| seen.rows.get("Fit.Cpu").is_some_and(|rows| rows.len() == n)).await;
    }
    for path in ["/readyz", "/healthz", "/metrics", "/debug/store"] {
        assert_eq!(process.get(path).await.0, 200, "{path}");
    }
    sick.faults.lock().down = false;
    sick.wait(|seen| seen.rows.get("Sick.Cpu").is_some_and(|rows| rows.len() == landed)).await;
    process.sealed(0).await;
    assert_eq!(process.post(&name("Sick", 0xfff), image(NARROW, "again,1\n")).await, 202);
    sick.wait(|seen| seen.rows["Sick.Cpu"].len() == landed + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_too_many_segments_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, healthy) = (FakeKusto::start(Kind::Kustd).await, FakeKusto::start(Kind::Kustd).await);
    sick.faults.lock().down = true;
    let process = start(dir.path(), &[("Sick", &sick), ("Fit", &healthy)], |c| c.max_segment_count = 3).await;
    let taken = fill(&process, |n| image(NARROW, &format!("t{n},{n}\n")), true).await;
    assert_eq!(taken, 3);
    others_go_on(&process, &sick, &healthy, taken).await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_over_its_share_of_the_disk_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (sick, healthy) = (FakeKusto::start(Kind::Kustd).await, FakeKusto::start(Kind::Kustd).await);
    sick.faults.lock().down = true;
    let process = start(dir.path(), &[("Sick", &sick), ("Fit", &healthy)], |c| c.max_disk_bytes = 32 << 20).await;
    // A pseudo-random row of a megabyte, which does not become smaller when it is compressed.
    let body = |n: usize| {
        let mut state = n as u64 + 1;
        let mut text = String::with_capacity(1 << 20);
        while text.len() < 1 << 20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push(char::from(b'0' + (state >> 58) as u8));
        }
        image(NARROW, &format!("{},1\n", text.replace(',', "x").replace('"', "y")))
    };
    let taken = fill(&process, body, false).await;
    assert!((3..60).contains(&taken), "{taken}");
    others_go_on(&process, &sick, &healthy, taken).await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_whose_databases_are_all_full_is_not_ready() {
    let (dir, sick) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    sick.faults.lock().down = true;
    let change = |c: &mut ingestor::Config| {
        c.max_segment_count = 1;
        c.grace = Duration::ZERO;
        c.logs = vec![ingestor::Endpoint { database: "Logs".to_owned(), url: c.metrics[0].url.clone() }];
    };
    let process = start(dir.path(), &[("Sick", &sick)], change).await;
    assert_eq!(process.post(&name("Sick", 1), image(NARROW, "t1,1\n")).await, 202);
    process.sealed(1).await;
    process.until("/readyz", |text| !text.contains("not ready")).await;
    assert_eq!(process.post(&name("Logs", 1), image(NARROW, "t1,1\n")).await, 202);
    process.sealed(2).await;
    process.until("/readyz", |text| text.contains("not ready") || text.contains("MaxSegmentsExceeded")).await;
    assert_eq!(process.get("/readyz").await.0, 503);
    assert_eq!(process.post(&name("Sick", 2), image(NARROW, "t1,1\n")).await, 429);
    process.finish().await;
}

//! Rows through restarts, sealing, merging and retention.

use serde_json::json;

use crate::harness::Kustd;

const DAY: i64 = 86_400;

fn csv(from: u32, to: u32) -> String {
    (from..to).map(|n| format!("2024-05-01T00:00:{:02}Z,{n},\"{{\"\"host\"\":\"\"h{}\"\"}}\",text {n}\n", n % 60, n % 3)).collect()
}

async fn with_table(folder: &std::path::Path, change: impl FnOnce(&mut kustd::StorageOptions)) -> Kustd {
    let kustd = Kustd::start_with(folder, change).await;
    kustd.done(".create-merge table T (Timestamp:datetime, n:long, Labels:dynamic, s:string)").await;
    kustd
}

#[tokio::test]
async fn acknowledged_rows_survive_exactly_once_without_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path(), |_| ()).await;
    for n in 0..20 {
        assert_eq!(kustd.ingest_batch("T", &format!("{n:04x}"), &csv(n, n + 1)).await.status, 200);
    }
    // the files as they are now are what a kill would leave
    copy_tree(folder.path(), copy.path());
    let after = Kustd::start(copy.path()).await;
    assert_eq!(after.count("T").await, 20);
    assert_eq!(after.ingest_batch("T", "0003", &csv(3, 4)).await.status, 200);
    assert_eq!(after.query("T | summarize count(), dcount(n), sum(n)").await.rows(), [json!([20, 20, 190])]);
    after.stop().await;
    kustd.stop().await;
}

#[tokio::test]
async fn sealed_rows_are_read_from_extents_and_not_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path(), |options| options.seal_rows = 100).await;
    assert_eq!(kustd.ingest("T", "streamFormat=csv", csv(0, 150)).await.status, 200);
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([150])).await;
    assert_eq!(kustd.ingest("T", "streamFormat=csv", csv(150, 160)).await.status, 200);
    let query = "T | where Labels.host == 'h1' | summarize count(), min(n), max(n), countif(s startswith 'text')";
    let expected = [json!([53, 1, 157, 53])];
    assert_eq!(kustd.query(query).await.rows(), expected);
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!(kustd.query(query).await.rows(), expected);
    assert_eq!(kustd.count("T").await, 160);
    let filtered = "T | where Timestamp between (datetime(2024-05-01 00:00:10) .. datetime(2024-05-01 00:00:11)) | count";
    assert_eq!(kustd.query(filtered).await.rows(), [json!([6])]);
    assert_eq!(kustd.query("T | where Timestamp > datetime(2025-01-01) | count").await.rows(), [json!([0])]);
    kustd.stop().await;
}

#[tokio::test]
async fn old_rows_are_sealed_and_small_extents_merged() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path(), |options| options.seal_rows = 1).await;
    for n in 0..8 {
        assert_eq!(kustd.ingest("T", "streamFormat=csv", csv(n * 10, n * 10 + 10)).await.status, 200);
        kustd.until(".show table T extents | summarize sum(RowCount)", json!([(n + 1) * 10])).await;
    }
    kustd.until(".show table T extents | summarize sum(RowCount), count()", json!([80, 1])).await;
    assert_eq!(kustd.query("T | summarize sum(n), dcount(tostring(Labels))").await.rows(), [json!([3160, 3])]);
    let files = std::fs::read_dir(folder.path().join("extents/1")).unwrap().count();
    assert_eq!(files, 1, "merged extents are deleted when nobody reads them");
    kustd.stop().await;
}

#[tokio::test]
async fn retention_drops_extents_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path(), |options| options.seal_rows = 1).await;
    kustd.done(".alter-merge table T policy retention softdelete = 7d").await;
    kustd.ingest("T", "streamFormat=csv", csv(0, 10)).await;
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([10])).await;
    kustd.advance(6 * DAY);
    kustd.ingest("T", "streamFormat=csv", csv(10, 15)).await;
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([15])).await;
    kustd.advance(2 * DAY);
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([5])).await;
    assert_eq!(kustd.count("T").await, 5);
    kustd.stop().await;
}

#[tokio::test]
async fn configured_retention_by_age_gives_way_to_a_policy() {
    let days = |days: u64| std::time::Duration::from_secs(days * 86_400);
    // that of the database comes before that of all
    for (all, of_database) in [(7, None), (1000, Some(7)), (3, Some(7))] {
        let week = |options: &mut kustd::StorageOptions| {
            options.seal_rows = 1;
            options.retention = Some(days(all));
            options.retentions.extend(of_database.map(|age| ("Metrics".to_owned(), days(age))));
        };
        a_policy_comes_before(week).await;
    }
}

async fn a_policy_comes_before(week: impl FnOnce(&mut kustd::StorageOptions)) {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path(), week).await;
    kustd.done(".create table Kept (Timestamp:datetime, n:long)").await;
    kustd.done(".alter-merge table Kept policy retention softdelete = 30d").await;
    kustd.ingest("T", "streamFormat=csv", csv(0, 10)).await;
    kustd.ingest("Kept", "streamFormat=csv", "2024-05-01T00:00:00Z,1\n").await;
    kustd.until(".show extents | summarize sum(RowCount)", json!([11])).await;
    kustd.advance(6 * DAY);
    // a round of maintenance takes this one to an extent, and nothing away
    kustd.ingest("Kept", "streamFormat=csv", "2024-05-07T00:00:00Z,2\n").await;
    kustd.until(".show extents | summarize sum(RowCount)", json!([12])).await;
    kustd.advance(2 * DAY);
    kustd.until(".show extents | summarize sum(RowCount)", json!([2])).await;
    assert_eq!((kustd.count("T").await, kustd.count("Kept").await), (0, 2));
    kustd.stop().await;
}

#[tokio::test]
async fn the_oldest_extents_go_above_the_size_limit() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path(), |options| options.seal_rows = 1).await;
    for n in 0..3 {
        kustd.ingest("T", "streamFormat=csv", csv(n * 10, n * 10 + 10)).await;
        kustd.until(".show table T extents | summarize sum(RowCount)", json!([(n + 1) * 10])).await;
        kustd.advance(60);
    }
    let all = kustd.done(".show table T extents | summarize tolong(sum(ExtentSize))").await[0][0].as_u64().unwrap();
    kustd.stop().await;
    let kustd = Kustd::start_with(folder.path(), |options| options.max_bytes = Some(all - 1)).await;
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([20])).await;
    assert_eq!(kustd.query("T | summarize min(n), count()").await.rows(), [json!([10, 20])]);
    kustd.stop().await;
}

#[tokio::test]
async fn a_full_journal_is_trimmed_without_losing_small_tables() {
    let folder = tempfile::tempdir().unwrap();
    let budget = |options: &mut kustd::StorageOptions| options.journal_budget_bytes = 3 << 20;
    let kustd = with_table(folder.path(), budget).await;
    kustd.done(".create table Small (n:long)").await;
    assert_eq!(kustd.ingest_batch("Small", "aa", "1\n2\n").await.status, 200);
    let journal = || -> u64 {
        let files = std::fs::read_dir(folder.path().join("journal")).unwrap();
        // One that is trimmed at this moment counts no more.
        files.filter_map(|file| file.unwrap().metadata().ok()).map(|file| file.len()).sum()
    };
    // text that does not compress
    let mut state = 1u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}{:016x}", state, state.rotate_left(17))
    };
    let mut rows = 0;
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    // the journal goes over its budget and comes back below it
    let mut over = false;
    loop {
        let body: String = (0..2000).map(|n| format!("2024-05-01T00:00:00Z,{n},,{}{}\n", noise(), noise())).collect();
        if !over || journal() > 3 << 20 {
            assert_eq!(kustd.ingest("T", "streamFormat=csv", body).await.status, 200);
            rows += 2000;
        }
        over |= journal() > 3 << 20;
        if over && journal() <= 3 << 20 {
            break;
        }
        assert!(tokio::time::Instant::now() < limit, "the journal is {} bytes", journal());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!((kustd.count("T").await, kustd.count("Small").await), (rows, 2));
    kustd.stop().await;
    let kustd = Kustd::start_with(folder.path(), budget).await;
    assert_eq!((kustd.count("T").await, kustd.count("Small").await), (rows, 2));
    assert_eq!(kustd.ingest_batch("Small", "aa", "1\n2\n").await.status, 200);
    assert_eq!(kustd.count("Small").await, 2);
    kustd.stop().await;
}

#[tokio::test]
async fn damage_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path(), |options| options.seal_rows = 1).await;
    kustd.ingest("T", "streamFormat=csv", csv(0, 10)).await;
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([10])).await;
    kustd.stop().await;
    let extents = folder.path().join("extents/1");
    let extent = std::fs::read_dir(&extents).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&extent, b"not parquet at all").unwrap();
    std::fs::write(extents.join("0b8b9a1e-0000-0000-0000-000000000000.parquet"), b"orphan").unwrap();
    let kustd = Kustd::start(folder.path()).await;
    assert!(!extents.join("0b8b9a1e-0000-0000-0000-000000000000.parquet").exists(), "orphans are removed");
    let reply = kustd.query("T | summarize sum(n)").await;
    assert_eq!(reply.status, 520);
    assert!(reply.error(520).contains("parquet"), "{}", reply.text);
    assert_eq!(kustd.query("print 1").await.status, 200);
    kustd.stop().await;
    std::fs::write(folder.path().join("catalog.sqlite"), vec![7u8; 8192]).unwrap();
    let Err(error) = Kustd::try_start(folder.path(), |_| ()).await else { panic!("a damaged catalogue was opened") };
    assert!(format!("{error:#}").contains("catalog.sqlite"), "{error:#}");
}

pub(crate) fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

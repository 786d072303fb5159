//! File systems that are full, and that do not answer.

use std::io::Write;

use crate::confined::Confined;
use crate::files::{accepted, append, target};
use crate::support::{client, one_sample};

/// Text that hardly gets smaller, from a generator with a fixed seed.
fn letters() -> impl FnMut(usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |length| {
        let letter = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[usize::from(state.to_be_bytes()[0] & 63)])
        };
        (0..length).map(letter).collect()
    }
}

/// No crash, and nothing is lost: logs wait in their file and are read on by themselves, senders are told to come back, and what
/// was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_makes_logs_wait_and_senders_come_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let path = dir.path().join("app.log");
    append(&path, "line 0\n");
    let receivers = "[[prometheus-remote-write]]\ndatabase = 'Metrics'\npath = '/receive'\n[otel-log]\ndefault-database = 'Otel'\ndefault-table = 'T'\n";
    let settings = format!("listen-addr = '127.0.0.1:0'\nstorage-dir = '{}/store/data'\ndurability = 'process'\n", dir.path().display());
    let config = settings + &target(&path.display().to_string(), "") + receivers;
    let Some(confined) = Confined::start(dir, "mount -t tmpfs -o size=256m tmpfs \"$1/store\"", &config) else { return };
    confined.until(&accepted("Logs"), |rows| rows == 1.0).await;
    let mut acknowledged = 0.0;
    let mut send = async || {
        let request = client().post(format!("{}/receive", confined.url)).body(one_sample("up", 1.0));
        let status = request.send().await.unwrap().status().as_u16();
        acknowledged += if status == 202 { 1.0 } else { 0.0 };
        status
    };
    assert_eq!(send().await, 202);

    let filler = confined.inside("store/filler");
    let mut filling = std::fs::File::create(&filler).unwrap();
    while filling.write_all(&[0; 64 << 10]).is_ok() {}
    // The journal has room of its own, 32 MiB, which this uses up.
    let lines: u32 = 25_000;
    let mut letters = letters();
    append(&path, &(1..=lines).map(|n| format!("line {n} {}\n", letters(2000))).collect::<String>());
    confined.until("adxmon_collector_storage_refusing", |refusing| refusing == 1.0).await;
    confined.until_said("log records wait").await;
    assert_eq!(send().await, 429);
    let log = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;
    let request = client().post(format!("{}/v1/logs", confined.url)).header("content-type", "application/json").body(log);
    let refused = request.send().await.unwrap();
    assert!([429, 503].contains(&refused.status().as_u16()) && refused.headers().contains_key("retry-after"), "{refused:?}");
    let (status, reason) = confined.get("/readyz").await;
    assert_eq!((status, reason.as_str()), (503, "status=not_ready reason=MaxDiskUsageExceeded backend=adx\n"));
    let stored = confined.metric(&accepted("Logs")).await.unwrap();
    assert!(stored < f64::from(lines), "{stored}");

    drop(filling);
    std::fs::remove_file(&filler).unwrap();
    confined.until(&accepted("Logs"), |rows| rows == f64::from(lines) + 1.0).await;
    confined.until("adxmon_collector_storage_refusing", |refusing| refusing == 0.0).await;
    assert_eq!(confined.get("/readyz").await.0, 200);
    assert_eq!(send().await, 202);
    assert_eq!(confined.metric(&accepted("Metrics")).await, Some(acknowledged));
    let dropped = confined.metric("adxmon_collector_logs_dropped{source=\"tailsource\",stage=\"sink\"}").await;
    assert_eq!(dropped, None);
}

/// A mount of FUSE that nobody serves hangs as NFS does without its server.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_hangs_holds_up_its_own_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    std::fs::create_dir_all(dir.path().join("logs/remote")).unwrap();
    append(&dir.path().join("logs/here.log"), "one\n");
    let pattern = target(&format!("{folder}/logs/**/*.log"), "");
    let config = format!("listen-addr = '127.0.0.1:0'\nstorage-dir = '{folder}/data'\ndurability = 'process'\n{pattern}");
    let mount = "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hangs \"$1/logs/remote\"";
    let here = dir.path().join("logs/here.log");
    let Some(confined) = Confined::start(dir, mount, &config) else { return };
    confined.until(&accepted("Logs"), |rows| rows == 1.0).await;
    let hanging = format!("adxmon_collector_tail_hanging{{folder=\"{folder}/logs/remote\"}}");
    confined.until(&hanging, |hangs| hangs == 1.0).await;
    append(&here, "two\n");
    confined.until(&accepted("Logs"), |rows| rows == 2.0).await;
    assert_eq!(confined.metric(&hanging).await, Some(1.0));
    assert_eq!(confined.metric(&format!("adxmon_collector_tail_hanging{{folder=\"{folder}/logs\"}}")).await.unwrap_or_default(), 0.0);
}

/// A mount whose server is gone, as an SSHFS after its process was killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_is_gone_is_told_of_and_read_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    std::fs::create_dir_all(dir.path().join("logs/gone")).unwrap();
    let (here, back) = (dir.path().join("logs/here.log"), dir.path().join("logs/gone/back.log"));
    append(&here, "one\n");
    let pattern = target(&format!("{folder}/logs/**/*.log"), "");
    let config = format!("listen-addr = '127.0.0.1:0'\nstorage-dir = '{folder}/data'\ndurability = 'process'\n{pattern}");
    let mount = "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 gone \"$1/logs/gone\" && exec 3>&-";
    let Some(confined) = Confined::start(dir, mount, &config) else { return };
    confined.until("adxmon_collector_tail_errors_total", |errors| errors >= 1.0).await;
    confined.until_said("a folder of log files cannot be read").await;
    append(&here, "two\n");
    confined.until(&accepted("Logs"), |rows| rows == 2.0).await;
    confined.unmount("logs/gone");
    append(&back, "three\n");
    confined.until(&accepted("Logs"), |rows| rows == 3.0).await;
}

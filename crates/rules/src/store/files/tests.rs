#![allow(clippy::unwrap_used)]

use std::pin::Pin;

use crds::AlertRule;
use futures::FutureExt as _;

use super::*;

const RULES: usize = 64;

async fn folder() -> (tempfile::TempDir, FileStore<AlertRule>) {
    let folder = tempfile::tempdir().unwrap();
    let document = |at| {
        format!(
            "---\napiVersion: adx-mon.azure.com/v1\nkind: AlertRule\nmetadata: {{name: rule-{at}}}\n\
             spec: {{database: DB, interval: 1m, query: T, destination: team}}\n"
        )
    };
    std::fs::write(folder.path().join("rules.yaml"), (0..RULES).map(document).collect::<String>()).unwrap();
    let store = Folder::open(folder.path(), &folder.path().join("data")).unwrap().store::<AlertRule>().await;
    assert_eq!(store.objects().snapshot().len(), RULES);
    (folder, store)
}

/// Pages that were written to the log of the database, of which each transaction writes one or more.
fn pages(folder: &tempfile::TempDir) -> u64 {
    let path = folder.path().join("data/rules.sqlite-wal");
    // A frame of SQLite's log is a page and 24 bytes (sqlite.org/fileformat2.html).
    (std::fs::metadata(path).unwrap().len() - 32) / (4096 + 24)
}

#[tokio::test]
async fn statuses_that_are_written_together_share_a_transaction() {
    let (folder, store) = folder().await;
    let before = pages(&folder);
    let status = |object: &mut AlertRule| object.status.get_or_insert_default().status = "Success".into();
    let keys: Vec<Key> = (0..RULES).map(|at| Key::new("default", format!("rule-{at}"))).collect();
    let mut objects = store.objects();
    objects.changed().now_or_never();
    let mut writes: Vec<Pin<Box<_>>> = keys.iter().map(|key| Box::pin(store.update_status(key, &status))).collect();
    {
        // Nobody commits while all of them come.
        let _held = store.folder.shared.lock();
        assert!(writes.iter_mut().all(|write| write.now_or_never().is_none()));
    }
    for write in writes {
        write.await.unwrap();
    }
    let written = pages(&folder) - before;
    assert!((1..RULES as u64 / 2).contains(&written), "{written} pages");
    assert!(keys.iter().all(|key| store.objects().get(key).unwrap().status.as_ref().unwrap().status == "Success"));
    // They were shown at once.
    assert!(objects.changed().now_or_never().is_some() && objects.changed().now_or_never().is_none());
}

#[tokio::test]
async fn writes_to_one_object_at_the_same_time_are_all_kept() {
    let (folder, store) = folder().await;
    let key = Key::new("default", "rule-1");
    let count = |object: &mut AlertRule| object.status.get_or_insert_default().last_rows_returned += 1;
    let label = |object: &mut AlertRule| drop(object.metadata.labels.get_or_insert_default().insert("a".into(), "b".into()));
    let counting = futures::future::join_all((0..20).map(|_| store.update_status(&key, &count)));
    let (counted, labelled) = futures::join!(counting, store.update(&key, &label));
    assert!(counted.into_iter().all(|result| result.is_ok()) && labelled.is_ok());
    let check = |object: &AlertRule| {
        assert_eq!(object.status.as_ref().unwrap().last_rows_returned, 20);
        assert_eq!(object.metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(object.metadata.resource_version.as_deref(), Some("22"));
    };
    check(&store.objects().get(&key).unwrap());
    drop(store);
    // The same after a restart.
    let store = Folder::open(folder.path(), &folder.path().join("data")).unwrap().store::<AlertRule>().await;
    check(&store.objects().get(&key).unwrap());
}

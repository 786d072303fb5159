//! The store in memory behaves as an API server does.

use rules::store::memory::MemoryStore;
use rules::store::{Key, Store as _};

use crate::support::{Probe, probe, run};

fn key() -> Key {
    Key::new("default", "a")
}

#[tokio::test]
async fn a_status_is_written_apart_from_the_spec() {
    let store = MemoryStore::new([probe("a", "Metrics")]);
    let change = |probe: &mut Probe| {
        run(probe);
        "Other".clone_into(&mut probe.spec.database);
    };
    store.update_status(&key(), &change).await.unwrap();
    let after = store.objects().get(&key()).unwrap();
    assert_eq!((after.spec.database.as_str(), after.status.as_ref().unwrap().runs), ("Metrics", 1));
    assert_eq!(after.metadata.generation, Some(1));

    store.update(&key(), &change).await.unwrap();
    let after = store.objects().get(&key()).unwrap();
    assert_eq!((after.spec.database.as_str(), after.status.as_ref().unwrap().runs), ("Other", 1));
    assert_eq!(after.metadata.generation, Some(2));
}

#[tokio::test]
async fn what_changes_nothing_is_not_written() {
    let store = MemoryStore::new([probe("a", "Metrics")]);
    let mut objects = store.objects();
    objects.ready().await;
    let version = objects.get(&key()).unwrap().metadata.resource_version.clone();
    store.update_status(&key(), &|_| {}).await.unwrap();
    store.update(&key(), &|_| {}).await.unwrap();
    assert_eq!(objects.get(&key()).unwrap().metadata.resource_version, version);
    assert_eq!(store.status_writes(), 0);
}

#[tokio::test]
async fn finalizers_hold_an_object_that_is_being_deleted() {
    let mut held = probe("a", "Metrics");
    held.metadata.finalizers = Some(vec!["adx-mon.azure.com/test".to_owned()]);
    let store = MemoryStore::new([held]);
    store.delete(&key());
    assert!(store.objects().get(&key()).unwrap().metadata.deletion_timestamp.is_some());
    store.update(&key(), &|probe| probe.metadata.finalizers = None).await.unwrap();
    assert!(store.objects().get(&key()).is_none());
    store.update_status(&key(), &run).await.unwrap();
}

#[tokio::test]
async fn readers_hear_of_changes_and_keep_their_snapshots() {
    let store = MemoryStore::new([probe("a", "Metrics")]);
    let mut objects = store.objects();
    let before = objects.snapshot();
    store.apply(probe("b", "Logs"));
    objects.changed().await;
    assert_eq!((before.len(), objects.snapshot().len()), (1, 2));
}

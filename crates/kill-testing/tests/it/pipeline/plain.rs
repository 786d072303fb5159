//! The whole way without trouble.

use super::check::{METRIC_TABLES, all_rows_are_there, check};
use super::senders::Senders;
use super::world::{ANY_CERTIFICATE, World, eventually};

/// Through Azurite into kustd. A label that gets a column of its own widens table and mapping.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_queued_or_streamed_and_a_lifted_label_widens_its_tables() {
    let Some(mut world) = World::start(3).await else { return };
    world.add_ingestors(1);
    world.add_collector(&[0], ANY_CERTIFICATE, "");
    world.ready().await;
    let senders = Senders::start(&world);
    there(&world, "LoadAlpha | count").await;
    let sent = senders.stop().await;
    all_rows_are_there(&world, &sent).await;
    for table in METRIC_TABLES {
        let schema = world.command("Metrics", &format!(".show table {table} cslschema")).await.unwrap();
        assert!(!schema.text(0, "Schema").unwrap().contains("Request"), "{schema:?}");
    }
    let before = sent;

    world.add_collector(&[0], ANY_CERTIFICATE, "[[lift-labels]]\nname = 'request'\n");
    world.ready().await;
    let senders = Senders::start_at(&world, before.acknowledged.last().unwrap() + 1000);
    for table in METRIC_TABLES {
        there(&world, &format!("{table} | where column_ifexists('Request', '') != '' | count")).await;
    }
    let mut sent = senders.stop().await;
    sent.acknowledged.extend(before.acknowledged);
    let figures = check(&world, &sent).await;
    eprintln!("{figures}");
    assert_eq!((figures.doubled, figures.maybe_duplicate), (0, 0), "{figures}");
    for table in METRIC_TABLES {
        let wrong = world.query("Metrics", &format!("{table} | where Request != '' and Request != tostring(tolong(Value)) | count")).await;
        assert_eq!(wrong.unwrap(), [[serde_json::json!(0)]], "{table}");
    }

    let metrics = world.get(&world.ingestors[0], "/metrics").await.unwrap();
    for database in ["Metrics", "Logs"] {
        let metric = format!("adxmon_ingestor_queued_batch_statuses_total{{database=\"{database}\",status=\"succeeded\"}}");
        assert!(metrics.contains(&metric), "{metric} is not in\n{metrics}");
    }
    for table in METRIC_TABLES {
        let mappings = world.command("Metrics", &format!(".show table {table} ingestion csv mappings")).await.unwrap();
        assert_eq!(mappings.rows.len(), 2, "{table}: {mappings:?}");
    }
    let failures = world.command("Metrics", ".show ingestion failures").await.unwrap();
    assert!(failures.rows.is_empty(), "{failures:?}");
}

/// Waits until a query that counts rows finds some.
async fn there(world: &World, csl: &str) {
    let some = async || match world.query("Metrics", csl).await?[0][0].as_i64() {
        Some(0) | None => Err(format!("{csl}: nothing is there")),
        _ => Ok(()),
    };
    eventually(some).await;
}

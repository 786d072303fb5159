//! From nothing, with what is there, and after changes of the spec and of Azure.

use std::time::Duration;

use azure_testing::resource_manager::Fault;
use serde_json::json;
use tokio::time::Instant;

use super::world::{CLUSTER, ENDPOINT, World, spec};

/// Requests that change something.
fn writes(world: &World) -> Vec<String> {
    let log = world.azure.take_log();
    log.into_iter().filter(|line| line.starts_with("PUT") || line.starts_with("PATCH") || line.contains("/register ")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_from_nothing() {
    let mut world = World::new(spec());
    let started = Instant::now();
    assert_eq!(world.until("ClusterReady").await, ["Unknown Creating", "True ClusterReady"]);
    world.assert_as_wanted();
    let paths: Vec<String> = writes(&world).iter().map(|line| line.replace("/subscriptions/s-1", "").to_lowercase()).collect();
    let cluster = "/resourcegroups/monitoring/providers/microsoft.kusto/clusters/adxmon";
    assert_eq!(
        paths[..5],
        [
            "post /providers/microsoft.kusto/register 200".to_owned(),
            "put /resourcegroups/monitoring 201".to_owned(),
            format!("put {cluster} 201"),
            format!("put {cluster}/databases/metrics 201"),
            format!("put {cluster}/databases/logs 201"),
        ]
    );
    assert_eq!(paths.len(), 7, "{paths:?}");
    // Azure takes about a quarter of an hour; the operator adds its pauses.
    assert!(started.elapsed() < Duration::from_secs(20 * 60), "{:?}", started.elapsed());
    let status = world.cluster.status.clone().unwrap();
    assert_eq!(status.endpoint, ENDPOINT);
    let applied = json!({
        "skuName": "Standard_L8as_v3", "tier": "Standard", "userAssignedIdentities": ["/i1"],
        "autoScale": {"enabled": true, "minimum": 2, "maximum": 6}, "retention": {"Logs": "P90D", "Metrics": "P30D"},
    });
    assert_eq!(json!(status.applied_provision_state), applied);
    let made = world.actual();
    assert_eq!((&made["identity"]["type"], &made["tags"]["managed-by"]), (&json!("UserAssigned"), &json!("adx-mon-operator")));
    assert_eq!((&made["properties"]["enableAutoStop"], &made["properties"]["engineType"]), (&json!(false), &json!("V3")));
}

/// A database that a hub needs comes without a change of the spec, and is made at once.
#[tokio::test(start_paused = true)]
async fn a_database_that_a_hub_needs_does_not_wait() {
    let mut world = World::new(spec());
    world.until("ClusterReady").await;
    let spoke = serde_json::from_value(json!({"databaseName": "Spoke", "telemetryType": "Logs"})).unwrap();
    world.cluster.spec.databases.push(spoke);
    assert_eq!(world.step().await.verdict.reason, "Waiting");
    world.until("ClusterReady").await;
    assert!(world.azure.get(&format!("{CLUSTER}/databases/spoke")).is_some());
    // once it is there, the hub does not need to ask for it
    world.cluster.spec.databases.pop();
    world.until("ClusterReady").await;
    assert!(world.azure.get(&format!("{CLUSTER}/databases/spoke")).is_some());
    let applied = world.cluster.status.as_ref().unwrap().applied_provision_state.clone().unwrap();
    assert_eq!(applied.retention.keys().collect::<Vec<_>>(), ["Logs", "Metrics"]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_ready_is_read_now_and_then() {
    let mut world = World::new(spec());
    world.until("ClusterReady").await;
    world.azure.take_log();
    // Events of Kubernetes make steps; Azure is not asked each time.
    for _ in 0..100 {
        let provisioned = world.step().await;
        assert_eq!(provisioned.verdict.reason, "ClusterReady");
        assert!(provisioned.again.unwrap() <= Duration::from_secs(600));
    }
    assert_eq!(world.azure.take_log(), Vec::<String>::new());
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.step().await;
    let log = world.azure.take_log();
    // The cluster, its databases, roles in two places.
    assert_eq!(log.len(), 4, "{log:?}");
    assert!(log.iter().all(|line| line.starts_with("GET ") && line.ends_with(" 200")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_taken_over_and_not_written_over() {
    let mut spec = spec();
    spec["databases"][0]["retentionInDays"] = 30.into();
    let others = json!({"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {"/theirs": {}}});
    let mut world = World::with_cluster(spec, json!({"identity": others}));
    let database = |name: &str, period: &str| {
        let properties = json!({"softDeletePeriod": period, "provisioningState": "Succeeded"});
        world.azure.put(
            &format!("{CLUSTER}/databases/{name}"),
            json!({"name": format!("adxmon/{name}"), "kind": "ReadWrite", "properties": properties}),
        );
    };
    database("Metrics", "P365D");
    database("Logs", "P7D");
    database("Theirs", "P1D");
    let properties = json!({"principalId": "APP-1", "principalType": "App", "role": "AllDatabasesAdmin", "provisioningState": "Succeeded"});
    world.azure.put(&format!("{CLUSTER}/principalassignments/theirs"), json!({"name": "adxmon/theirs", "properties": properties}));
    world.until("ClusterReady").await;
    let after = world.actual();
    // What the spec says is so now, what it does not say is as it was.
    assert_eq!(after["identity"]["type"], "SystemAssigned, UserAssigned");
    let ids: Vec<&String> = after["identity"]["userAssignedIdentities"].as_object().unwrap().keys().collect();
    assert_eq!(ids, ["/theirs", "/i1"]);
    assert_eq!((&after["tags"], &after["properties"]["enableAutoStop"]), (&json!({"team": "x"}), &json!(true)));
    let period = |name: &str| world.azure.get(&format!("{CLUSTER}/databases/{name}")).unwrap()["properties"]["softDeletePeriod"].clone();
    assert_eq!((period("metrics"), period("logs"), period("theirs")), (json!("P365D"), json!("P90D"), json!("P1D")));
    let condition = &world.cluster.status.as_ref().unwrap().conditions[0];
    assert!(condition.message.contains("database Metrics keeps its data P365D"), "{}", condition.message);
    let paths = world.azure.paths();
    assert!(paths.contains(&format!("{CLUSTER}/databases/theirs")));
    assert_eq!(paths.iter().filter(|path| path.contains("clusters/adxmon/principalassignments/")).count(), 1);
    assert_eq!(world.azure.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_edit_changes_what_it_is_about() {
    let mut world = World::new(spec());
    world.until("ClusterReady").await;
    world.azure.take_log();
    world.edit(|spec| spec["provision"]["skuName"] = "Standard_L16as_v3".into());
    // At once, though there was no need to ask for ten minutes.
    assert_eq!(world.until("ClusterReady").await, ["Unknown Waiting", "True ClusterReady"]);
    let changed = writes(&world);
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].starts_with("PATCH ") && changed[0].ends_with("/clusters/adxmon 202"), "{changed:?}");
    assert_eq!(world.actual()["sku"]["name"], "Standard_L16as_v3");
    world.edit(|spec| {
        spec["databases"][1]["retentionInDays"] = 7.into();
        spec["databases"].as_array_mut().unwrap().push(json!({"databaseName": "Traces", "telemetryType": "Traces"}));
        spec["provision"]["userAssignedIdentities"] = json!(["/i2"]);
        spec["provision"]["autoScale"] = false.into();
        spec["provision"]["principals"] = json!([]);
    });
    world.until("ClusterReady").await;
    let after = world.actual();
    assert_eq!(after["identity"]["userAssignedIdentities"], json!({"/i2": {}}));
    assert_eq!(after["properties"]["optimizedAutoscale"]["isEnabled"], false);
    assert_eq!(world.azure.get(&format!("{CLUSTER}/databases/logs")).unwrap()["properties"]["softDeletePeriod"], "P7D");
    assert!(world.azure.get(&format!("{CLUSTER}/databases/traces")).is_some());
    // An edit that asks for nothing of Azure.
    world.azure.take_log();
    world.edit(|spec| spec["databases"][0]["telemetryType"] = "Logs".into());
    assert_eq!(world.until("Complete").await, ["True Complete"]);
    assert_eq!(writes(&world), Vec::<String>::new());
    // What is out of the spec stays in Azure.
    world.edit(|spec| spec["databases"] = json!([]));
    world.until("Complete").await;
    assert_eq!(world.azure.paths().iter().filter(|path| path.contains("/databases/") && !path.contains("principal")).count(), 3);
    assert_eq!(world.azure.paths().iter().filter(|path| path.contains("principal")).count(), 2);
    assert_eq!(world.azure.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn hands_in_azure_win_until_they_take_it_back() {
    let mut world = World::new(spec());
    world.until("ClusterReady").await;
    world.azure.edit(CLUSTER, |cluster| cluster["sku"]["name"] = "Standard_E16".into());
    world.edit(|spec| spec["provision"]["skuName"] = "Standard_L16as_v3".into());
    world.until("Complete").await;
    assert_eq!(world.actual()["sku"]["name"], "Standard_E16");
    let message = world.cluster.status.as_ref().unwrap().conditions[0].message.clone();
    assert!(message.ends_with("skuName and tier are Standard_E16 and Standard"), "{message}");
    world.azure.edit(CLUSTER, |cluster| cluster["sku"]["name"] = "Standard_L8as_v3".into());
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.until("ClusterReady").await;
    assert_eq!(world.actual()["sku"]["name"], "Standard_L16as_v3");
}

/// The reference sends an update to a cluster that does not exist yet, and fails.
#[tokio::test(start_paused = true)]
async fn an_edit_while_the_cluster_is_made_is_taken_up_after() {
    let mut world = World::new(spec());
    for _ in 0..4 {
        let again = world.step().await.again.unwrap();
        tokio::time::sleep(again).await;
    }
    assert_eq!(world.actual()["properties"]["state"], "Creating");
    world.edit(|spec| spec["provision"]["autoScaleMax"] = 9.into());
    assert_eq!(world.until("ClusterReady").await, ["Unknown Creating", "True ClusterReady"]);
    assert_eq!(world.actual()["properties"]["optimizedAutoscale"]["maximum"], 9);
    assert_eq!(world.azure.violations(), Vec::<String>::new());
}

/// At every request: the operator ends, with its answer lost or not; the next one has nothing but the status and Azure.
#[tokio::test(start_paused = true)]
async fn an_operator_that_is_restarted_goes_on() {
    for at in 0..40 {
        let mut world = World::new(spec());
        for step in 0.. {
            if step == at {
                world.azure.next(Fault::LostAfter);
                // What it would have said is lost.
                world.unrecorded_step().await;
                world.restart();
            }
            let provisioned = world.step().await;
            if provisioned.verdict.reason == "ClusterReady" {
                break;
            }
            assert!(step < 300, "{provisioned:?}");
            tokio::time::sleep(provisioned.again.unwrap()).await;
            // Every time another one.
            world.restart();
        }
        world.assert_as_wanted();
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_somebody_deletes_is_made_again() {
    let mut world = World::new(spec());
    world.until("ClusterReady").await;
    world.azure.remove(CLUSTER);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.until("ClusterReady").await, ["Unknown Waiting", "True ClusterReady"]);
    world.assert_as_wanted();
}

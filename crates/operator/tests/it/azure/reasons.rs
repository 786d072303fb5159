//! Each failure with its condition and reason, and the way out of it.

use std::time::Duration;

use azure_testing::resource_manager::Fault;
use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::world::{CLUSTER, ENDPOINT, GROUP, World, spec};

fn message(world: &World) -> String {
    world.cluster.status.as_ref().unwrap().conditions[0].message.clone()
}

const NO_RIGHT: &str = "The client 'x' does not have authorization to perform action 'Microsoft.Kusto/clusters/read'.";

#[tokio::test(start_paused = true)]
async fn a_cluster_that_may_not_be_read_is_taken_for_one_that_runs() {
    let mut world = World::with_cluster(spec(), json!({}));
    world.azure.refuse(None, "/clusters/", 403, "AuthorizationFailed", NO_RIGHT);
    assert_eq!(world.until("PermissionRestricted").await, ["True PermissionRestricted"]);
    assert!(message(&world).contains(NO_RIGHT));
    assert_eq!(world.cluster.status.as_ref().unwrap().endpoint, "");
    world.edit(|spec| spec["endpoint"] = ENDPOINT.into());
    world.until("PermissionRestricted").await;
    assert_eq!(world.cluster.status.as_ref().unwrap().endpoint, ENDPOINT);
    // One who may not ask for names either is none the wiser.
    world.azure.refuse(Some(Method::POST), "checknameavailability", 403, "AuthorizationFailed", NO_RIGHT);
    world.restart();
    world.until("PermissionRestricted").await;
    // The right is given: within ten minutes.
    world.azure.refuse_nothing();
    let started = Instant::now();
    world.until("ClusterReady").await;
    assert!(started.elapsed() < Duration::from_secs(45 * 60));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_nobody_has_is_not_taken_for_one_that_runs() {
    let mut world = World::new(spec());
    world.azure.register();
    world.azure.refuse(None, "/clusters/adxmon", 403, "AuthorizationFailed", NO_RIGHT);
    assert_eq!(world.until("PermissionDenied").await, ["False PermissionDenied"]);
    assert!(message(&world).contains("403 AuthorizationFailed"), "{}", message(&world));
}

#[tokio::test(start_paused = true)]
async fn rights_that_are_missing_are_named_and_not_asked_for_where_they_do_not_matter() {
    // Rights on the resource group alone: providers and names cannot be asked for.
    let mut world = World::new(spec());
    world.azure.register();
    world.azure.put(GROUP, json!({"location": "westus"}));
    world.azure.refuse(None, "/subscriptions/s-1/providers/", 403, "AuthorizationFailed", NO_RIGHT);
    world.azure.refuse(Some(Method::HEAD), "/resourcegroups/monitoring", 403, "", "");
    world.until("ClusterReady").await;
    // No right to make one.
    let mut world = World::new(spec());
    world.azure.register();
    world.azure.refuse(Some(Method::PUT), "/clusters/adxmon", 403, "AuthorizationFailed", "no action 'Microsoft.Kusto/clusters/write'");
    world.until("PermissionDenied").await;
    assert!(message(&world).contains("no action 'Microsoft.Kusto/clusters/write'"));
    world.azure.refuse_nothing();
    assert_eq!(world.until("ClusterReady").await, ["False PermissionDenied", "Unknown Creating", "True ClusterReady"]);
    world.assert_as_wanted();
}

#[tokio::test(start_paused = true)]
async fn quota_that_is_used_up_is_told_of() {
    let quota = "Operation could not be completed as it results in exceeding approved Total Regional Cores quota.";
    let mut world = World::new(spec());
    world.azure.refuse(Some(Method::PUT), "/clusters/adxmon", 409, "OperationNotAllowed", quota);
    assert_eq!(world.until("QuotaExceeded").await, ["Unknown Creating", "False QuotaExceeded"]);
    assert!(message(&world).contains(quota));
    world.azure.refuse_nothing();
    world.until("ClusterReady").await;
    // A cluster that is to grow, found out when it is done: it runs on as it was.
    world.edit(|spec| spec["provision"]["skuName"] = "Standard_L32as_v3".into());
    world.azure.refuse(Some(Method::PATCH), "/clusters/adxmon", 400, "QuotaExceeded", quota);
    world.until("QuotaExceeded").await;
    assert_eq!(world.actual()["properties"]["state"], "Running");
    assert_eq!(world.cluster.status.as_ref().unwrap().endpoint, ENDPOINT);
    world.azure.refuse_nothing();
    world.until("ClusterReady").await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_fails_is_told_of_and_tried_again_later() {
    let mut world = World::new(spec());
    world.azure.register();
    // GET, provider, group, its making, name: then the cluster.
    for _ in 0..5 {
        world.azure.next(Fault::None);
    }
    world.azure.next(Fault::OperationFails("SkuNotAvailable", "The SKU is not available in westus."));
    assert_eq!(world.until("Failed").await, ["Unknown Creating", "False Failed"]);
    let started = Instant::now();
    assert_eq!(world.until("ClusterReady").await, ["False Failed", "Unknown Creating", "True ClusterReady"]);
    assert!(started.elapsed() >= Duration::from_secs(300));
    world.assert_as_wanted();
    // The same for one that is changed. Nothing is sent to it for five minutes.
    world.edit(|spec| spec["provision"]["skuName"] = "Standard_L16as_v3".into());
    for _ in 0..4 {
        world.azure.next(Fault::None);
    }
    world.azure.next(Fault::OperationFails("QuotaExceeded", "No cores."));
    let reasons = world.until("ClusterReady").await;
    assert!(reasons.iter().any(|reason| reason.starts_with("False ")), "{reasons:?}");
    assert_eq!(world.actual()["sku"]["name"], "Standard_L16as_v3");
    assert_eq!(world.azure.violations(), Vec::<String>::new());
}

/// Somebody else's cluster that does not run is not made again: that could undo what they did to it.
#[tokio::test(start_paused = true)]
async fn a_failed_cluster_of_others_is_left_alone() {
    let mut world = World::with_cluster(spec(), json!({"properties": {"state": "Unavailable", "provisioningState": "Failed"}}));
    world.azure.take_log();
    for _ in 0..10 {
        let provisioned = world.step().await;
        assert_eq!(provisioned.verdict.reason, "Failed");
        tokio::time::sleep(provisioned.again.unwrap()).await;
    }
    assert!(world.azure.take_log().iter().all(|line| line.starts_with("GET ")));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_somebody_else_has_is_told_of() {
    let mut world = World::new(spec());
    world.azure.take_name("adxmon");
    assert_eq!(world.until("NameTaken").await, ["Unknown Creating", "False NameTaken"]);
    assert!(message(&world).contains("choose another spec.clusterName"));
    let mut world = World::new(spec());
    world.edit(|spec| spec["clusterName"] = "Adx-Mon".into());
    world.until("ProvisioningInvalid").await;
    assert!(message(&world).contains("Name 'Adx-Mon' is not valid."));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_none_and_a_request_that_is_none_are_told_of() {
    let mut world = World::new(spec());
    world.azure.refuse(None, "/subscriptions/", 404, "SubscriptionNotFound", "The subscription 's-1' could not be found.");
    assert_eq!(world.until("ProvisioningInvalid").await, ["False ProvisioningInvalid"]);
    let mut world = World::new(spec());
    world.edit(|spec| spec["provision"]["tier"] = "Gold".into());
    assert_eq!(world.until("Failed").await, ["Unknown Creating", "False Failed"]);
    assert!(message(&world).contains("400 BadRequest: Location and sku with name and tier are required."), "{}", message(&world));
    let mut world = World::new(spec());
    world.edit(|spec| spec["provision"]["autoScaleMin"] = 9.into());
    assert_eq!(world.until("ProvisioningInvalid").await, ["False ProvisioningInvalid"]);
    assert_eq!(world.azure.take_log(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_stopped_is_waited_for() {
    let mut world = World::new(spec());
    world.until("ClusterReady").await;
    world.azure.edit(CLUSTER, |cluster| cluster["properties"]["state"] = "Stopped".into());
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.until("Waiting").await;
    assert!(message(&world).contains("is Stopped in Azure; start it there"), "{}", message(&world));
    world.azure.edit(CLUSTER, |cluster| cluster["properties"]["state"] = "Running".into());
    let started = Instant::now();
    world.until("ClusterReady").await;
    assert!(started.elapsed() <= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_missing_are_told_of() {
    let mut world = World::new(spec());
    world.azure.next(Fault::Refused(401, "ExpiredAuthenticationToken"));
    world.azure.next(Fault::Refused(401, "ExpiredAuthenticationToken"));
    assert_eq!(world.until("NoCredentials").await, ["False NoCredentials"]);
    assert_eq!(world.until("ClusterReady").await.last().unwrap(), "True ClusterReady");
}

/// That Azure does not answer says nothing of the cluster.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_ready_stays_ready_while_azure_is_away() {
    let mut world = World::new(spec());
    world.until("ClusterReady").await;
    let before = message(&world);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut pauses = Vec::new();
    for fault in [Fault::SilenceBefore, Fault::Proxy(502), Fault::Refused(409, "ServiceIsInMaintenance"), Fault::Refused(503, "ServerBusy")]
    {
        world.azure.next(fault);
        let provisioned = world.step().await;
        assert_eq!((provisioned.verdict.reason, message(&world)), ("ClusterReady", before.clone()));
        pauses.push(provisioned.again.unwrap().as_secs());
        tokio::time::sleep(provisioned.again.unwrap()).await;
    }
    assert_eq!(pauses, [5, 10, 20, 40]);
    // As long as Azure wishes, and an edit waits too.
    world.azure.next(Fault::Throttled(700));
    assert_eq!(world.step().await.again.unwrap(), Duration::from_secs(700));
    world.azure.take_log();
    world.edit(|spec| spec["provision"]["skuName"] = "Standard_L16as_v3".into());
    tokio::time::sleep(Duration::from_secs(699)).await;
    world.step().await;
    assert_eq!(world.azure.take_log(), Vec::<String>::new());
    // Another cluster of the same subscription waits as well, and has nothing to say yet.
    let other = std::mem::replace(&mut world.cluster, crate::samples::object("ADXCluster", "other", spec()));
    let provisioned = world.step().await;
    assert_eq!((provisioned.verdict.reason, provisioned.again.unwrap().as_secs()), ("Creating", 1));
    world.cluster = other;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.until("Waiting").await;
    assert_eq!(world.azure.take_log().len(), 5);
    assert_eq!(world.azure.violations(), Vec::<String>::new());
}

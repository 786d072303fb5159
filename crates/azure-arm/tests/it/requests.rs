//! What is sent, and that it does what it is for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use azure_arm::{
    Arm, Autoscale, ClusterWrite, DatabaseWrite, Empty, IdentityWrite, Kind, NameAnswer, Operation, PUBLIC_CLOUD, Principal, Progress,
    PropertiesWrite, Registration, Sku, State,
};
use azure_testing::resource_manager::{Pace, ResourceManager};

use crate::way::{CLUSTER, Tokens, id, near, with_cluster};

fn write() -> ClusterWrite {
    ClusterWrite {
        location: Some("westus".to_owned()),
        sku: Some(Sku { name: "Standard_L8as_v3".to_owned(), tier: "Standard".to_owned(), capacity: Some(2) }),
        properties: PropertiesWrite {
            enable_auto_stop: Some(false),
            engine_type: Some("V3".to_owned()),
            optimized_autoscale: Some(Autoscale { version: 1, is_enabled: true, minimum: 2, maximum: 10 }),
        },
        ..ClusterWrite::default()
    }
}

fn database() -> DatabaseWrite {
    DatabaseWrite { location: "westus".to_owned(), soft_delete_period: "P30D".to_owned() }
}

/// Some answers name no operation; then the resource tells.
async fn end_of(arm: &Arm, operation: Option<Operation>) {
    let Some(operation) = operation else { return tokio::time::sleep(Duration::from_millis(200)).await };
    tokio::time::sleep(operation.retry_after).await;
    while let Progress::Running(pause) = arm.progress(&operation).await.unwrap() {
        tokio::time::sleep(pause).await;
    }
}

/// Over HTTP, from an empty subscription.
#[tokio::test]
async fn all_that_a_cluster_needs_is_made() {
    let short = Duration::from_millis(50);
    let manager = ResourceManager::new(Pace { registration: short, cluster: short, part: short, retry_after: 0, tells: false });
    let address = manager.serve().await;
    let tokens = azure::fixed_token("GOOD").unwrap();
    let (arm, id) = (Arm::new(&address, tokens, "test/1").unwrap(), id());
    let (subscription, group) = (id.subscription.as_str(), id.group.as_str());

    assert_eq!(arm.cluster(&id).await.unwrap(), None);
    assert_eq!(arm.provider(subscription, "Microsoft.Kusto").await.unwrap(), Registration::Not("NotRegistered".to_owned()));
    arm.put_group(subscription, group, "westus").await.unwrap();
    assert_eq!(arm.create_cluster(&id, &write()).await.unwrap_err().kind, Kind::Refused);
    assert_eq!(arm.register_provider(subscription, "Microsoft.Kusto").await.unwrap(), Registration::Registering);
    tokio::time::sleep(short).await;
    assert_eq!(arm.provider(subscription, "Microsoft.Kusto").await.unwrap(), Registration::Registered);
    assert!(arm.has_group(subscription, group).await.unwrap());
    assert!(!arm.has_group(subscription, "other").await.unwrap());
    assert_eq!(arm.check_cluster_name(subscription, "westus", &id.name).await.unwrap(), NameAnswer::Available);
    let invalid = arm.check_cluster_name(subscription, "westus", "Not_A_Name").await.unwrap();
    assert_eq!(invalid, NameAnswer::Invalid("Name 'Not_A_Name' is not valid.".to_owned()));

    let operation = arm.create_cluster(&id, &write()).await.unwrap();
    assert_eq!(arm.create_cluster(&id, &write()).await.unwrap_err().kind, Kind::Changed);
    let making = arm.cluster(&id).await.unwrap().unwrap();
    assert!(matches!(making.properties.provisioning_state, State::Pending(_) | State::Succeeded));
    end_of(&arm, operation).await;
    let cluster = arm.cluster(&id).await.unwrap().unwrap();
    assert_eq!((cluster.properties.state.as_str(), &cluster.properties.provisioning_state), ("Running", &State::Succeeded));
    assert_eq!(cluster.properties.uri, "https://kustocluster.westus.kusto.windows.net");
    assert_eq!(Some(&cluster.sku), write().sku.as_ref());
    assert_eq!(cluster.properties.optimized_autoscale, write().properties.optimized_autoscale);
    assert_eq!(arm.check_cluster_name(subscription, "westus", &id.name).await.unwrap(), NameAnswer::Taken);

    assert_eq!(arm.check_database_name(&id, "Metrics").await.unwrap(), NameAnswer::Available);
    let operation = arm.put_database(&id, "Metrics", &database()).await.unwrap();
    end_of(&arm, operation).await;
    assert_eq!(arm.check_database_name(&id, "Metrics").await.unwrap(), NameAnswer::Taken);
    let viewer =
        Principal { principal_id: "p".to_owned(), principal_type: "App".to_owned(), role: "Viewer".to_owned(), ..Principal::default() };
    let operation = arm.assign_principal(&id, Some("Metrics"), "a-1", &viewer).await.unwrap();
    end_of(&arm, operation).await;
    let databases = arm.databases(&id).await.unwrap();
    assert_eq!(databases.len(), 1);
    assert_eq!((databases[0].name(), databases[0].properties.soft_delete_period.as_deref()), ("Metrics", Some("P30D")));
    let principals = arm.principal_assignments(&id, Some("Metrics")).await.unwrap();
    assert_eq!((principals[0].name(), principals[0].properties.role.as_str()), ("a-1", "Viewer"));
    assert!(arm.principal_assignments(&id, None).await.unwrap().is_empty());
    assert_eq!(manager.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_change_leaves_alone_what_it_does_not_name() {
    let manager = with_cluster();
    let (arm, id) = (near(&manager), id());
    let before = arm.cluster(&id).await.unwrap().unwrap();
    let identities = [("/b".to_owned(), None), ("/c".to_owned(), Some(Empty {}))].into();
    let identity = IdentityWrite { kind: "UserAssigned".to_owned(), user_assigned_identities: identities };
    let change = ClusterWrite { identity: Some(identity), ..ClusterWrite::default() };
    let operation = arm.update_cluster(&id, &before.etag, &change).await.unwrap();
    // Under way, and changed since.
    assert_eq!(arm.update_cluster(&id, &before.etag, &change).await.unwrap_err().kind, Kind::Changed);
    let during = arm.cluster(&id).await.unwrap().unwrap();
    assert_eq!(during.properties.provisioning_state, State::Pending("Running".to_owned()));
    assert_eq!(arm.update_cluster(&id, &during.etag, &change).await.unwrap_err().kind, Kind::Conflict);
    end_of(&arm, operation).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let after = arm.cluster(&id).await.unwrap().unwrap();
    let names: Vec<_> = after.identity.user_assigned_identities.keys().map(String::as_str).collect();
    assert_eq!((names, after.sku), (vec!["/a", "/c"], before.sku));
    assert_eq!(manager.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let manager = with_cluster();
    let tokens = Arc::new(Tokens { expired: true, ..Tokens::default() });
    let arm = Arm::with_transport(PUBLIC_CLOUD, Arc::clone(&tokens) as _, Arc::clone(&manager) as _).unwrap();
    assert!(arm.cluster(&id()).await.unwrap().is_some());
    assert_eq!(tokens.renewed.load(Ordering::Relaxed), 1);
    assert_eq!(manager.take_log(), [format!("GET {} 401", of_client(CLUSTER)), format!("GET {} 200", of_client(CLUSTER))]);
}

/// As the client writes it.
fn of_client(path: &str) -> String {
    path.replace("resourcegroups", "resourceGroups").replace("microsoft.kusto", "Microsoft.Kusto")
}

#[tokio::test]
async fn names_lead_nowhere_else() {
    let manager = with_cluster();
    let arm = near(&manager);
    for name in ["..", ".", ""] {
        let error = arm.check_cluster_name(name, "westus", "x").await.unwrap_err();
        assert_eq!((error.kind, error.message), (Kind::Refused, format!("{name:?} is no name")));
    }
    assert_eq!(manager.take_log(), Vec::<String>::new());
    assert!(!arm.has_group("s", "../../x?y#z").await.unwrap());
    assert_eq!(manager.take_log(), ["HEAD /subscriptions/s/resourcegroups/..%2F..%2Fx%3Fy%23z 404"]);
}

#[test]
fn tokens_are_sent_over_https_only_or_stay_on_this_machine() {
    let arm = |address: &str| Arm::new(address, azure::fixed_token("GOOD").unwrap(), "test/1");
    for address in ["https://management.usgovcloudapi.net", "http://127.0.0.1:1", "http://localhost:1/", "http://[::1]:1"] {
        assert!(arm(address).is_ok(), "{address}");
    }
    for address in ["http://management.azure.com", "http://10.0.0.1", "management.azure.com", "ftp://127.0.0.1", ""] {
        assert!(arm(address).is_err(), "{address}");
    }
}

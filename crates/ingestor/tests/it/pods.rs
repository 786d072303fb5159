//! Ingestors as pods, by a real API server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ingestor::peers::{Discovery, Peers};
use k8s_openapi::api::core::v1::Pod;
use kube_client::api::{Api, Patch, PatchParams};
use kube_testing::ApiServer;
use serde_json::json;

use crate::fake_kusto::{FakeKusto, Kind};
use crate::peers::{NAMES, owner_of_two, post};
use crate::support::{Process, start};

/// Addresses of pods: all of 127/8 is this machine.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];

async fn ready(pods: &Api<Pod>, index: usize) {
    let ip = ADDRESSES[index].to_string();
    let conditions = ["Initialized", "Ready"].map(|kind| json!({"type": kind, "status": "True"}));
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}});
    pods.patch_status(NAMES[index], &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

type Node = (tempfile::TempDir, FakeKusto, Process);

/// Two ingestors that are pods of a StatefulSet and know of each other, and a table of the second one.
async fn two_pods(server: &ApiServer) -> (Api<Pod>, Vec<Node>, String) {
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: adx-mon}").await.unwrap();
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/ingestor.yaml");
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    server.install_crds().await.unwrap();
    let kubeconfig = server.service_account("adx-mon", "ingestor").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(server.admin().await, "adx-mon");
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "ingestor", "uid": "00000000-0000-0000-0000-000000000001"});
    for name in &NAMES[..2] {
        let metadata = json!({"name": name, "namespace": "adx-mon", "labels": {"app": "ingestor"}, "ownerReferences": [owner]});
        let spec = json!({"serviceAccountName": "ingestor", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        server.create(&pod.to_string()).await.unwrap();
    }
    // The same for both, as in a StatefulSet.
    let port = free_port();
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..2 {
        let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
        let process = start(dir.path(), &[("Metrics", &kusto)], |config| {
            config.listen_tls = Some(SocketAddr::new(IpAddr::V4(ADDRESSES[index]), port));
            config.cluster = Some(ingestor::Cluster {
                kubeconfig: Some(kubeconfig.clone()),
                namespace: Some("adx-mon".to_owned()),
                hostname: Some(NAMES[index].to_owned()),
                ..Default::default()
            });
            config.peers = Some(Peers { insecure_skip_verify: true, ..Peers::new(Discovery::Cluster) });
        })
        .await;
        nodes.push((dir, kusto, process));
    }
    for index in 0..2 {
        ready(&pods, index).await;
    }
    for (_, _, process) in &nodes {
        process.until("/metrics", |text| text.contains("adxmon_ingestor_members 2\n")).await;
    }
    (pods, nodes, (0..).map(|n| format!("T{n}")).find(|table| owner_of_two(table) == 1).unwrap())
}

/// Pods of a StatefulSet find each other, one passes segments on to the other, and is drained by an annotation.
#[tokio::test(flavor = "multi_thread")]
async fn pods_find_each_other_and_are_drained_by_an_annotation() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    let (pods, nodes, table) = two_pods(&server).await;
    assert_eq!(post(&nodes[0].2.plain, &table, 1, "passed on,1").await, 202);
    nodes[1].1.wait(|seen| seen.rows.contains_key(&format!("Metrics.{table}"))).await;

    // With rows in memory that nothing would seal for an hour.
    let annotate = json!({"metadata": {"annotations": {"shutdown-requested": "now"}}});
    pods.patch(NAMES[1], &PatchParams::default(), &Patch::Merge(annotate)).await.unwrap();
    let completed = async {
        loop {
            let pod = pods.get(NAMES[1]).await.unwrap();
            if let Some(time) = pod.metadata.annotations.unwrap_or_default().remove("shutdown-completed") {
                return time;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let time = tokio::time::timeout(Duration::from_secs(60), completed).await.unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    assert_eq!(nodes[1].2.get("/readyz").await.0, 503);
    assert_eq!(post(&nodes[1].2.plain, &table, 2, "too late,1").await, 429);
    // The other one owns the table now.
    nodes[0].2.until("/metrics", |text| text.contains("adxmon_ingestor_members 1\n")).await;
    assert_eq!(post(&nodes[0].2.plain, &table, 3, "kept,1").await, 202);
    nodes[0].1.wait(|seen| seen.rows.contains_key(&format!("Metrics.{table}"))).await;
    for (_, _, process) in nodes {
        process.finish().await;
    }
}

/// Who is known stays known while nobody can be asked.
#[tokio::test(flavor = "multi_thread")]
async fn peers_stay_known_while_the_api_server_is_away() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    let (_, nodes, table) = two_pods(&server).await;
    server.stop();
    for number in 1..=2 {
        assert_eq!(post(&nodes[0].2.plain, &table, number, &format!("{number},1")).await, 202);
        nodes[1].1.wait(|seen| seen.rows.get(&format!("Metrics.{table}")).is_some_and(|rows| rows.len() as u64 == number)).await;
    }
    assert!(nodes[0].2.get("/metrics").await.1.contains("adxmon_ingestor_members 2\n"));
    assert!(nodes[0].1.rows(&format!("Metrics.{table}")).is_empty());
    for (_, _, process) in nodes {
        process.finish().await;
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind((ADDRESSES[0], 0)).unwrap().local_addr().unwrap().port()
}

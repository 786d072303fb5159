//! A hub and two partitions, three processes of kustd that know nothing of each other until the operator's federation makes
//! them one. The test says what time it is.

use std::path::Path;
use std::time::Duration;

use crds::{ClusterRole, Federation};
use jiff::{SignedDuration, Timestamp};
use kusto::{Client, QueryOptions, RetryPolicy};
use operator::federation::access::Clients;
use operator::federation::hub::{Databases, Hub, federate};
use operator::federation::{Outcome, partition};
use serde_json::{Value, json};

use crate::pipeline::{free_ports, page_ready};
use crate::program::Program;

struct Cluster {
    program: Program,
    url: String,
    client: Client,
}

impl Cluster {
    async fn start(folder: &Path, name: &str, port: u16) -> Cluster {
        let (data, listen) = (folder.join(name), format!("127.0.0.1:{port}"));
        let arguments = ["--data-dir", data.to_str().unwrap(), "--listen", &listen, "--durability", "process", "--remote-timeout", "10s"];
        let program = Program::start(env!("CARGO_BIN_EXE_kustd-to-kill"), &folder.join(format!("{name}.log")), &arguments);
        let url = format!("http://{listen}");
        page_ready(&reqwest::Client::new(), &format!("{url}/healthz")).await;
        let client = Client::builder(&url).retry(RetryPolicy::none()).build().unwrap();
        Cluster { program, url, client }
    }

    async fn run(&self, commands: &[&str]) {
        for command in commands {
            self.client.mgmt("Metrics", command).await.unwrap_or_else(|error| panic!("{command}: {error}"));
        }
    }

    async fn ask(&self, query: &str) -> Vec<Vec<Value>> {
        let answer = self.client.query("Metrics", query, &QueryOptions::default()).await;
        answer.unwrap_or_else(|error| panic!("{query}: {error}")).tables.remove(0).rows
    }

    /// Names of what the hub has made.
    async fn names(&self, command: &str) -> Vec<String> {
        let table = self.client.mgmt("Metrics", command).await.unwrap();
        table.rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
    }
}

struct World {
    hub: Cluster,
    a: Cluster,
    b: Cluster,
    federation: Federation,
    clients: Clients,
    now: Timestamp,
}

impl World {
    async fn start(folder: &Path) -> World {
        let ports = free_ports(3);
        let hub = Cluster::start(folder, "hub", ports[0]).await;
        let (a, b) = (Cluster::start(folder, "a", ports[1]).await, Cluster::start(folder, "b", ports[2]).await);
        let federation = json!({
            "federatedTargets": [{"endpoint": hub.url, "heartbeatDatabase": "Hub", "heartbeatTable": "Beats", "managedIdentityClientId": "x"}],
            "partitioning": {"geo": "EU"}, "heartbeatDatabase": "Hub", "heartbeatTable": "Beats", "heartbeatTTL": "1h",
        });
        let now = "2026-01-01T10:00:00Z".parse().unwrap();
        World { hub, a, b, federation: serde_json::from_value(federation).unwrap(), clients: Clients::default(), now }
    }

    fn pass(&mut self, minutes: i64) {
        self.now += SignedDuration::from_mins(minutes);
    }

    async fn tell(&self, partition: &Cluster) -> Outcome {
        partition::tell(&self.clients, &partition.url, &self.federation, self.now).await
    }

    /// A round of the hub, and the one after it, which has nothing to do.
    async fn federate(&self) -> Outcome {
        let hub = Hub { kusto: &self.clients, endpoint: &self.hub.url, databases: Databases::ByCommand, now: self.now };
        let outcome = federate(hub, &self.federation).await;
        assert_eq!(federate(hub, &self.federation).await.done, 0);
        outcome
    }
}

fn well(outcome: &Outcome, role: ClusterRole) -> usize {
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert!(matches!(outcome.verdict(role).reason, "HubReady" | "HeartbeatSent"), "{outcome:?}");
    outcome.done
}

const CPU: &str = "Cpu | summarize sum(Value) by Host | order by Host asc";

#[tokio::test]
async fn a_hub_answers_for_its_partitions() {
    server::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path()).await;
    for (cluster, host) in [(&world.a, "a"), (&world.b, "b")] {
        cluster.client.mgmt("NetDefaultDB", ".create database Metrics").await.unwrap();
        let rows = format!(".ingest inline into table Cpu <| {host},1\n{host},2\n");
        cluster.run(&[".create table Cpu (Host:string, Value:long)", &rows]).await;
    }
    world.b.run(&[".create table Mem (Host:string)", ".ingest inline into table Mem <| b", ".alter-merge table Cpu (Extra:dynamic)"]).await;
    world.a.run(&[".create function with (view=true) Busy () { Cpu | where Value > 1 }"]).await;

    // nobody has said anything yet
    let outcome = world.federate().await;
    assert_eq!(outcome.verdict(ClusterRole::Federated).reason, "NoHeartbeats");
    for partition in [&world.a, &world.b] {
        assert_eq!(well(&world.tell(partition).await, ClusterRole::Partition), 1);
    }
    let outcome = world.federate().await;
    // in the hub's Metrics two tables, three functions and the group; in Hub the group
    assert_eq!((well(&outcome, ClusterRole::Federated), outcome.partitions), (7, Some(2)));
    assert_eq!(world.hub.ask(CPU).await, [[json!("a"), json!(3)], [json!("b"), json!(3)]]);
    assert_eq!(world.hub.ask("Cpu | where Value == 2 | count").await, [[json!(2)]]);
    assert_eq!(world.hub.ask("Busy | project Host").await, [[json!("a")]]);
    assert_eq!(world.hub.ask("Mem").await, [[json!("b")]]);
    let columns = world.hub.ask("table('Cpu') | getschema | project ColumnName, ColumnType").await;
    assert_eq!(json!(columns), json!([["Host", "string"], ["Value", "long"], ["Extra", "dynamic"]]));

    // one hangs: it costs its rows, and while it is waited for, neither other queries nor anybody's rounds
    world.b.program.signal(rustix::process::Signal::STOP);
    world.pass(10);
    others_do_not_wait(&world).await;
    let named = world.hub.client.query("Metrics", "macro-expand MetricsSpoke as X (X.Cpu)", &QueryOptions::default()).await.unwrap_err();
    assert!(named.is_transient() && named.message.contains(&world.b.url), "{named}");
    world.b.program.signal(rustix::process::Signal::CONT);

    // it dies, and is left alone until its time is over
    world.b.program.stop().await;
    world.pass(30);
    assert!(!world.tell(&world.b).await.failures.is_empty());
    well(&world.tell(&world.a).await, ClusterRole::Partition);
    assert_eq!(world.federate().await.partitions, Some(2));
    assert_eq!(world.hub.ask(CPU).await, [[json!("a"), json!(3)]]);
    world.pass(21);
    let outcome = world.federate().await;
    // two groups, and the function over what it alone had
    assert_eq!((well(&outcome, ClusterRole::Federated), outcome.partitions), (3, Some(1)));
    assert_eq!(world.hub.names(".show functions").await, ["Busy", "Cpu"]);
    // nobody asks it any more, so that nothing is missing
    let query = "macro-expand MetricsSpoke as X (X.Cpu) | count";
    assert_eq!(world.hub.ask(query).await, [[json!(2)]]);

    // it comes back
    world.b.program.start_again();
    page_ready(&reqwest::Client::new(), &format!("{}/healthz", world.b.url)).await;
    well(&world.tell(&world.b).await, ClusterRole::Partition);
    assert_eq!(world.federate().await.partitions, Some(2));
    // the hub may still leave it alone for a moment
    let deadline = tokio::time::Instant::now() + crate::program::PATIENCE;
    while world.hub.ask("Cpu | count").await != [[json!(4)]] {
        assert!(tokio::time::Instant::now() < deadline, "the partition does not come back");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // silence of all of them changes nothing
    world.pass(120);
    assert_eq!(world.federate().await.verdict(ClusterRole::Federated).reason, "NoHeartbeats");
    assert_eq!(world.hub.ask("Cpu | count").await, [[json!(4)]]);
}

/// A query waits for the cluster that hangs. It ends after all that others do meanwhile, and has the rows of the others.
async fn others_do_not_wait(world: &World) {
    let mut waits = std::pin::pin!(world.hub.ask(CPU));
    let others = async {
        well(&world.tell(&world.a).await, ClusterRole::Partition);
        assert_eq!(world.federate().await.partitions, Some(2));
        assert_eq!(world.hub.ask("table('Cpu') | count").await, [[json!(0)]]);
    };
    tokio::select! {
        rows = &mut waits => panic!("the others take longer than the one that hangs: {rows:?}"),
        () = others => {}
    }
    assert_eq!(waits.await, [[json!("a"), json!(3)]]);
}

//! Two hundred resources of each kind: what the operator asks of the API server while nothing happens, its Lease and watches
//! included, and the memory that it takes: as they come one by one, and when it starts where all are. docs/performance.md has
//! the figures. It goes by the clock and takes many minutes, so that it runs only when it is asked for.

use std::time::{Duration, Instant};

use kube_client::Client;
use kube_client::api::{Api, DynamicObject, ListParams};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cluster::{World, eventually};
use crate::process::{Memory, Operator, play_controllers, resource};

const LAPTOP: &str = include_str!("laptop.yaml");

/// Most requests a second, and bytes of memory.
const MOST_REQUESTS: f64 = 1.0;
const MOST_MEMORY: u64 = 60 << 20;

/// How many there are of each kind; `ADXMON_SCALE` says another number.
fn wanted() -> usize {
    std::env::var("ADXMON_SCALE").ok().and_then(|number| number.parse().ok()).unwrap_or(200)
}

/// Requests that the API server has answered, watches that have ended among them.
async fn requests(admin: &Client) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = admin.request_text(request).await.unwrap();
    let counts = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// How many requests there are in a while in which the test does nothing.
async fn idle(admin: &Client, time: Duration) -> f64 {
    let (before, started) = (requests(admin).await, Instant::now());
    tokio::time::sleep(time).await;
    // The first of the two questions is among them.
    (requests(admin).await - before - 1.0) / started.elapsed().as_secs_f64()
}

async fn all_ready(admin: &Client, wanted: usize) -> Result<(), String> {
    for (kind, reason) in [("ADXCluster", "ClusterReady"), ("Ingestor", "Ready"), ("Collector", "Ready"), ("Alerter", "Ready")] {
        let all: Api<DynamicObject> = Api::all_with(admin.clone(), &resource("adx-mon.azure.com", "v1", kind));
        let is_ready = |object: &DynamicObject| {
            let conditions: Vec<Value> = serde_json::from_value(object.data["status"]["conditions"].clone()).unwrap_or_default();
            conditions
                .iter()
                .any(|condition| condition["type"] == format!("{}.adx-mon.azure.com", kind.to_lowercase()) && condition["reason"] == reason)
        };
        let ready = all
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?
            .items
            .iter()
            .filter(|object| is_ready(object))
            .count();
        if ready < wanted {
            return Err(format!("{ready} of {wanted} {kind}s are ready"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement by the clock, of many minutes"]
async fn many_resources_cost_little_while_nothing_happens() {
    let Some(world) = World::start().await else { return };
    let (admin, wanted) = (world.admin.clone(), wanted());
    let folder = tempfile::tempdir().unwrap();
    // The API server asks itself things too.
    let without = idle(&admin, Duration::from_secs(20)).await;
    let operator = Operator::start(&world.kubeconfig, &folder.path().join("operator.log"), 30);
    let stop = CancellationToken::new();
    let playing = tokio::spawn({
        let (admin, stop) = (admin.clone(), stop.clone());
        async move { stop.run_until_cancelled(play_controllers(admin)).await }
    });
    let started = Instant::now();
    for at in 0..wanted {
        world.server.create(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: m{at}}}}}")).await.unwrap();
        world.server.create(&LAPTOP.replace("namespace: mon", &format!("namespace: m{at}"))).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(60) * u32::try_from(wanted).unwrap();
    while let Err(why) = all_ready(&admin, wanted).await {
        assert!(Instant::now() < deadline, "{why}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    eprintln!("{wanted} of each kind, ready after {:?}", started.elapsed());
    stop.cancel();
    playing.await.unwrap();
    let came = settled(&admin, &operator, without).await;
    eprintln!("as they came: {came}");
    drop(operator);
    // the Lease of the one before has to run out
    let operator = Operator::start(&world.kubeconfig, &folder.path().join("operator.log"), 30);
    eventually(async || match std::fs::read_to_string(folder.path().join("operator.log")).unwrap().matches("holder").count() {
        2.. => Ok(()),
        _ => Err("the second operator does not lead".to_owned()),
    })
    .await;
    let started_there = settled(&admin, &operator, without).await;
    for (when, figures) in [("as they came", came), ("started where all were", started_there)] {
        eprintln!("{when}: {figures}");
        assert!(figures.rate <= MOST_REQUESTS && figures.memory.most <= MOST_MEMORY, "{when}: {figures}");
    }
}

struct Figures {
    /// Requests a second.
    rate: f64,
    memory: Memory,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Memory { most, now, own } = self.memory;
        let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.2} requests a second; memory {:.1} MB, {:.1} of it not the program's file, at most {:.1}",
            self.rate,
            mb(now),
            mb(own),
            mb(most)
        )
    }
}

/// Waits until what changes have led to is over, and measures.
async fn settled(admin: &Client, operator: &Operator, without: f64) -> Figures {
    eventually(async || match idle(admin, Duration::from_secs(10)).await {
        rate if rate - without < MOST_REQUESTS => Ok(()),
        rate => Err(format!("{rate} requests a second")),
    })
    .await;
    let rate = idle(admin, Duration::from_secs(60)).await - without;
    Figures { rate, memory: operator.memory() }
}

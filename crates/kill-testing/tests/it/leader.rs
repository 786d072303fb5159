//! Two ingestors on a real API server, of which the one that leads is killed.

use std::time::Duration;

use crds::SummaryRule;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube_client::api::{Api, PostParams};
use serde_json::json;
use tokio::time::Instant;

use crate::files::is_filled;
use crate::kusto::Kusto;
use crate::program::{PATIENCE, Program, torment_time};
use crate::random::Random;
use crate::windows::assert_every_window_once;

/// Name and table of a rule, and interval in seconds: what falls due while nobody leads can be caught up with by the next
/// leader, in its few seconds.
const RULES: [(&str, u64); 2] = [("fast", 8), ("slow", 20)];

/// Which of two processes holds the lease `name`, and what it calls itself. A restarted one has another name.
async fn leader(leases: &Api<Lease>, name: &str) -> Option<(usize, String)> {
    let holder = leases.get_opt(name).await.unwrap()?.spec?.holder_identity.filter(|holder| !holder.is_empty())?;
    Some((usize::from(holder.starts_with(&format!("{name}-1"))), holder))
}

/// Waits until somebody else than `before` leads.
pub(crate) async fn next_leader(leases: &Api<Lease>, name: &str, before: &str) -> (usize, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match leader(leases, name).await {
            Some((at, holder)) if holder != before => return (at, holder),
            _ => assert!(Instant::now() < deadline, "nobody takes the lease of {before}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_leading_ingestor_lose_no_window_and_repeat_none() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    let (folder, kusto, client) = (tempfile::tempdir().unwrap(), Kusto::start(5).await, server.admin().await);
    let (leases, rules): (Api<Lease>, Api<SummaryRule>) = (Api::namespaced(client.clone(), "default"), Api::namespaced(client, "default"));
    for (name, interval) in RULES {
        let body = format!("{name} | where Timestamp between (_startTime .. _endTime)");
        let spec = json!({"database": "Metrics", "table": name, "interval": format!("{interval}s"), "body": body});
        let rule = SummaryRule::new(name, serde_json::from_value(spec).unwrap());
        rules.create(&PostParams::default(), &rule).await.unwrap();
    }
    let (kubeconfig, database) = (server.kubeconfig("admin"), format!("Metrics={}", kusto.url));
    let start = |at: usize| {
        let name = format!("ingestor-{at}");
        let storage = folder.path().join(&name);
        let place = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--namespace", "default", "--hostname", &name];
        let listen = ["--listen-plain", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"];
        let data = ["--storage-dir", storage.to_str().unwrap(), "--metrics-kusto-endpoints", &database];
        let arguments: Vec<&str> = place.into_iter().chain(listen).chain(data).collect();
        Program::start(env!("CARGO_BIN_EXE_ingestor-to-kill"), &folder.path().join(format!("{name}.log")), &arguments)
    };
    let mut ingestors = [start(0), start(1)];
    kusto.until("every rule has begun", |state| RULES.iter().all(|(name, _)| state.rows.contains_key(*name))).await;

    let (mut random, until) = (Random::new(6), Instant::now() + torment_time());
    let (mut leads, mut holder) = next_leader(&leases, "ingestor", "").await;
    kusto.trouble(true);
    while Instant::now() < until {
        tokio::time::sleep(random.milliseconds(0, 6000)).await;
        // Sometimes the other takes over while the old leader is away, sometimes while it starts.
        let pause = if random.percent(50) { Duration::ZERO } else { random.milliseconds(0, 10_000) };
        ingestors[leads].kill(tokio::time::sleep(pause)).await;
        (leads, holder) = next_leader(&leases, "ingestor", &holder).await;
    }
    kusto.trouble(false);
    let end = Timestamp::now();
    // With the process ends whatever it was going to wait for because of the trouble.
    ingestors[leads].kill(async {}).await;
    next_leader(&leases, "ingestor", &holder).await;
    let filled =
        |(name, interval): &(&str, u64), rows: &std::collections::BTreeMap<String, Vec<_>>| is_filled(&rows[*name], *interval, end);
    kusto.until("every window until the end of the trouble is done", |state| RULES.iter().all(|rule| filled(rule, &state.rows))).await;

    let kills: usize = ingestors.iter().map(|ingestor| ingestor.kills).sum();
    for (name, interval) in RULES {
        let state = kusto.state();
        let (rows, submissions) = (&state.rows[name], state.submissions[name]);
        assert_every_window_once(name, rows, Duration::from_secs(interval));
        let most = rows.len() + rules::summary::machine::MAX_IN_FLIGHT * (kills + 1) + state.faults;
        assert!(submissions <= most, "{name}: {submissions} commands for {} windows", rows.len());
        eprintln!("{name}: {} windows, {submissions} commands, {} faults, {kills} kills", rows.len(), state.faults);
    }
    for (name, _) in RULES {
        let status = rules.get(name).await.unwrap().status.unwrap();
        assert_eq!((status.failed_windows.len(), status.failed_windows_total), (0, 0), "{name}");
    }
    let lease = leases.get("ingestor").await.unwrap().spec.unwrap();
    assert!(lease.lease_transitions >= i32::try_from(kills).ok(), "{lease:?}");
}

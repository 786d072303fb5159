//! All kinds of rules in a cluster: a real API server, kustd and Alertmanager, and the three components that run rules, each
//! with the rights of its manifest in `deploy/rbac` and no others.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use clap::Parser as _;
use crds::{AlertRule, Function, ManagementCommand, MetricsExporter, State, SummaryRule};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube_client::api::{Api, DeleteParams, ListParams};
use reqwest::Url;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use world::{COMPONENTS, OURS, World, account, condition, eventually};

/// Length of the windows of rules that run more than once.
const INTERVAL: i64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_all_kinds_run_with_the_rights_that_we_ship() {
    server::install_crypto();
    server::init_logging();
    let Some(server) = kube_testing::start(&[]).await else { return };
    let Some(world) = World::start(&server).await else { return };
    let refused = world.forbidden().await;
    let stop = CancellationToken::new();

    apply_alert_rules(&world).await;
    let alerter = start_alerter(&world, &account(&server, "alerter").await, &stop).await;
    apply_functions_and_commands(&world).await;
    world.create::<SummaryRule>("rollup", rollup()).await.unwrap();
    let ingestor = start_ingestor(&world, &account(&server, "ingestor").await, &stop).await;

    alerts_fire(&world).await;
    rules_that_cannot_run_say_why(&world).await;
    functions_and_commands_are_applied(&world).await;
    // The ingestor runs the summary rule, until adxexporter comes and takes it over between two windows.
    let by_ingestor = world.until::<SummaryRule>("rollup", |rule| last_end(rule).is_some()).await;
    apply_metrics_exporters(&world).await;
    let exporter = start_exporter(&world, &account(&server, "adxexporter").await, &stop).await;
    metrics_are_exported(&world).await;
    windows_are_summarized_once(&world, last_end(&by_ingestor).unwrap()).await;

    stop.cancel();
    alerter.finished().await.unwrap();
    ingestor.finished().await.unwrap();
    exporter.finished().await.unwrap();
    assert_eq!(world.forbidden().await, refused, "requests that the rights do not allow");
    what_replicas_share_is_left_behind(&world).await;
    world.stop().await;
}

fn arguments(program: &str, lines: &str) -> Vec<String> {
    std::iter::once(program).chain(lines.split_whitespace()).map(str::to_owned).collect()
}

async fn start_alerter(world: &World, kubeconfig: &Path, stop: &CancellationToken) -> alerter::Running {
    let flags = arguments(
        "alerter",
        &format!(
            "--kubeconfig={} --data-dir={} --kusto-endpoint=Metrics={} --alerter-address={} --alertmanager-url={}
             --region=eastus --cloud=public --port=0 --listen-address=127.0.0.1",
            kubeconfig.display(),
            world.folder.path().join("alerter").display(),
            world.endpoint(),
            world.alerts.url,
            world.alertmanager_url
        ),
    );
    let flags = alerter::Flags::try_parse_from(flags).unwrap().run;
    let config = flags.config().unwrap();
    let surroundings = alerter::surroundings(&flags, &config, stop.clone()).await.unwrap();
    alerter::start(config, surroundings, stop.clone()).await.unwrap()
}

async fn start_ingestor(world: &World, kubeconfig: &Path, stop: &CancellationToken) -> ingestor::Running {
    let flags = arguments(
        "ingestor",
        &format!(
            "--kubeconfig={} --storage-dir={} --durability=process --metrics-kusto-endpoints=Metrics={}
             --cluster-labels=region=eastus --listen-plain=127.0.0.1:0 --listen-tls=127.0.0.1:0",
            kubeconfig.display(),
            world.folder.path().join("ingestor").display(),
            world.endpoint()
        ),
    );
    let config = ingestor::Flags::try_parse_from(flags).unwrap().config().unwrap();
    ingestor::start(config, stop.clone()).await.unwrap()
}

async fn start_exporter(world: &World, kubeconfig: &Path, stop: &CancellationToken) -> adxexporter::Running {
    let flags = arguments(
        "adxexporter",
        &format!(
            "--kubeconfig={} --kusto-endpoints=Metrics={} --otlp-endpoint={} --otlp-compression=none
             --cluster-labels=region=eastus --health-probe-port=127.0.0.1:0",
            kubeconfig.display(),
            world.endpoint(),
            world.points.url
        ),
    );
    let config = adxexporter::Flags::try_parse_from(flags).unwrap().config().unwrap();
    adxexporter::start(config, stop.clone()).await.unwrap()
}

const HOT: &str = "Cpu
| where Timestamp between (_startTime .. _endTime)
| summarize Max = max(Value) by Host
| where Max > 90
| project Title = strcat('CPU of ', Host, ' is at ', Max, ' %'), Severity = 2, Summary = 'Too hot.', Description = 'Look at it',
    CorrelationId = Host, Max";

async fn apply_alert_rules(world: &World) {
    let spec = |database: &str, query: &str| json!({"database": database, "interval": "1h", "query": query, "destination": "team/queue"});
    let mut hot = spec("Metrics", HOT);
    hot["autoMitigateAfter"] = json!("30m");
    hot["criteria"] = json!({"region": ["eastus"]});
    world.create::<AlertRule>("hot", hot).await.unwrap();
    let wrong = spec("Metrics", "Cpu\n| where Nonsense > 1\n| project Title = Host, Severity = 3");
    world.create::<AlertRule>("wrong", wrong).await.unwrap();
    world.create::<AlertRule>("astray", spec("Nowhere", "Cpu")).await.unwrap();
    let mut elsewhere = spec("Metrics", HOT);
    elsewhere["criteriaExpression"] = json!("region == 'westus'");
    world.create::<AlertRule>("elsewhere", elsewhere).await.unwrap();
    let mut never = spec("Metrics", HOT);
    never["interval"] = json!("0s");
    // From 1.25 on the API server does not let it in.
    if let Err(error) = world.create::<AlertRule>("never", never).await {
        assert!(error.to_string().contains("interval must be a duration above zero"), "{error}");
    }
}

async fn alerts_fire(world: &World) {
    let id = "rules/hot://web-1";
    let body = eventually(async || world.alerts.received().remove(id).ok_or("no notification of the rule".to_owned())).await.remove(0);
    let rule = world.until::<AlertRule>("hot", |rule| rule.status.as_ref().is_some_and(|status| status.status == "Success")).await;
    let status = rule.status.unwrap();
    assert_eq!((status.message.as_str(), status.last_rows_returned, status.last_alerts_generated), ("", 1, 1));
    let end = status.last_window_end.unwrap().0;
    let expected = json!({
        "Destination": "team/queue",
        "Title": "CPU of web-1 is at 97 %",
        "Summary": summary(&body, &world.endpoint(), end),
        "Description": "Look at it",
        "Severity": 2,
        "Source": "rules/hot",
        "CorrelationID": id,
        "CustomFields": {"Max": "97"},
        "AutoMitigateAfter": "30m",
    });
    assert_eq!(body, expected);

    let key = |name: &str, rule: &str| (name.to_owned(), rule.to_owned());
    let expected = BTreeSet::from([key("hot", "hot"), key("AlertRuleQueryFails", "wrong"), key("AlertRuleQueryFails", "astray")]);
    let firing = eventually(async || {
        let firing = world.firing().await;
        let names: BTreeSet<_> = firing.keys().cloned().collect();
        if names == expected { Ok(firing) } else { Err(format!("these fire in Alertmanager: {names:?}")) }
    })
    .await;
    let alert = &firing[&key("hot", "hot")];
    let labels = json!({"alertname": "hot", "namespace": "rules", "rule": "hot", "severity": "2", "source": "rules/hot",
        "destination": "team/queue", "correlation_id": id});
    assert_eq!((&alert["labels"], &alert["status"]["state"]), (&labels, &json!("active")));
    assert_eq!((&alert["annotations"]["title"], &alert["annotations"]["Max"]), (&json!("CPU of web-1 is at 97 %"), &json!("97")));
    // It lasts as long as the rule says.
    let ends: Timestamp = alert["endsAt"].as_str().unwrap().parse().unwrap();
    let lasts = ends.duration_since(end);
    assert!((lasts - SignedDuration::from_mins(30)).abs() <= SignedDuration::from_secs(1), "{lasts:?}");
}

/// The summary as the reference has it, with the times and the link that it contains, once these are checked.
fn summary(body: &Value, endpoint: &str, end: Timestamp) -> String {
    let ours = body["Summary"].as_str().unwrap();
    let between = |before: &str, after: &str| ours.split_once(before).unwrap().1.split_once(after).unwrap().0;
    let (first, last) = (between("_startTime = datetime(", ")"), between("_endTime = datetime(", ")"));
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    for (of, expected) in [(time(last), end), (time(first), end - SignedDuration::from_hours(1))] {
        assert!(of.duration_since(expected).abs() <= SignedDuration::from_secs(1), "{of} is not {expected}");
    }
    let query = format!("\nlet _startTime = datetime({first});\nlet _endTime = datetime({last});\nlet _region = \"eastus\";\n{HOT}\n");
    let link = between("<a href=\"", "\"");
    let url = Url::parse(link).unwrap();
    assert!(link.starts_with(&format!("{endpoint}/Metrics?query=")), "{link}");
    let packed = base64::engine::general_purpose::STANDARD.decode(&*url.query_pairs().next().unwrap().1).unwrap();
    let mut linked = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut linked).unwrap();
    assert_eq!(linked, query);
    let shown = query.replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;");
    format!(
        "Too hot.<br/><br/>Execute in <a href=\"{link}\">[Web]</a> <a href=\"{link}&web=0\">[Desktop]</a> \
         <a href=\"{link}&saw=1\">[Desktop (SAW)]</a><br/><details><summary>Click here to show query</summary><pre>{shown}</pre></details>"
    )
}

async fn rules_that_cannot_run_say_why(world: &World) {
    let fails = |rule: &AlertRule| rule.status.as_ref().is_some_and(|status| status.status == "Error");
    let message = async |name: &str| world.until::<AlertRule>(name, fails).await.status.unwrap().message;
    let wrong = message("wrong").await;
    assert!(wrong.starts_with("Query failed with user error: ") && wrong.contains("'Nonsense'") && wrong.contains("(line 2, "), "{wrong}");
    let astray = "Query failed with user error: no client for database \"Nowhere\"";
    assert!(message("astray").await.starts_with(astray));
    if world.api::<AlertRule>().get_opt("never").await.unwrap().is_some() {
        assert!(message("never").await.starts_with("Invalid rule: spec.interval"));
    }
    let gate = |rule: &AlertRule| Some(condition(&rule.status.as_ref()?.conditions, "Criteria")?.1.to_owned());
    world.until::<AlertRule>("elsewhere", |rule| gate(rule).as_deref() == Some("CriteriaNotMatched")).await;
    // Who is told, once each: of the alert, and of the two rules whose query is wrong.
    let received = world.alerts.received();
    let host = world.endpoint();
    let failures = [format!("alert-failure/{host}/rules/wrong"), "alert-failure/unknown/rules/astray".to_owned()];
    let ids: BTreeSet<&str> = received.keys().map(String::as_str).collect();
    assert_eq!(ids, failures.iter().map(String::as_str).chain(["rules/hot://web-1"]).collect());
    assert!(received.values().all(|bodies| bodies.len() == 1), "{received:?}");
    event(world, "AlertRule", "wrong").await;
}

/// Waits for an event about an object.
async fn event(world: &World, kind: &str, name: &str) {
    eventually(async || {
        let events = world.api::<Event>().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let about = |event: &Event| {
            event.regarding.as_ref().is_some_and(|about| about.kind.as_deref() == Some(kind) && about.name.as_deref() == Some(name))
        };
        if events.items.iter().any(about) { Ok(()) } else { Err(format!("there is no event about {kind} {name}")) }
    })
    .await;
}

/// One function uses another whose object comes later by name.
async fn apply_functions_and_commands(world: &World) {
    let spec = |body: &str| json!({"database": "Metrics", "body": body});
    let hottest = ".create-or-alter function Hottest() { Recent() | summarize Max = max(Value) by Host }";
    world.create::<Function>("a-hottest", spec(hottest)).await.unwrap();
    world.create::<Function>("b-recent", spec(".create-or-alter function Recent() { Cpu | where Timestamp > ago(1m) }")).await.unwrap();
    world.create::<ManagementCommand>("runs", spec(".set-or-append Runs <| print At = now()")).await.unwrap();
    world.create::<ManagementCommand>("wrong", spec(".alter table NoSuchTable docstring 'x'")).await.unwrap();
    let mut misspelt = spec(".create-or-alter function Misspelt() { print 1 }");
    misspelt["criteriaExpression"] = json!("regoin == 'eastus'");
    world.create::<Function>("misspelt", misspelt.clone()).await.unwrap();
    world.create::<ManagementCommand>("misspelt", misspelt).await.unwrap();
}

async fn functions_and_commands_are_applied(world: &World) {
    const COMMAND: &str = "managementcommand.adx-mon.azure.com";
    let applied = |function: &Function| function.status.as_ref().is_some_and(|status| status.status == State::Success);
    for name in ["a-hottest", "b-recent"] {
        let function = world.until(name, applied).await;
        let status = function.status.unwrap();
        assert_eq!((Some(status.observed_generation), status.error.as_str()), (function.metadata.generation, ""), "{name}");
        assert_eq!(condition(&status.conditions, "function.adx-mon.azure.com/CriteriaMatch").unwrap().0, "True", "{name}");
    }
    assert_eq!(world.rows("Hottest() | order by Max").await, [json!(["web-1", 97]), json!(["web-2", 12])].map(|row| cells(&row)));
    let says = |command: &ManagementCommand, truth: &str| {
        let conditions = command.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        condition(&conditions, COMMAND).is_some_and(|(status, _, _)| status == truth)
    };
    world.until::<ManagementCommand>("runs", |command| says(command, "True")).await;
    let wrong = world.until::<ManagementCommand>("wrong", |command| says(command, "False")).await;
    let wrong = wrong.status.unwrap();
    assert!(condition(&wrong.conditions, COMMAND).unwrap().2.contains("NoSuchTable"), "{wrong:?}");
    event(world, "ManagementCommand", "wrong").await;
    event(world, "ManagementCommand", "misspelt").await;
    event(world, "Function", "misspelt").await;

    world.api::<Function>().delete("a-hottest", &DeleteParams::default()).await.unwrap();
    eventually(async || match world.api::<Function>().get_opt("a-hottest").await {
        Ok(None) => Ok(()),
        other => Err(format!("the deleted function stays: {other:?}")),
    })
    .await;
    assert_eq!(world.functions().await, ["Recent"]);
}

fn cells(row: &Value) -> Vec<Value> {
    row.as_array().unwrap().clone()
}

fn rollup() -> Value {
    let body = "Cpu
| where Timestamp between (_startTime .. _endTime)
| summarize Rows = count() by Host
| extend Start = _startTime, End = _endTime, Region = _region";
    json!({"database": "Metrics", "name": "rollup", "table": "Rollup", "interval": format!("{INTERVAL}s"), "body": body})
}

fn last_end(rule: &SummaryRule) -> Option<Timestamp> {
    Some(rule.status.as_ref()?.last_window_end.as_ref()?.0)
}

/// `before` is the end of a window that the ingestor has run.
async fn windows_are_summarized_once(world: &World, before: Timestamp) {
    const OWNER: &str = "adx-mon.azure.com/owner";
    let owner = |rule: &SummaryRule| rule.metadata.annotations.as_ref()?.get(OWNER).cloned();
    let taken = world.until::<SummaryRule>("rollup", |rule| owner(rule).as_deref() == Some("adx-exporter")).await;
    let ran_before = last_end(&taken).unwrap();
    assert!(ran_before >= before);
    let enough = |rule: &SummaryRule| last_end(rule).is_some_and(|end| end >= ran_before + SignedDuration::from_secs(2 * INTERVAL));
    let rule = world.until("rollup", enough).await;
    let status = rule.status.as_ref().unwrap();
    assert_eq!((status.failed_windows_total, status.failed_windows.len()), (0, 0));
    let health = condition(&status.conditions, "summaryrule.adx-mon.azure.com").unwrap();
    assert_eq!((health.0, health.1), ("True", "Updated"));

    let time = |cell: &Value| cell.as_str().unwrap().parse::<Timestamp>().unwrap();
    let rows = world.rows("Rollup | project Start, End, Host, Rows, Region | order by Start asc, Host asc").await;
    let (first, last) = (time(&rows[0][0]), time(&rows[rows.len() - 1][0]));
    let windows = (last.as_second() - first.as_second()) / INTERVAL + 1;
    let mut expected = Vec::new();
    for number in 0..windows {
        let start = first + SignedDuration::from_secs(number * INTERVAL);
        let end = start + SignedDuration::from_secs(INTERVAL) - SignedDuration::from_nanos(100);
        expected.extend(["web-1", "web-2"].map(|host| (start, end, json!([host, INTERVAL, "eastus"]))));
    }
    let found: Vec<_> = rows.iter().map(|row| (time(&row[0]), time(&row[1]), Value::from(row[2..].to_vec()))).collect();
    assert_eq!(found, expected, "windows that are missing, or there twice");
    assert!(first.as_second() % INTERVAL == 0 && first < before, "{first}");
    assert!(last + SignedDuration::from_secs(INTERVAL) >= last_end(&rule).unwrap(), "the status is ahead of the table");
}

async fn apply_metrics_exporters(world: &World) {
    let spec = |body: &str| {
        let transform =
            json!({"defaultMetricName": "cpu", "valueColumns": ["Max"], "labelColumns": ["Host"], "timestampColumn": "Timestamp"});
        json!({"database": "Metrics", "interval": format!("{INTERVAL}s"), "body": body, "transform": transform})
    };
    let body = "Cpu
| where Timestamp between (_startTime .. _endTime)
| summarize Max = max(Value), Timestamp = min(Timestamp) by Host";
    world.create::<MetricsExporter>("cpu", spec(body)).await.unwrap();
    world.create::<MetricsExporter>("wrong", spec("Cpu | where Nonsense > 1")).await.unwrap();
}

async fn metrics_are_exported(world: &World) {
    let points = eventually(async || {
        let points = world.points.received();
        if points.len() >= 4 { Ok(points) } else { Err(format!("points of less than two windows came: {points:?}")) }
    })
    .await;
    let start = points.iter().map(|point| point.2).min().unwrap();
    assert_eq!(i64::try_from(start).unwrap() % INTERVAL, 0, "a window begins at {start}");
    let windows = points.len().div_ceil(2);
    let expected = (0..windows as u64).flat_map(|window| {
        let point = move |host: &str, value: f64| {
            let host = BTreeMap::from([("Host".to_owned(), host.to_owned())]);
            ("cpu_max".to_owned(), host, start + window * INTERVAL.unsigned_abs(), value)
        };
        [point("web-1", 97.0), point("web-2", 12.0)]
    });
    let by_time = |mut points: Vec<world::Point>| {
        points.sort_by(|a, b| (a.2, &a.1).cmp(&(b.2, &b.1)));
        points
    };
    assert_eq!(by_time(points), by_time(expected.collect()));
    let exporter = world.until::<MetricsExporter>("cpu", |exporter| exporter.status.as_ref().is_some_and(|s| s.last_samples == 2)).await;
    let status = exporter.status.unwrap();
    assert!(status.last_window_end.is_some());
    assert_eq!(condition(&status.conditions, "metricsexporter.adx-mon.azure.com").unwrap().0, "True");
    let fails = |exporter: &MetricsExporter| {
        let status = exporter.status.as_ref();
        status.is_some_and(|status| condition(&status.conditions, "Failed").is_some_and(|(truth, ..)| truth == "True"))
    };
    let wrong = world.until::<MetricsExporter>("wrong", fails).await.status.unwrap();
    assert!(condition(&wrong.conditions, "Failed").unwrap().2.contains("Nonsense"), "{wrong:?}");
    event(world, "MetricsExporter", "wrong").await;
}

/// Leases that are given back, cursors for the next alerter, one run of the command.
async fn what_replicas_share_is_left_behind(world: &World) {
    let leases: Api<Lease> = Api::namespaced(world.admin.clone(), OURS);
    for component in COMPONENTS {
        let lease = leases.get(component).await.unwrap().spec.unwrap();
        assert_eq!(lease.holder_identity.as_deref(), Some(""), "{component}");
    }
    let maps: Api<ConfigMap> = Api::namespaced(world.admin.clone(), OURS);
    let cursors = maps.get("alerter-checkpoint").await.unwrap().data.unwrap().remove("cursors").unwrap();
    assert!(cursors.lines().any(|line| line.ends_with(" rules/hot")), "{cursors}");
    assert_eq!(world.rows("Runs | count").await, [[json!(1)]]);
}

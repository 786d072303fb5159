//! Several deployments whose databases have the same name: a rule has one cursor, so two clusters would each get some of the
//! windows.

use std::sync::Arc;

use crds::SummaryRule;
use rules::clock::Clock as _;
use rules::store::{Key, Store};
use rules::summary::Owner;

use super::{HEALTH, Running, Service, at, rule};
use crate::support::FailingStore;

const OWNER: &str = "adx-mon.azure.com/owner";
const DEPLOYMENT: &str = "adx-mon.azure.com/deployment";

fn annotated(mut rule: SummaryRule, annotation: &str, value: &str) -> SummaryRule {
    rule.metadata.annotations.get_or_insert_default().insert(annotation.to_owned(), value.to_owned());
    rule
}

/// The rules of a test.
struct World {
    store: Arc<FailingStore<SummaryRule>>,
}

impl World {
    fn of(rule: SummaryRule) -> World {
        World { store: Arc::new(FailingStore::new([rule])) }
    }

    /// Starts a deployment with a cluster of its own.
    async fn start(&self, name: &'static str, owner: Owner) -> (Running, Service) {
        let (service, client) = Service::start().await;
        let running = Running::with(self.store.clone(), &[("DB", client)], owner, move |runner| runner.deployment(name));
        (running, service)
    }

    /// Whether all windows are complete until then.
    fn is_complete(&self, until: &str) -> bool {
        let status = self.rule().status.clone().unwrap_or_default();
        status.last_window_end.is_some_and(|last| last.0 >= at(until)) && status.backlog == 0
    }

    fn rule(&self) -> Arc<SummaryRule> {
        self.store.objects().get(&Key::new("ns", "r")).unwrap()
    }

    fn annotation(&self, name: &str) -> Option<String> {
        self.rule().metadata.annotations.as_ref()?.get(name).cloned()
    }

    async fn annotate(&self, annotation: &str, value: &str) {
        let change = |rule: &mut SummaryRule| *rule = annotated(rule.clone(), annotation, value);
        self.store.update(&Key::new("ns", "r"), &change).await.unwrap();
    }
}

/// Where the windows of commands begin.
fn starts(service: &Service) -> Vec<String> {
    let start = |command: &String| command.split("_startTime=datetime(").nth(1).unwrap().split(')').next().unwrap().to_owned();
    service.commands().iter().map(start).collect()
}

#[tokio::test]
async fn of_two_deployments_one_runs_a_rule_and_the_status_says_which() {
    for (owner, names) in [(Owner::Ingestor, ["a/ingestor", "b/ingestor"]), (Owner::Exporter, ["a/adxexporter", "b/adxexporter"])] {
        let world = World::of(annotated(rule("r", "DB"), OWNER, owner.as_str()));
        let (first, one) = world.start(names[0], owner).await;
        first.until("it is on record", || first.condition("r", "Deployment").is_some()).await;
        let (other, two) = world.start(names[1], owner).await;
        other.until("it is left", || other.condition("r", "DeploymentConflict").is_some()).await;
        for hour in ["10", "11", "12"] {
            let end = format!("2024-01-01T{hour}:00:00Z");
            first.until("a window is complete", || world.is_complete(&end)).await;
        }
        assert_eq!((one.commands().len(), two.commands().len()), (3, 0));
        let (truth, message) = first.condition("r", "DeploymentConflict").unwrap();
        let expected = format!("{} runs this rule, on its cluster only", names[0]);
        assert!(truth == "True" && message.starts_with(&expected), "{message}");
        assert_eq!(world.store.inner.events().iter().filter(|(_, event)| event.reason == "RunByAnother").count(), 1);

        // Handed over, the other goes on where the first one ended.
        first.stop().await;
        world.annotate(DEPLOYMENT, names[1]).await;
        other.until("the next window is complete", || world.is_complete("2024-01-01T13:00:00Z")).await;
        assert_eq!(starts(&two), ["2024-01-01T12:00:00Z"]);
        assert_eq!(other.condition("r", "Deployment"), Some(("True".to_owned(), names[1].to_owned())));
        assert_eq!(other.condition("r", "DeploymentConflict"), None);
        assert_eq!(one.commands().len(), 3);
        other.stop().await;
    }
}

#[tokio::test]
async fn exporters_take_over_what_the_ingestors_of_their_namespace_run_and_no_others_do() {
    let world = World::of(rule("r", "DB"));
    let (ingestor, of_ingestor) = world.start("a/ingestor", Owner::Ingestor).await;
    ingestor.until("a window is complete", || world.is_complete("2024-01-01T10:00:00Z")).await;
    let (stranger, of_stranger) = world.start("b/adxexporter", Owner::Exporter).await;
    stranger.until("it is left", || stranger.condition("r", "DeploymentConflict").is_some()).await;
    let (_, message) = stranger.condition("r", "DeploymentConflict").unwrap();
    assert!(message.starts_with("a/ingestor runs this rule"), "{message}");
    // Also where the ingestor is gone.
    ingestor.stop().await;
    stranger.clock.set(at("2024-01-01T13:17:00Z"));
    stranger.until("it has had time", || stranger.clock.now() >= at("2024-01-01T13:40:00Z")).await;
    assert_eq!(world.annotation(OWNER), None);

    let (exporter, of_exporter) = world.start("a/adxexporter", Owner::Exporter).await;
    exporter.until("the next window is complete", || world.is_complete("2024-01-01T11:00:00Z")).await;
    assert_eq!(world.annotation(OWNER).as_deref(), Some("adx-exporter"));
    assert_eq!(exporter.condition("r", "Deployment"), Some(("True".to_owned(), "a/adxexporter".to_owned())));
    assert_eq!(starts(&of_exporter), ["2024-01-01T10:00:00Z"]);
    assert_eq!((of_ingestor.commands().len(), of_stranger.commands().len()), (1, 0));
    exporter.stop().await;
    stranger.stop().await;
}

/// The annotation hands a rule to an exporter of another namespace, as it does among ingestors.
#[tokio::test]
async fn an_annotation_hands_a_rule_of_an_ingestor_to_an_exporter_elsewhere() {
    let world = World::of(rule("r", "DB"));
    let (ingestor, of_ingestor) = world.start("a/ingestor", Owner::Ingestor).await;
    ingestor.until("a window is complete", || world.is_complete("2024-01-01T10:00:00Z")).await;
    let (exporter, of_exporter) = world.start("b/adxexporter", Owner::Exporter).await;
    exporter.until("it is left", || exporter.condition("r", "DeploymentConflict").is_some()).await;
    world.annotate(DEPLOYMENT, "b/adxexporter").await;
    exporter.until("the next window is complete", || world.is_complete("2024-01-01T11:00:00Z")).await;
    assert_eq!((starts(&of_exporter), of_ingestor.commands().len()), (vec!["2024-01-01T10:00:00Z".to_owned()], 1));
    exporter.stop().await;
    ingestor.stop().await;
}

/// Whoever makes exporters the owner by hand does not move the rule to another cluster by that.
#[tokio::test]
async fn a_rule_that_is_given_to_exporters_stays_in_its_namespace() {
    let world = World::of(rule("r", "DB"));
    let (ingestor, _) = world.start("a/ingestor", Owner::Ingestor).await;
    ingestor.until("a window is complete", || world.is_complete("2024-01-01T10:00:00Z")).await;
    world.annotate(OWNER, "adx-exporter").await;
    let (stranger, of_stranger) = world.start("b/adxexporter", Owner::Exporter).await;
    stranger.until("it is left", || stranger.condition("r", "DeploymentConflict").is_some()).await;
    let (exporter, of_exporter) = world.start("a/adxexporter", Owner::Exporter).await;
    exporter.until("the next window is complete", || world.is_complete("2024-01-01T11:00:00Z")).await;
    assert_eq!((starts(&of_exporter), of_stranger.commands().len()), (vec!["2024-01-01T10:00:00Z".to_owned()], 0));
    assert_eq!(exporter.condition("r", "Deployment"), Some(("True".to_owned(), "a/adxexporter".to_owned())));
    assert_eq!(exporter.condition("r", HEALTH).unwrap().0, "True");
    exporter.stop().await;
    stranger.stop().await;
    ingestor.stop().await;
}

//! What to do about a resource, from what is around it. Pure.
//!
//! The order is ADXCluster, Ingestor, Collector, Alerter: each is installed once those before it are ready, and says which
//! it waits for. What is installed already is looked after whatever happens to those before it.

use crds::conditions::{self, Truth};
use crds::criteria::{Criteria, Labels};
use crds::{AdxCluster, Alerter, Collector, CriteriaMap, Ingestor, LabelSelector};

use crate::manifest;
use crate::render::{self, Kusto, RenderError, Rendered, Settings};
use crate::status::Verdict;

/// What is around a resource: of its namespace, as far as its kind needs it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// ADXClusters.
    pub clusters: Vec<AdxCluster>,
    /// Ingestors.
    pub ingestors: Vec<Ingestor>,
    /// Collectors.
    pub collectors: Vec<Collector>,
    /// Whether this Collector has to run MetricsExporters.
    pub exports: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing before something else changes.
    Stop(Verdict),
    /// Bring the cluster to this.
    Install(Rendered),
}

/// Why a resource is not meant for this cluster, if it is not. The words are the reference's.
pub fn criteria(expression: &str, labels: &Labels) -> Option<Verdict> {
    match Criteria::new(&CriteriaMap::new(), expression).evaluate(labels) {
        Err(error) => Some(Verdict::new(Truth::False, "CriteriaExpressionError", error.to_string())),
        Ok(outcome) if outcome.proceeds() => None,
        Ok(_) => {
            Some(Verdict::new(Truth::False, "CriteriaExpressionFalse", "criteriaExpression evaluated to false; skipping reconciliation"))
        }
    }
}

/// Of an Ingestor.
pub fn ingestor(ingestor: &Ingestor, around: &Surroundings, settings: &Settings) -> Step {
    let installed = ingestor.status.as_ref().is_some_and(|status| status.observed_generation.is_some());
    let clusters = clusters(&ingestor.spec.adx_cluster_selector, around, settings, installed);
    step(clusters.map(|clusters| render::ingestor::render(ingestor, &clusters, settings)))
}

/// Of a Collector, without its MetricsExporters.
pub fn collector(collector: &Collector, around: &Surroundings, settings: &Settings) -> Step {
    let installed = collector.status.as_ref().is_some_and(|status| status.observed_generation.is_some());
    let endpoint = match collector.spec.ingestor_endpoint.as_str() {
        "" => ingestor_of(around, settings, installed),
        endpoint => Ok(endpoint.to_owned()),
    };
    step(endpoint.map(|endpoint| render::collector::render(collector, &endpoint, settings)))
}

/// Of the adxexporter of a Collector: its objects, and what the condition says if there are MetricsExporters.
pub fn exporter(collector: &Collector, around: &Surroundings, settings: &Settings) -> Result<(Rendered, Option<Verdict>), RenderError> {
    if !around.exports {
        return Ok((render::exporter::render(collector, None, settings)?, None));
    }
    let selector = collector.spec.metrics_export.clone().unwrap_or_default().adx_cluster_selector.unwrap_or_default();
    let verdict = match clusters(&selector, around, settings, false) {
        Ok(clusters) => match render::exporter::render(collector, Some(&clusters), settings) {
            Ok(rendered) => return Ok((rendered, Some(Verdict::new(Truth::True, "Installed", "MetricsExporters are run")))),
            Err(error) => Verdict::new(Truth::False, "TemplateError", error.to_string()),
        },
        Err(verdict) => verdict,
    };
    // What runs already goes on.
    Ok((Rendered::default(), Some(verdict)))
}

/// Of an Alerter.
pub fn alerter(alerter: &Alerter, around: &Surroundings, settings: &Settings) -> Step {
    let installed = alerter.status.as_ref().is_some_and(|status| status.observed_generation.is_some());
    let clusters = clusters(&alerter.spec.adx_cluster_selector, around, settings, installed);
    let clusters = clusters.and_then(|clusters| match installed {
        true => Ok(clusters),
        false => others_are_ready(around, settings).map(|()| clusters),
    });
    step(clusters.map(|clusters| render::alerter::render(alerter, &clusters, settings)))
}

fn step(rendered: Result<Result<Rendered, RenderError>, Verdict>) -> Step {
    match rendered {
        Ok(Ok(rendered)) => Step::Install(rendered),
        Ok(Err(error)) => Step::Stop(Verdict::new(Truth::False, "TemplateError", error.to_string())),
        Err(verdict) => Step::Stop(verdict),
    }
}

fn waiting(message: String) -> Verdict {
    Verdict::new(Truth::False, "NotReady", message)
}

/// The clusters that a selector means, ready once.
fn clusters(selector: &LabelSelector, around: &Surroundings, settings: &Settings, installed: bool) -> Result<Vec<Kusto>, Verdict> {
    let invalid = |problem| Verdict::new(Truth::False, "TemplateError", problem);
    let meant = around.clusters.iter().filter(|cluster| criteria(&cluster.spec.criteria_expression, &settings.labels).is_none());
    let namespace = around.clusters.first().and_then(|cluster| cluster.metadata.namespace.clone());
    let selected = manifest::select(meant, selector, namespace.as_deref()).map_err(invalid)?;
    if selected.is_empty() {
        return Err(waiting("waiting for an ADXCluster: none in this namespace matches the adxClusterSelector".to_owned()));
    }
    let known = |cluster: &&AdxCluster| {
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        let conditions = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let condition = conditions::get(conditions, "adxcluster.adx-mon.azure.com");
        let ready = condition.is_some_and(|condition| condition.status == "True");
        match Kusto::of(cluster).filter(|_| ready || installed) {
            Some(kusto) => Ok(kusto),
            None => {
                let why = condition.map(|condition| format!("{}: {}", condition.reason, condition.message));
                Err(waiting(format!("waiting for ADXCluster {name}: {}", why.as_deref().unwrap_or("it is not looked at yet"))))
            }
        }
    };
    selected.iter().map(known).collect()
}

/// URL of the ingestors of the namespace: those with an endpoint of their own first.
fn ingestor_of(around: &Surroundings, settings: &Settings, installed: bool) -> Result<String, Verdict> {
    let meant = around.ingestors.iter().filter(|ingestor| criteria(&ingestor.spec.criteria_expression, &settings.labels).is_none());
    let first = meant.min_by_key(|ingestor| (ingestor.spec.endpoint.is_empty(), ingestor.metadata.name.clone()));
    let Some(ingestor) = first else {
        return Err(waiting("waiting for an Ingestor: there is none in this namespace; add one, or set spec.ingestorEndpoint".to_owned()));
    };
    let name = ingestor.metadata.name.as_deref().unwrap_or_default();
    let pods = ingestor.status.as_ref().and_then(|status| Some((status.replicas?, status.ready_replicas?)));
    match (installed, pods) {
        (true, _) => {}
        (false, Some((wanted, ready))) if ready > 0 || wanted == 0 => {}
        (false, _) => return Err(waiting(format!("waiting for Ingestor {name}: none of its pods is ready"))),
    }
    render::ingestor::endpoint(ingestor).ok_or_else(|| waiting(format!("waiting for Ingestor {name}: it has no name")))
}

/// Ingestors and Collectors of the namespace, as far as there are any.
fn others_are_ready(around: &Surroundings, settings: &Settings) -> Result<(), Verdict> {
    let ready = |kind: &str, name: &Option<String>, expression: &str, pods: Option<(Option<i32>, Option<i32>)>| {
        let (wanted, ready) = pods.unwrap_or_default();
        let is_ready = ready.unwrap_or_default() > 0 || wanted == Some(0);
        if is_ready || criteria(expression, &settings.labels).is_some() {
            return Ok(());
        }
        Err(waiting(format!("waiting for {kind} {}: none of its pods is ready", name.as_deref().unwrap_or_default())))
    };
    for ingestor in &around.ingestors {
        let pods = ingestor.status.as_ref().map(|status| (status.replicas, status.ready_replicas));
        ready("Ingestor", &ingestor.metadata.name, &ingestor.spec.criteria_expression, pods)?;
    }
    for collector in &around.collectors {
        let pods = collector.status.as_ref().map(|status| (status.replicas, status.ready_replicas));
        ready("Collector", &collector.metadata.name, &collector.spec.criteria_expression, pods)?;
    }
    Ok(())
}

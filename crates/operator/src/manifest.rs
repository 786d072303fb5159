//! Resources in files, and the objects that they ask for: `operator render`.
//!
//! A file is read strictly: a field that does not exist is a mistake, as it would be for `kubectl` with strict validation.

use std::fmt::Write as _;

use crds::criteria::Criteria;
use crds::{AdxCluster, Alerter, Collector, CriteriaMap, Ingestor, LabelSelector, MetricsExporter};
use kube_client::core::{Selector, SelectorExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::limits;
use crate::render::{self, Kusto, RenderError, Rendered, Settings};

/// The resources of a set of files.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// ADXClusters.
    pub clusters: Vec<AdxCluster>,
    /// Ingestors.
    pub ingestors: Vec<Ingestor>,
    /// Collectors.
    pub collectors: Vec<Collector>,
    /// Alerters.
    pub alerters: Vec<Alerter>,
    /// Whether there is a MetricsExporter.
    pub metrics_exporters: bool,
}

/// What is wrong with a file or resource.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{place}: {problem}")]
pub struct Mistake {
    /// File and document, or kind and name.
    pub place: String,
    /// What is wrong, with the path of the field.
    pub problem: String,
}

impl Resources {
    /// Adds the documents of a file. `name` is for mistakes.
    pub fn read(&mut self, name: &str, text: &str) -> Vec<Mistake> {
        let mistake = |place: String, problem: String| Mistake { place, problem };
        let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            Err(error) => return vec![mistake(name.to_owned(), error.to_string())],
        };
        let mut mistakes = Vec::new();
        for (at, document) in documents.into_iter().filter(|document| !document.is_null()).enumerate() {
            let texts = |path: &str| document.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (version, kind, object) = (texts("/apiVersion"), texts("/kind"), texts("/metadata/name"));
            let place =
                format!("{name}, document {}{}", at + 1, if object.is_empty() { object.clone() } else { format!(" ({kind} {object})") });
            if version != format!("{}/{}", crds::GROUP, crds::VERSION) {
                let problem = format!("apiVersion is {version:?}; this reads {}/{}", crds::GROUP, crds::VERSION);
                mistakes.push(mistake(place, problem));
                continue;
            }
            if object.is_empty() {
                mistakes.push(mistake(place, "metadata.name is missing".to_owned()));
                continue;
            }
            let beyond = limits::problems(&kind, &document["spec"]);
            let mut problems = match kind.as_str() {
                "ADXCluster" => add(document, &mut self.clusters),
                "Ingestor" => add(document, &mut self.ingestors),
                "Collector" => add(document, &mut self.collectors),
                "Alerter" => add(document, &mut self.alerters),
                "MetricsExporter" => {
                    self.metrics_exporters = true;
                    add::<MetricsExporter>(document, &mut Vec::new())
                }
                "AlertRule" | "SummaryRule" | "Function" | "ManagementCommand" => Vec::new(),
                _ => vec![format!("kind {kind:?} is unknown; this reads ADXCluster, Ingestor, Collector, Alerter and MetricsExporter")],
            };
            if problems.is_empty() {
                problems = beyond;
            }
            mistakes.extend(problems.into_iter().map(|problem| mistake(place.clone(), problem)));
        }
        mistakes
    }

    /// The objects of each resource, by kind and name, in the order in which they are installed.
    pub fn render(&self, settings: &Settings) -> Result<Vec<(String, Rendered)>, Vec<Mistake>> {
        let (mut all, mut mistakes) = (Vec::new(), Vec::new());
        let mut keep = |kind: &str, name: &Option<String>, rendered: Result<Option<Rendered>, String>| {
            let place = format!("{kind} {}", name.as_deref().unwrap_or_default());
            match rendered {
                Ok(Some(rendered)) => all.push((place, rendered)),
                Ok(None) => all.push((format!("{place}, which is not meant for this cluster"), Rendered::default())),
                Err(problem) => mistakes.push(Mistake { place, problem }),
            }
        };
        let text = |error: RenderError| error.to_string();
        for cluster in &self.clusters {
            let render = || render::kustd::render(cluster, settings).map_err(text);
            keep("ADXCluster", &cluster.metadata.name, meant(&cluster.spec.criteria_expression, settings, render));
        }
        for ingestor in &self.ingestors {
            let render = || {
                let clusters = self.selected(&ingestor.spec.adx_cluster_selector, ingestor.metadata.namespace.as_deref())?;
                render::ingestor::render(ingestor, &clusters, settings).map_err(text)
            };
            keep("Ingestor", &ingestor.metadata.name, meant(&ingestor.spec.criteria_expression, settings, render));
        }
        for (at, collector) in self.collectors.iter().enumerate() {
            let render = || {
                let endpoint = self.ingestor_of(collector)?;
                let mut rendered = render::collector::render(collector, &endpoint, settings).map_err(text)?;
                let clusters = match self.metrics_exporters && at == 0 {
                    true => {
                        let export = collector.spec.metrics_export.clone().unwrap_or_default();
                        let selector = export.adx_cluster_selector.unwrap_or_default();
                        Some(self.selected(&selector, collector.metadata.namespace.as_deref())?)
                    }
                    false => None,
                };
                let exporter = render::exporter::render(collector, clusters.as_deref(), settings).map_err(text)?;
                rendered.objects.extend(exporter.objects);
                rendered.absent.extend(exporter.absent);
                Ok(rendered)
            };
            keep("Collector", &collector.metadata.name, meant(&collector.spec.criteria_expression, settings, render));
        }
        for alerter in &self.alerters {
            let render = || {
                let clusters = self.selected(&alerter.spec.adx_cluster_selector, alerter.metadata.namespace.as_deref())?;
                render::alerter::render(alerter, &clusters, settings).map_err(text)
            };
            keep("Alerter", &alerter.metadata.name, meant(&alerter.spec.criteria_expression, settings, render));
        }
        if mistakes.is_empty() { Ok(all) } else { Err(mistakes) }
    }

    fn selected(&self, selector: &LabelSelector, namespace: Option<&str>) -> Result<Vec<Kusto>, String> {
        let clusters = select(&self.clusters, selector, namespace)?;
        if clusters.is_empty() {
            return Err("the adxClusterSelector matches no ADXCluster of the files in this namespace; add the ADXCluster".to_owned());
        }
        let known = |cluster: &&AdxCluster| {
            let name = cluster.metadata.name.as_deref().unwrap_or_default();
            Kusto::of(cluster)
                .ok_or_else(|| format!("the endpoint of ADXCluster {name} is known once it is made: give it spec.endpoint here"))
        };
        clusters.iter().map(known).collect()
    }

    fn ingestor_of(&self, collector: &Collector) -> Result<String, String> {
        if !collector.spec.ingestor_endpoint.is_empty() {
            return Ok(collector.spec.ingestor_endpoint.clone());
        }
        let same = |ingestor: &&Ingestor| ingestor.metadata.namespace == collector.metadata.namespace;
        let found = self.ingestors.iter().find(same).and_then(render::ingestor::endpoint);
        found.ok_or_else(|| "spec.ingestorEndpoint is empty and the files have no Ingestor in this namespace: give one of them".to_owned())
    }
}

/// The clusters of a namespace that a selector matches, by name. An empty selector matches all.
///
/// # Errors
/// A selector that cannot be one.
pub fn select<'a>(
    clusters: impl IntoIterator<Item = &'a AdxCluster>,
    selector: &LabelSelector,
    namespace: Option<&str>,
) -> Result<Vec<&'a AdxCluster>, String> {
    let selector: Selector = selector.clone().try_into().map_err(|error| format!("spec.adxClusterSelector: {error}"))?;
    let none = std::collections::BTreeMap::new();
    let mut found: Vec<&AdxCluster> = clusters
        .into_iter()
        .filter(|cluster| cluster.metadata.namespace.as_deref() == namespace)
        .filter(|cluster| selector.matches(cluster.metadata.labels.as_ref().unwrap_or(&none)))
        .collect();
    found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    Ok(found)
}

/// What is rendered, unless the criteria are against it.
fn meant(expression: &str, settings: &Settings, render: impl FnOnce() -> Result<Rendered, String>) -> Result<Option<Rendered>, String> {
    let outcome = Criteria::new(&CriteriaMap::new(), expression).evaluate(&settings.labels);
    match outcome {
        Err(error) => Err(format!("spec.criteriaExpression: {error}; labels are given with --cluster-labels")),
        Ok(outcome) if !outcome.proceeds() => Ok(None),
        Ok(_) => render().map(Some),
    }
}

/// Reads a document; what is wrong with it, or nothing.
fn add<K: DeserializeOwned>(document: Value, list: &mut Vec<K>) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_path_to_error::Deserializer::new(&document, &mut track);
    let read: Result<K, _> = serde_ignored::deserialize(reader, |path| {
        let path = path.to_string().replace("?.", "").replace(".?", "");
        // What the server writes is no mistake.
        if !["apiVersion", "kind", "metadata", "status"].iter().any(|own| path.starts_with(own)) {
            unknown.push(format!("{path}: there is no such field"));
        }
    });
    match read {
        Ok(object) if unknown.is_empty() => {
            list.push(object);
            Vec::new()
        }
        Ok(_) => unknown,
        Err(error) => vec![format!("{}: {error}", track.path())],
    }
}

/// The objects as YAML documents.
///
/// # Errors
/// Never for what has been rendered.
pub fn yaml(rendered: &[(String, Rendered)]) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for (resource, rendered) in rendered {
        if rendered.objects.is_empty() {
            let _ = writeln!(text, "---\n# {resource}: no objects");
        }
        for object in &rendered.objects {
            let document = serde_saphyr::to_string(&object.body)?;
            let _ = write!(text, "---\n# {resource}\n{}\n", document.trim_end());
        }
    }
    Ok(text)
}

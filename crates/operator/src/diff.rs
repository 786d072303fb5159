//! What differs between a live cluster and what its resources ask for: `operator diff`.
//!
//! The API server is asked what applying would lead to (dry run), so that defaults of the server do not show as differences.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use crds::{AdxCluster, Alerter, Collector, Ingestor, MetricsExporter};
use kube_client::Client;
use kube_client::api::{Api, ListParams};
use serde_json::Value;

use crate::apply::{ApplyError, Cluster, as_value, in_time};
use crate::manifest::Resources;
use crate::object::Object;
use crate::render::Settings;

/// The resources of a cluster, or of one of its namespaces.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn resources(client: &Client, namespace: Option<&str>) -> Result<Resources, ApplyError> {
    macro_rules! list {
        ($kind:ty) => {{
            let api: Api<$kind> = match namespace {
                Some(namespace) => Api::namespaced(client.clone(), namespace),
                None => Api::all(client.clone()),
            };
            in_time(concat!("listing ", stringify!($kind)), api.list(&ListParams::default())).await?.items
        }};
    }
    let exporters: Api<MetricsExporter> = Api::all(client.clone());
    let exporters = in_time("listing MetricsExporters", exporters.list_metadata(&ListParams::default().limit(1))).await?;
    let mut collectors = list!(Collector);
    // The oldest runs the exporters.
    collectors.sort_by_key(|collector| collector.metadata.creation_timestamp.as_ref().map(|time| time.0));
    Ok(Resources {
        clusters: list!(AdxCluster),
        ingestors: list!(Ingestor),
        collectors,
        alerters: list!(Alerter),
        metrics_exporters: !exporters.items.is_empty(),
    })
}

/// The differences as text, empty if there are none; and what is wrong with resources.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn differences(cluster: &Cluster, resources: &Resources, settings: &Settings) -> anyhow::Result<String> {
    let rendered = resources.render(settings).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })?;
    let mut text = String::new();
    for (resource, rendered) in rendered {
        for object in &rendered.objects {
            let lines = difference(cluster, object).await.with_context(|| resource.clone())?;
            if !lines.is_empty() {
                let _ = write!(text, "{} ({resource})\n{lines}", object.reference);
            }
        }
        for reference in &rendered.absent {
            let Some(live) = cluster.get(reference).await? else { continue };
            // One of somebody else is left alone.
            let ours = live.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(crate::render::OWNER_NAME));
            if ours {
                let _ = writeln!(text, "{reference} ({resource})\n  - would be deleted");
            }
        }
    }
    Ok(text)
}

async fn difference(cluster: &Cluster, object: &Object) -> Result<String, ApplyError> {
    let Some(live) = cluster.get(&object.reference).await? else { return Ok("  + would be created\n".to_owned()) };
    let after = match cluster.dry_run(object).await {
        Ok(after) => after,
        Err(error @ ApplyError::Api { error: kube_client::Error::Api(_), .. }) => return Ok(format!("  ! {error}\n")),
        Err(error) => return Err(error),
    };
    let (before, after) = (fields(&as_value(&live)), fields(&as_value(&after)));
    let mut lines = String::new();
    for path in before.keys().chain(after.keys().filter(|path| !before.contains_key(*path))) {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let _ = old.map(|old| writeln!(lines, "  - {path}: {old}"));
        let _ = new.map(|new| writeln!(lines, "  + {path}: {new}"));
    }
    Ok(lines)
}

/// Path to value of all that is not the server's own.
fn fields(object: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: String, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                fields.iter().for_each(|(name, value)| walk(value, format!("{path}.{name}"), found));
            }
            Value::Array(items) if !items.is_empty() => {
                items.iter().enumerate().for_each(|(at, item)| walk(item, format!("{path}[{at}]"), found));
            }
            leaf => drop(found.insert(path, leaf.clone())),
        }
    }
    let mut found = BTreeMap::new();
    walk(object, String::new(), &mut found);
    let own = [".metadata.managedFields", ".metadata.resourceVersion", ".metadata.generation", ".status"];
    found.retain(|path, _| !own.iter().any(|prefix| path.starts_with(prefix)));
    found
}

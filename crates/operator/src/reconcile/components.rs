//! Ingestor, Collector and Alerter: what each reads before it decides.

use crds::{AdxCluster, Alerter, Collector, Condition, Ingestor, MetricsExporter};
use k8s_openapi::NamespaceResourceScope;
use kube_client::Resource;
use kube_client::api::{Api, ListParams};
use kube_runtime::controller::Action;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Context, INSTALLED, LOOK_AGAIN, LookError, Managed, Report, Step, Surroundings, decide, install, names};
use crate::apply::{ApplyError, in_time};
use crate::render::{Owner, Rendered};
use crate::status;

/// Condition about the adxexporter of a Collector.
const METRICS_EXPORT: &str = "MetricsExport";

async fn list<K>(context: &Context, namespace: &str) -> Result<Vec<K>, ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let doing = format!("listing {} of {namespace}", K::plural(&()));
    Ok(in_time(&doing, context.api::<K>(namespace).list(&ListParams::default())).await?.items)
}

macro_rules! managed {
    ($kind:ident) => {
        const KIND: &'static str = stringify!($kind);
        const HAS_BINDINGS: bool = true;

        fn criteria(&self) -> &str {
            &self.spec.criteria_expression
        }

        fn conditions(&self) -> Vec<Condition> {
            self.status.clone().unwrap_or_default().conditions
        }

        fn status(&self) -> Value {
            serde_json::to_value(&self.status).unwrap_or_default()
        }
    };
}

impl Managed for Ingestor {
    managed!(Ingestor);

    async fn look(&self, context: &Context, report: &mut Report) -> Result<Action, LookError> {
        let (namespace, _) = names(&self.metadata);
        let around = Surroundings { clusters: list(context, namespace).await?, ..Surroundings::default() };
        take(self, decide::ingestor(self, &around, &context.settings), context, report).await
    }
}

impl Managed for Alerter {
    managed!(Alerter);

    async fn look(&self, context: &Context, report: &mut Report) -> Result<Action, LookError> {
        let (namespace, _) = names(&self.metadata);
        let around = Surroundings {
            clusters: list(context, namespace).await?,
            ingestors: list(context, namespace).await?,
            collectors: list(context, namespace).await?,
            exports: false,
        };
        take(self, decide::alerter(self, &around, &context.settings), context, report).await
    }
}

impl Managed for Collector {
    managed!(Collector);

    async fn look(&self, context: &Context, report: &mut Report) -> Result<Action, LookError> {
        let (namespace, _) = names(&self.metadata);
        let exports = self.exports(context).await?;
        let around = Surroundings {
            clusters: if exports { list(context, namespace).await? } else { Vec::new() },
            ingestors: list(context, namespace).await?,
            exports,
            ..Surroundings::default()
        };
        let mut step = decide::collector(self, &around, &context.settings);
        if let Step::Install(rendered) = &mut step {
            // A name that makes no objects is found when the collector is rendered.
            if let Ok((exporter, verdict)) = decide::exporter(self, &around, &context.settings) {
                rendered.objects.extend(exporter.objects);
                rendered.absent.extend(exporter.absent);
                report.others.push((METRICS_EXPORT, verdict));
            }
        }
        take(self, step, context, report).await
    }
}

/// Exporters of all namespaces are run once: by the oldest Collector.
trait Exports {
    async fn exports(&self, context: &Context) -> Result<bool, ApplyError>;
}

impl Exports for Collector {
    async fn exports(&self, context: &Context) -> Result<bool, ApplyError> {
        let client = context.cluster.client();
        let exporters: Api<MetricsExporter> = Api::all(client.clone());
        let any = in_time("listing MetricsExporters", exporters.list_metadata(&ListParams::default().limit(1))).await?;
        if any.items.is_empty() {
            return Ok(false);
        }
        let collectors = in_time("listing Collectors", Api::<Collector>::all(client.clone()).list(&ListParams::default())).await?;
        let meant = collectors.items.iter().filter(|collector| {
            collector.metadata.deletion_timestamp.is_none() && decide::criteria(collector.criteria(), &context.settings.labels).is_none()
        });
        let age = |collector: &&Collector| {
            let meta = &collector.metadata;
            (meta.creation_timestamp.as_ref().map(|time| time.0), meta.namespace.clone(), meta.name.clone())
        };
        Ok(meant.min_by_key(age).is_some_and(|first| first.metadata.uid == self.metadata.uid))
    }
}

/// Does what was decided.
async fn take<K: Managed>(object: &K, step: Step, context: &Context, report: &mut Report) -> Result<Action, LookError> {
    let rendered: Rendered = match step {
        Step::Stop(verdict) => {
            report.owner = Some(verdict);
            if object.status()["observedGeneration"].is_null() {
                report.others.extend(INSTALLED.map(|type_| (type_, None)));
            }
            return Ok(Action::requeue(LOOK_AGAIN));
        }
        Step::Install(rendered) => rendered,
    };
    // Rendering has taken the name already.
    let (namespace, name) = names(object.meta());
    let uid = object.meta().uid.clone().unwrap_or_default();
    let owner = Owner { kind: K::KIND.to_owned(), namespace: namespace.to_owned(), name: name.to_owned(), uid };
    let pods = install::install(object, &owner, &rendered, context, report).await?;
    report.owner = Some(status::installed(pods));
    let insecure = report.others.iter().any(|(type_, verdict)| {
        *type_ == status::SECURITY && verdict.as_ref().is_some_and(|verdict| verdict.status != crds::conditions::Truth::True)
    });
    // Roles are not watched.
    Ok(if insecure { Action::requeue(LOOK_AGAIN / 5) } else { Action::await_change() })
}

/// Used by the watches: clusters count for whoever selects them.
pub(super) type Upstream = AdxCluster;

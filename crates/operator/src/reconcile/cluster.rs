//! ADXCluster: one that exists, kustd, or one that is made in Azure by a [`Provisioner`].

use std::time::Duration;

use crds::conditions::Truth;
use crds::{AdxCluster, AppliedProvisionState, Condition, Database, TelemetryType};
use futures::future::BoxFuture;
use kube_runtime::controller::Action;
use serde_json::{Value, json};

use super::{Context, LookError, Managed, Report, install, names};
use crate::federation::FEDERATION;
use crate::render::{self, Kusto, Owner, Rendered};
use crate::status::{Pods, READY, Verdict};

/// Makes clusters in Azure, one step at a time.
pub trait Provisioner: Send + Sync {
    /// The next step for a cluster with a valid `spec.provision`; it must end within a minute, each call within its own
    /// deadline. Called again after `again`, and when the resource changes.
    fn step<'a>(&'a self, cluster: &'a AdxCluster) -> BoxFuture<'a, Provisioned>;
}

/// How far a cluster in Azure is.
#[derive(Clone, Debug, PartialEq)]
pub struct Provisioned {
    /// What the condition says.
    pub verdict: Verdict,
    /// Its URL, once known; none leaves the status as it is.
    pub endpoint: Option<String>,
    /// What has been applied; none leaves the status as it is.
    pub applied: Option<AppliedProvisionState>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// An operator without Azure: it says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAzure;

impl Provisioner for NoAzure {
    fn step<'a>(&'a self, _: &'a AdxCluster) -> BoxFuture<'a, Provisioned> {
        let message = "this operator makes no clusters in Azure: make it by hand and give spec.endpoint, or use spec.local";
        let verdict = Verdict::new(Truth::False, "ProvisioningDisabled", message);
        Box::pin(std::future::ready(Provisioned { verdict, endpoint: None, applied: None, again: None }))
    }
}

/// Where a cluster comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// It exists.
    Exists(String),
    /// It is kustd.
    Local,
    /// It is made in Azure.
    Azure,
    /// The spec does not say, or says too much.
    Invalid(Verdict),
}

/// Where a cluster comes from. The reasons and words are the reference's.
pub fn origin(cluster: &AdxCluster) -> Origin {
    let invalid = |reason, message: &str| Origin::Invalid(Verdict::new(Truth::False, reason, message));
    let spec = &cluster.spec;
    match (&spec.local, &spec.provision, spec.endpoint.as_str()) {
        (Some(_), None, "") => Origin::Local,
        (Some(_), _, _) => invalid("ProvisioningInvalid", "spec.local stands beside spec.provision or spec.endpoint: keep one of them"),
        (None, None, "") => invalid("ProvisioningDisabled", "No provisioning configuration or endpoint provided"),
        (None, None, endpoint) => Origin::Exists(endpoint.to_owned()),
        (None, Some(provision), _) => {
            let fields = [
                ("subscriptionId", &provision.subscription_id),
                ("resourceGroup", &provision.resource_group),
                ("location", &provision.location),
                ("skuName", &provision.sku_name),
                ("tier", &provision.tier),
            ];
            let missing: Vec<&str> = fields.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| *name).collect();
            match missing.is_empty() {
                true => Origin::Azure,
                false => invalid("ProvisioningInvalid", &format!("missing required provisioning fields: {}", missing.join(", "))),
            }
        }
    }
}

impl Managed for AdxCluster {
    const KIND: &'static str = "ADXCluster";
    const HAS_BINDINGS: bool = false;

    fn criteria(&self) -> &str {
        &self.spec.criteria_expression
    }

    fn conditions(&self) -> Vec<Condition> {
        self.status.clone().unwrap_or_default().conditions
    }

    fn status(&self) -> Value {
        serde_json::to_value(&self.status).unwrap_or_default()
    }

    fn gone(&self, context: &Context) {
        context.federations.forget(&federation_key(self));
    }

    async fn look(&self, context: &Context, report: &mut Report) -> Result<Action, LookError> {
        let again = self.stand(context, report).await?;
        let federated = self.federate(context, report).await;
        Ok(again.into_iter().chain(federated).min().map_or_else(Action::await_change, Action::requeue))
    }
}

/// With the databases that a hub needs for its partitions. They hold no rows.
fn with_databases(mut cluster: AdxCluster, names: Vec<String>) -> AdxCluster {
    cluster.spec.databases.extend(names.into_iter().map(|database_name| Database {
        database_name,
        retention_in_days: 30,
        retention_policy: String::new(),
        telemetry_type: TelemetryType::Logs,
    }));
    cluster
}

fn federation_key(cluster: &AdxCluster) -> String {
    let (namespace, name) = names(&cluster.metadata);
    format!("{namespace}/{name}")
}

/// What a look at a cluster consists of.
trait Look {
    /// Brings the cluster there; when to look again, if nothing happens before.
    async fn stand(&self, context: &Context, report: &mut Report) -> Result<Option<Duration>, LookError>;
    /// Sees to its federation once it is ready.
    async fn federate(&self, context: &Context, report: &mut Report) -> Option<Duration>;
}

impl Look for AdxCluster {
    async fn stand(&self, context: &Context, report: &mut Report) -> Result<Option<Duration>, LookError> {
        match origin(self) {
            Origin::Invalid(verdict) => {
                report.owner = Some(verdict);
                Ok(None)
            }
            Origin::Exists(endpoint) => {
                self.install(context, report).await?;
                report.owner = Some(Verdict::new(Truth::True, "ProvisioningSkipped", format!("Using existing endpoint {endpoint}")));
                report.fields.insert("endpoint".to_owned(), endpoint.into());
                report.others.push((READY, None));
                Ok(None)
            }
            Origin::Local => {
                let Some(pods) = self.install(context, report).await? else { return Ok(None) };
                let endpoint = Kusto::of(self).map(|kusto| kusto.endpoint).unwrap_or_default();
                report.owner = Some(match pods.rolled_out {
                    true => Verdict::new(Truth::True, "ClusterReady", format!("kustd answers at {endpoint}")),
                    false => Verdict::new(
                        Truth::Unknown,
                        "Waiting",
                        format!("kustd starts: {} of {} pods are ready and as the spec has them", pods.ready, pods.wanted),
                    ),
                });
                report.fields.insert("endpoint".to_owned(), endpoint.into());
                Ok(None)
            }
            Origin::Azure => {
                self.install(context, report).await?;
                let wanted = with_databases(self.clone(), context.federations.missing(&federation_key(self)));
                let Provisioned { verdict, endpoint, applied, again } = context.provisioner.step(&wanted).await;
                report.installed = verdict.status == Truth::True;
                report.owner = Some(verdict);
                report.fields.extend(endpoint.map(|endpoint| ("endpoint".to_owned(), endpoint.into())));
                let before = self.status()["appliedProvisionState"].take();
                let applied = applied.map(|applied| json!(applied)).filter(|applied| *applied != before);
                report.fields.extend(applied.map(|applied| ("appliedProvisionState".to_owned(), merge_patch(&before, applied))));
                report.others.push((READY, None));
                Ok(again)
            }
        }
    }

    async fn federate(&self, context: &Context, report: &mut Report) -> Option<Duration> {
        let key = federation_key(self);
        let known = self.status.as_ref().map(|status| status.endpoint.clone());
        let endpoint = report.fields.get("endpoint").and_then(Value::as_str).map(str::to_owned).or(known).unwrap_or_default();
        if endpoint.is_empty() || report.owner.as_ref().is_none_or(|owner| owner.status != Truth::True) {
            context.federations.forget(&key);
            return None;
        }
        let Some((verdict, again)) = context.federations.look(&key, self, &endpoint) else {
            report.others.push((FEDERATION, None));
            return None;
        };
        if let Some(verdict) = verdict {
            let before = crds::conditions::get(&self.conditions(), FEDERATION).map(|condition| condition.reason.clone());
            if before.as_deref() != Some(verdict.reason) {
                install::tell(context, self, verdict.status == Truth::True, verdict.reason, &verdict.message).await;
            }
            report.others.push((FEDERATION, Some(verdict)));
        }
        again
    }
}

/// What makes one value of the other when merged (RFC 7396): what is no more has to be named.
fn merge_patch(before: &Value, after: Value) -> Value {
    let (Value::Object(before), Value::Object(mut after)) = (before, after.clone()) else { return after };
    for (name, old) in before {
        let new = match after.remove(name) {
            Some(new) => merge_patch(old, new),
            None => Value::Null,
        };
        after.insert(name.clone(), new);
    }
    Value::Object(after)
}

trait Install {
    async fn install(&self, context: &Context, report: &mut Report) -> Result<Option<Pods>, LookError>;
}

impl Install for AdxCluster {
    /// Brings kustd there, or away. None if the spec cannot be installed, which the report says.
    async fn install(&self, context: &Context, report: &mut Report) -> Result<Option<Pods>, LookError> {
        let was_local = self.status.as_ref().is_some_and(|status| status.replicas.is_some());
        if self.spec.local.is_none() && !was_local {
            report.installed = true;
            return Ok(None);
        }
        let rendered: Rendered = match render::kustd::render(self, &context.settings) {
            Ok(rendered) => rendered,
            Err(error) => {
                report.owner = Some(Verdict::new(Truth::False, "TemplateError", error.to_string()));
                return Ok(None);
            }
        };
        let (namespace, name) = names(&self.metadata);
        let uid = self.metadata.uid.clone().unwrap_or_default();
        let owner = Owner { kind: Self::KIND.to_owned(), namespace: namespace.to_owned(), name: name.to_owned(), uid };
        let pods = install::install(self, &owner, &rendered, context, report).await?;
        if self.spec.local.is_none() {
            report.pods = None;
            report.fields.insert("replicas".to_owned(), Value::Null);
            report.fields.insert("readyReplicas".to_owned(), Value::Null);
        }
        Ok(Some(pods))
    }
}

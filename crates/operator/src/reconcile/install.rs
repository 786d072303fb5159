//! Bringing the cluster to what was rendered, with events, and taking bindings away.

use crds::conditions::Truth;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube_client::Error;
use kube_client::api::{Api, ListParams, ObjectMeta};
use kube_runtime::events::{Event, EventType};

use super::{Context, Managed, Report, names};
use crate::apply::{ApplyError, Change, as_value, in_time};
use crate::object::Reference;
use crate::render::{MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE, Owner, Rendered};
use crate::status::{self, Pods, READY, SECURITY, Verdict};

/// Applies all objects. One that fails does not keep the others from it, but for one that is another resource's; the first
/// failure is the result.
pub(super) async fn install<K: Managed>(
    object: &K,
    owner: &Owner,
    rendered: &Rendered,
    context: &Context,
    report: &mut Report,
) -> Result<Pods, ApplyError> {
    let (mut pods, mut failure, mut insecure) = (Vec::new(), None, None);
    let mut bound = false;
    for wanted in &rendered.objects {
        let kind = wanted.reference.kind.resource.kind.as_str();
        let is_right = matches!(kind, "ServiceAccount" | "RoleBinding" | "ClusterRoleBinding");
        match context.cluster.apply(wanted, owner).await {
            Ok((live, change)) => {
                note(context, object, &wanted.reference, change).await;
                bound |= is_right && change != Change::None;
                if matches!(kind, "StatefulSet" | "DaemonSet" | "Deployment") {
                    pods.push(Pods::of(&as_value(&live)));
                }
            }
            // Two resources of one name: what was not made yet must not be made half.
            Err(error @ ApplyError::Taken { .. }) => return Err(error),
            Err(error) => {
                if is_right {
                    insecure.get_or_insert_with(|| error.to_string());
                }
                failure.get_or_insert(error);
            }
        }
    }
    for reference in &rendered.absent {
        match context.cluster.remove(reference, owner).await {
            Ok(change) => note(context, object, reference, change).await,
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    if K::HAS_BINDINGS {
        let secure = crds::conditions::is_true(&object.conditions(), SECURITY);
        if insecure.is_none() && (bound || !secure) {
            insecure = missing_role(context, rendered).await?;
        }
        let verdict = match insecure {
            None => Verdict::new(Truth::True, "SecurityMigrationComplete", "the account has the rights of its component and no others"),
            Some(problem) => Verdict::new(Truth::False, "SecurityMigrationFailed", problem),
        };
        report.others.push((SECURITY, Some(verdict)));
    }
    match failure {
        Some(error) => Err(error),
        None => {
            let pods = Pods::sum(pods);
            report.pods = Some(pods);
            report.installed = true;
            report.others.push((READY, Some(status::ready(pods))));
            Ok(pods)
        }
    }
}

/// A role that is bound and not there: the component would have no rights, and nobody would know why.
async fn missing_role(context: &Context, rendered: &Rendered) -> Result<Option<String>, ApplyError> {
    let roles: Api<ClusterRole> = Api::all(context.cluster.client().clone());
    for name in rendered.objects.iter().filter_map(|object| object.body["roleRef"]["name"].as_str()) {
        if in_time(&format!("reading ClusterRole {name}"), roles.get_opt(name)).await?.is_none() {
            return Ok(Some(format!("ClusterRole {name} is missing: apply deploy/rbac/operator-roles.yaml")));
        }
    }
    Ok(None)
}

async fn note<K: Managed>(context: &Context, object: &K, reference: &Reference, change: Change) {
    if change == Change::None {
        return;
    }
    context.metrics.changed(change);
    let (namespace, name) = names(object.meta());
    tracing::info!(kind = K::KIND, namespace, name, object = %reference, change = change.name(), "changed");
    // Events of one reason about one object are counted together, so that it must be named.
    let about = ObjectReference {
        api_version: Some(reference.kind.resource.api_version.clone()),
        kind: Some(reference.kind.resource.kind.clone()),
        namespace: reference.namespace.clone(),
        name: Some(reference.name.clone()),
        ..ObjectReference::default()
    };
    publish(context, object, true, change.name(), &reference.to_string(), Some(about)).await;
}

/// An event of the resource.
pub(super) async fn tell<K: Managed>(context: &Context, object: &K, well: bool, reason: &str, message: &str) {
    publish(context, object, well, reason, message, None).await;
}

/// One that cannot be written is a line in the log.
async fn publish<K: Managed>(context: &Context, object: &K, well: bool, reason: &str, message: &str, about: Option<ObjectReference>) {
    let event = Event {
        type_: if well { EventType::Normal } else { EventType::Warning },
        reason: reason.to_owned(),
        // The API server takes no more.
        note: Some(message.chars().take(1000).collect()),
        action: "Reconcile".to_owned(),
        secondary: about,
    };
    let reference = object.object_ref(&());
    let published = in_time("writing an event", context.recorder.publish(&event, &reference)).await;
    if let Err(error) = published {
        tracing::warn!(error = error.to_string(), "an event is lost");
    }
}

/// Takes the bindings of a resource away that is about to go: they are the cluster's, so that no owner takes them along.
pub(super) async fn remove_bindings<K: Managed>(context: &Context, meta: &ObjectMeta) -> Result<(), ApplyError> {
    let (namespace, name) = names(meta);
    let owner = Owner { kind: K::KIND.to_owned(), namespace: namespace.to_owned(), name: name.to_owned(), uid: String::new() };
    let labels = format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={},{OWNER_NAMESPACE}={namespace},{OWNER_NAME}={name}", K::KIND);
    let bindings: Api<ClusterRoleBinding> = Api::all(context.cluster.client().clone());
    let list = match in_time("listing ClusterRoleBindings", bindings.list(&ListParams::default().labels(&labels))).await {
        Err(ApplyError::Api { error: Error::Api(status), .. }) if status.code == 404 => return Ok(()),
        list => list?,
    };
    for binding in list.items {
        let reference = Reference::to::<ClusterRoleBinding>("", binding.metadata.name.unwrap_or_default());
        context.metrics.changed(context.cluster.remove(&reference, &owner).await?);
    }
    Ok(())
}

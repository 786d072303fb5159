//! What the objects of all components have: names, labels, owner, account and rights.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube_client::core::Resource;
use serde_json::{Map, Value, json};

use super::RenderError;
use crate::object::{Object, Reference};

/// Label of all objects of the operator, and its value.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGER: &str = "adx-mon-operator";
/// Label with the name of the resource, also on pods.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label with the kind of the resource that an object is of. Objects of the cluster cannot have an owner in a namespace.
pub const OWNER_KIND: &str = "adx-mon.azure.com/owner-kind";
/// Label with the namespace of the resource.
pub const OWNER_NAMESPACE: &str = "adx-mon.azure.com/owner-namespace";
/// Label with the name of the resource.
pub const OWNER_NAME: &str = "adx-mon.azure.com/owner-name";

/// Longest name: with `-events` it is the name of a StatefulSet, which Kubernetes makes labels of pods of by adding eleven
/// characters.
const LONGEST_NAME: usize = 45;

/// The resource that objects are made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Kind, such as Ingestor.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty for one that is not in a cluster.
    pub uid: String,
}

impl Owner {
    /// Of a resource.
    ///
    /// # Errors
    /// A name that the names of its objects cannot be made of.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Result<Self, RenderError> {
        let meta = object.meta();
        let name = meta.name.clone().unwrap_or_default();
        let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
        if !starts || name.len() > LONGEST_NAME || name.contains('.') {
            let problem =
                format!("{name:?} cannot be the name of a Service: use up to {LONGEST_NAME} of a-z, 0-9 and -, beginning with a letter");
            return Err(RenderError::Spec { field: "metadata.name", problem });
        }
        let namespace = meta.namespace.clone().unwrap_or_else(|| "default".to_owned());
        Ok(Self { kind: K::kind(&()).into_owned(), namespace, name, uid: meta.uid.clone().unwrap_or_default() })
    }

    /// Metadata of an object in the namespace, which goes with the resource.
    pub(crate) fn meta(&self, name: &str, component: &str) -> Value {
        let mut meta = json!({"name": name, "namespace": self.namespace, "labels": self.labels(component)});
        if !self.uid.is_empty() {
            meta["ownerReferences"] = json!([{
                "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION), "kind": self.kind, "name": self.name, "uid": self.uid,
                "controller": true, "blockOwnerDeletion": true,
            }]);
        }
        meta
    }

    /// Labels of an object.
    pub(crate) fn labels(&self, component: &str) -> Map<String, Value> {
        let mut labels = self.selector(component);
        labels.extend(map([
            (MANAGED_BY, MANAGER),
            ("app.kubernetes.io/part-of", "adx-mon"),
            (OWNER_KIND, &self.kind),
            (OWNER_NAMESPACE, &self.namespace),
            (OWNER_NAME, &self.name),
        ]));
        labels
    }

    /// Labels that its pods have and no others.
    pub(crate) fn selector(&self, component: &str) -> Map<String, Value> {
        map([("app.kubernetes.io/name", component), (INSTANCE, &self.name)])
    }
}

/// A JSON object of texts.
pub(crate) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// A service account and the fixed roles that are bound to it.
pub(crate) struct Account<'a> {
    pub(crate) owner: &'a Owner,
    /// Component whose labels it has.
    pub(crate) component: &'a str,
    /// Name of the account.
    pub(crate) name: &'a str,
    /// Client id of the identity in Azure, or empty.
    pub(crate) identity: &'a str,
    /// ClusterRoles for all namespaces, with what is added to the name of the binding.
    pub(crate) everywhere: &'a [(&'a str, &'a str)],
    /// ClusterRole for the namespace.
    pub(crate) in_namespace: Option<&'a str>,
}

impl Account<'_> {
    pub(crate) fn render(&self) -> Result<Vec<Object>, RenderError> {
        let Self { owner, component, name, .. } = *self;
        let mut meta = owner.meta(name, component);
        if !self.identity.is_empty() {
            meta["annotations"] = json!({"azure.workload.identity/client-id": self.identity});
        }
        let mut objects = vec![Object::new::<ServiceAccount>(json!({"metadata": meta, "automountServiceAccountToken": false}))?];
        let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": owner.namespace}]);
        let role = |role: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
        if let Some(bound) = self.in_namespace {
            let meta = owner.meta(name, component);
            objects.push(Object::new::<RoleBinding>(json!({"metadata": meta, "roleRef": role(bound), "subjects": subjects}))?);
        }
        for (suffix, bound) in self.everywhere {
            let reference = cluster_binding(owner, name, suffix);
            let meta = json!({"name": reference.name, "labels": owner.labels(component)});
            objects.push(Object::new::<ClusterRoleBinding>(json!({"metadata": meta, "roleRef": role(bound), "subjects": subjects}))?);
        }
        Ok(objects)
    }
}

/// `<namespace>:<account>` as in the reference, with what tells several from each other.
pub(crate) fn cluster_binding(owner: &Owner, account: &str, suffix: &str) -> Reference {
    let suffix = if suffix.is_empty() { String::new() } else { format!(":{suffix}") };
    Reference::to::<ClusterRoleBinding>("", format!("{}:{account}{suffix}", owner.namespace))
}

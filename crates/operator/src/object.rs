//! Objects of Kubernetes as they are rendered: JSON that has been through the type of its kind.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use kube_client::core::ApiResource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::render::RenderError;

/// A kind of objects that the operator makes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; none for the cluster's.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Reference {
    /// `StatefulSet mon/ingestor`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.resource.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// An object as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Which.
    pub reference: Reference,
    /// All that the operator says about it.
    pub body: Value,
}

/// Where objects of a kind are.
pub trait Scope {
    /// Whether they are in namespaces.
    const NAMESPACED: bool;
}

impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl Kind {
    /// The kind of a type.
    pub fn of<K: Resource<Scope: Scope>>() -> Self {
        let resource = ApiResource {
            group: K::GROUP.to_owned(),
            version: K::VERSION.to_owned(),
            api_version: K::API_VERSION.to_owned(),
            kind: K::KIND.to_owned(),
            plural: K::URL_PATH_SEGMENT.to_owned(),
        };
        Self { resource, namespaced: K::Scope::NAMESPACED }
    }
}

impl Reference {
    /// The object of a type in a namespace, which does not count for kinds of the cluster.
    pub fn to<K: Resource<Scope: Scope>>(namespace: &str, name: impl Into<String>) -> Self {
        let kind = Kind::of::<K>();
        Self { namespace: kind.namespaced.then(|| namespace.to_owned()), kind, name: name.into() }
    }
}

impl Object {
    /// The object with this JSON, without `apiVersion` and `kind`.
    ///
    /// # Errors
    /// JSON that is none of this type, or that has a field which the type does not have.
    pub fn new<K>(body: Value) -> Result<Self, RenderError>
    where
        K: Resource<Scope: Scope> + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    {
        let shape = |problem: String| RenderError::Shape { kind: K::KIND, problem };
        let Value::Object(mut fields) = body else { return Err(shape("it is no object".to_owned())) };
        fields.insert("apiVersion".to_owned(), K::API_VERSION.into());
        fields.insert("kind".to_owned(), K::KIND.into());
        let body = Value::Object(fields);
        let typed: K = serde_json::from_value(body.clone()).map_err(|error| shape(error.to_string()))?;
        let meta = typed.metadata();
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone().unwrap_or_default());
        let kept = serde_json::to_value(&typed).map_err(|error| shape(error.to_string()))?;
        if let Some(path) = first_difference(&body, &kept, String::new()) {
            return Err(shape(format!("there is no field {path}")));
        }
        Ok(Self { reference: Reference { kind: Kind::of::<K>(), namespace, name }, body })
    }
}

/// Where something of `wanted` is not in `kept`.
fn first_difference(wanted: &Value, kept: &Value, path: String) -> Option<String> {
    match (wanted, kept) {
        (Value::Object(wanted), Value::Object(kept)) => wanted.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match kept.get(name) {
                Some(kept) => first_difference(value, kept, path),
                None => Some(path),
            }
        }),
        (Value::Array(wanted), Value::Array(kept)) if wanted.len() == kept.len() => {
            let both = wanted.iter().zip(kept).enumerate();
            both.into_iter().find_map(|(at, (wanted, kept))| first_difference(wanted, kept, format!("{path}[{at}]")))
        }
        _ if wanted == kept => None,
        _ => Some(path),
    }
}

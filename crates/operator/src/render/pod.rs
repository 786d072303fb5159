//! Pods: what the operator asks of every one, and what resources may change.

use std::collections::BTreeMap;

use crds::{PodOptions, Storage};
use serde_json::{Map, Value, json};

use super::RenderError;
use super::common::{Owner, map};

/// User of all containers.
pub(crate) const USER: i64 = 1000;
/// Its group, which volumes belong to.
pub(crate) const GROUP: i64 = 3000;
/// Where data are in every container.
pub(crate) const DATA: &str = "/mnt/data";

/// A pod with one container.
pub(crate) struct Pod<'a> {
    pub(crate) owner: &'a Owner,
    pub(crate) component: &'a str,
    pub(crate) options: &'a PodOptions,
    pub(crate) account: &'a str,
    pub(crate) image: String,
    pub(crate) command: &'a str,
    pub(crate) args: Vec<String>,
    /// Name and number.
    pub(crate) ports: Value,
    /// `readinessProbe`, `livenessProbe`, `startupProbe`
    pub(crate) probes: Value,
    /// cpu and memory: requests, limits.
    pub(crate) resources: [[&'static str; 2]; 2],
    pub(crate) annotations: Vec<(&'a str, &'a str)>,
    /// Labels that other programs look for.
    pub(crate) labels: Vec<(&'a str, &'a str)>,
    pub(crate) env: Vec<Value>,
    /// Volumes and where they are mounted.
    pub(crate) volumes: Vec<Value>,
    pub(crate) mounts: Vec<Value>,
    pub(crate) init: Option<Value>,
    pub(crate) tolerations: Value,
    pub(crate) affinity: Option<Value>,
    /// Seconds.
    pub(crate) grace: i64,
    /// Further fields of the pod's `securityContext`.
    pub(crate) security: Value,
}

impl Pod<'_> {
    /// `spec.template`
    pub(crate) fn template(self) -> Value {
        let mut labels = map(self.options.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        labels.extend(map(self.labels.iter().copied()));
        labels.extend(self.owner.labels(self.component));
        let mut annotations = map(self.annotations.iter().copied());
        annotations.extend(map(self.options.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
        let level = if self.options.log_level.is_empty() { "INFO" } else { &self.options.log_level };
        let mut env = vec![json!({"name": "LOG_LEVEL", "value": level})];
        if !self.options.identity_client_id.is_empty() {
            labels.insert("azure.workload.identity/use".to_owned(), "true".into());
            env.push(json!({"name": "AZURE_CLIENT_ID", "value": self.options.identity_client_id}));
        }
        env.extend(self.env.iter().cloned());
        let mut container = json!({
            "name": self.component, "image": self.image, "command": [self.command], "args": self.args, "env": env,
            "ports": self.ports, "resources": resources(self.options, self.resources), "securityContext": container_security(),
        });
        if !self.mounts.is_empty() {
            container["volumeMounts"] = self.mounts.into();
        }
        extend(&mut container, self.probes);
        let mut security = json!({
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": GROUP, "seccompProfile": {"type": "RuntimeDefault"},
        });
        extend(&mut security, self.security);
        let mut spec = json!({
            "serviceAccountName": self.account, "automountServiceAccountToken": true, "securityContext": security,
            "containers": [container], "terminationGracePeriodSeconds": self.grace,
        });
        let mut optional = |name: &str, value: Value| {
            let empty = matches!(&value, Value::Null) || value.as_array().is_some_and(Vec::is_empty) || value == json!({}) || value == "";
            if !empty {
                spec[name] = value;
            }
        };
        optional("initContainers", self.init.map_or(Value::Null, |init| json!([init])));
        optional("volumes", self.volumes.into());
        optional("affinity", self.affinity.unwrap_or_default());
        optional("tolerations", if self.options.tolerations.is_empty() { self.tolerations } else { json!(self.options.tolerations) });
        optional("nodeSelector", json!(self.options.node_selector));
        optional("priorityClassName", self.options.priority_class_name.as_str().into());
        let secrets = self.options.image_pull_secrets.iter();
        optional("imagePullSecrets", secrets.map(|name| json!({"name": name})).collect());
        let mut meta = json!({"labels": labels});
        if !annotations.is_empty() {
            meta["annotations"] = annotations.into();
        }
        json!({"metadata": meta, "spec": spec})
    }
}

/// What no container may do.
pub(crate) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    })
}

fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

fn resources(options: &PodOptions, defaults: [[&str; 2]; 2]) -> Value {
    let own = options.resources.clone().unwrap_or_default();
    let merged = |[cpu, memory]: [&str; 2], own: &BTreeMap<String, String>| {
        let mut all = map([("cpu", cpu), ("memory", memory)]);
        all.extend(map(own.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
        all
    };
    let [requests, limits] = defaults;
    json!({"requests": merged(requests, &own.requests), "limits": merged(limits, &own.limits)})
}

/// An HTTP probe every ten seconds.
pub(crate) fn http_get(path: &str, port: &str, scheme: &str, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port, "scheme": scheme}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": failures,
    })
}

/// The volume of the data: a claim template, or a folder of the node, of which the pod needs the volume.
pub(crate) struct Data {
    pub(crate) claims: Vec<Value>,
    pub(crate) volumes: Vec<Value>,
    pub(crate) mount: Value,
    /// Bytes, where the size is known.
    pub(crate) bytes: Option<u64>,
}

pub(crate) fn data(owner: &Owner, component: &str, storage: Option<&Storage>, default: &str) -> Result<Data, RenderError> {
    let storage = storage.cloned().unwrap_or_default();
    let mount = json!({"name": "data", "mountPath": DATA});
    let size = if storage.size.is_empty() { default } else { &storage.size };
    let bytes = parse_bytes(size).filter(|bytes| *bytes > 0);
    let Some(bytes) = bytes else {
        let problem = format!("{size:?} is no size of a volume; write it like 20Gi");
        return Err(RenderError::Spec { field: "storage.size", problem });
    };
    if !storage.host_path.is_empty() {
        if !storage.host_path.starts_with('/') {
            let problem = format!("{:?} does not begin with /", storage.host_path);
            return Err(RenderError::Spec { field: "storage.hostPath", problem });
        }
        let volume = json!({"name": "data", "hostPath": {"path": storage.host_path, "type": "DirectoryOrCreate"}});
        return Ok(Data { claims: Vec::new(), volumes: vec![volume], mount, bytes: (!storage.size.is_empty()).then_some(bytes) });
    }
    // The kind is written out: the server adds it, and what is compared must not differ for ever.
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "labels": owner.selector(component)},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    });
    if !storage.storage_class_name.is_empty() {
        claim["spec"]["storageClassName"] = storage.storage_class_name.into();
    }
    Ok(Data { claims: vec![claim], volumes: Vec::new(), mount, bytes: Some(bytes) })
}

/// Bytes of a quantity such as `20Gi`, `500M` or `1e10`; none for what is none.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    (bytes.is_finite() && (0.0..9e18).contains(&bytes)).then_some(bytes as u64)
}

/// Annotations by which collectors scrape the pod and read its logs.
pub(crate) fn observed<'a>(port: &'a str, destination: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("adx-mon/scrape", "true"),
        ("adx-mon/port", port),
        ("adx-mon/path", "/metrics"),
        ("adx-mon/log-destination", destination),
        ("adx-mon/log-parsers", "json"),
    ]
}

/// Not two of these on a node.
pub(crate) fn apart(selector: &Map<String, Value>) -> Value {
    let term = json!({"labelSelector": {"matchLabels": selector}, "topologyKey": "kubernetes.io/hostname"});
    json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
}

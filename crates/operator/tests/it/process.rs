//! The operator as a process of its own, and somebody who plays the controllers that make pods ready.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube_client::Client;
use kube_client::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube_client::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// A running operator. It ends with its owner.
pub(crate) struct Operator(Child);

impl Operator {
    /// With a lease of so many seconds, for which the next one waits. `ADXMON_OPERATOR` names another program, such as one that
    /// is built for speed.
    pub(crate) fn start(kubeconfig: &Path, log: &Path, lease: u16) -> Operator {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let program = std::env::var_os("ADXMON_OPERATOR").unwrap_or_else(|| env!("CARGO_BIN_EXE_operator").into());
        let mut command = Command::new(program);
        command.args(["--listen-address=127.0.0.1", "--port=0", "--cluster-labels=region=eastus"]);
        command
            .arg(format!("--lease-duration={lease}"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env_remove("POD_NAMESPACE")
            .env("LOG_LEVEL", "INFO");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Operator(command.spawn().unwrap())
    }

    /// SIGKILL, whatever it is about.
    pub(crate) fn kill(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "the operator has ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// What it takes.
    pub(crate) fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
        };
        Memory { most: of("VmHWM:"), now: of("VmRSS:"), own: of("RssAnon:") }
    }
}

/// Bytes of resident memory.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// At most so far.
    pub(crate) most: u64,
    /// Now.
    pub(crate) now: u64,
    /// Now, without pages of files.
    pub(crate) own: u64,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the pods of all workloads ready, as their specs have them, and lets go of those that are deleted without their pods,
/// for ever.
pub(crate) async fn play_controllers(admin: Client) {
    loop {
        for kind in ["StatefulSet", "DaemonSet", "Deployment"] {
            let resource = resource("apps", "v1", kind);
            let all: Api<DynamicObject> = Api::all_with(admin.clone(), &resource);
            for object in all.list(&ListParams::default().match_any()).await.unwrap().items {
                let (namespace, name) = (object.metadata.namespace.clone().unwrap(), object.metadata.name.clone().unwrap());
                if object.metadata.deletion_timestamp.is_some() {
                    let api: Api<DynamicObject> = Api::namespaced_with(admin.clone(), &namespace, &resource);
                    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                    let _ = api.patch(&name, &PatchParams::default(), &none).await;
                } else if let Some(status) = status_to_write(kind, &serde_json::to_value(object).unwrap()) {
                    let api: Api<DynamicObject> = Api::namespaced_with(admin.clone(), &namespace, &resource);
                    // It may be gone by now.
                    let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn status_to_write(kind: &str, object: &Value) -> Option<Value> {
    if object["status"]["observedGeneration"] == object["metadata"]["generation"] {
        return None;
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(2);
    let mut status = match kind {
        "DaemonSet" => json!({
            "desiredNumberScheduled": wanted, "numberReady": wanted, "updatedNumberScheduled": wanted, "currentNumberScheduled": wanted,
            "numberMisscheduled": 0,
        }),
        _ => json!({"replicas": wanted, "readyReplicas": wanted, "updatedReplicas": wanted}),
    };
    status["observedGeneration"] = object["metadata"]["generation"].clone();
    Some(status)
}

/// A kind whose plural is its name with an s.
pub(crate) fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &format!("{}s", kind.to_lowercase()))
}

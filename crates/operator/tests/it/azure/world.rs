//! A resource, a provisioner, an Azure.

use std::sync::Arc;
use std::time::Duration;

use azure_arm::{Arm, PUBLIC_CLOUD};
use azure_testing::resource_manager::{Pace, ResourceManager};
use crds::AdxCluster;
use operator::azure::Azure;
use operator::reconcile::{Provisioned, Provisioner as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::samples::object;

pub(crate) const GROUP: &str = "/subscriptions/s-1/resourcegroups/monitoring";
pub(crate) const CLUSTER: &str = "/subscriptions/s-1/resourcegroups/monitoring/providers/microsoft.kusto/clusters/adxmon";
pub(crate) const ENDPOINT: &str = "https://adxmon.westus.kusto.windows.net";

pub(crate) struct World {
    pub(crate) azure: Arc<ResourceManager>,
    pub(crate) provisioner: Azure,
    pub(crate) cluster: AdxCluster,
}

pub(crate) fn spec() -> Value {
    json!({
        "clusterName": "adxmon",
        "databases": [
            {"databaseName": "Metrics", "telemetryType": "Metrics"},
            {"databaseName": "Logs", "telemetryType": "Logs", "retentionInDays": 90},
        ],
        "provision": {
            "subscriptionId": "s-1", "resourceGroup": "monitoring", "location": "westus", "skuName": "Standard_L8as_v3", "tier": "Standard",
            "userAssignedIdentities": ["/i1"], "autoScale": true, "autoScaleMin": 2, "autoScaleMax": 6,
            "principals": [
                {"principalId": "app-1", "principalType": "App", "role": "AllDatabasesAdmin"},
                {"principalId": "app-2", "principalType": "App", "role": "Ingestor", "databaseName": "Metrics"},
            ],
        },
    })
}

impl World {
    pub(crate) fn new(spec: Value) -> Self {
        let azure = ResourceManager::new(Pace::default());
        let provisioner = provisioner(&azure);
        Self { azure, provisioner, cluster: object("ADXCluster", "adx", spec) }
    }

    /// With a cluster that runs, as somebody has made it by hand.
    pub(crate) fn with_cluster(spec: Value, actual: Value) -> Self {
        let world = Self::new(spec);
        world.azure.register();
        world.azure.put(GROUP, json!({"location": "westus"}));
        let mut body = json!({
            "location": "westus", "etag": "\"first\"", "sku": {"name": "Standard_L8as_v3", "tier": "Standard", "capacity": 2},
            "identity": {"type": "SystemAssigned"}, "tags": {"team": "x"},
            "properties": {"state": "Running", "provisioningState": "Succeeded", "uri": ENDPOINT, "enableAutoStop": true},
        });
        for (name, value) in actual.as_object().unwrap() {
            body[name] = value.clone();
        }
        world.azure.put(CLUSTER, body);
        world
    }

    /// The operator is another process now.
    pub(crate) fn restart(&mut self) {
        self.provisioner = provisioner(&self.azure);
        self.azure.forget_pauses();
    }

    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut spec = serde_json::to_value(&self.cluster.spec).unwrap();
        change(&mut spec);
        self.cluster.spec = serde_json::from_value(spec).unwrap();
        self.cluster.metadata.generation = self.cluster.metadata.generation.map(|generation| generation + 1);
    }

    /// A step, which is on record in the status.
    pub(crate) async fn step(&mut self) -> Provisioned {
        let provisioned = self.provisioner.step(&self.cluster).await;
        self.record(&provisioned);
        provisioned
    }

    /// A step whose outcome is not on record.
    pub(crate) async fn unrecorded_step(&self) -> Provisioned {
        self.provisioner.step(&self.cluster).await
    }

    pub(crate) fn record(&mut self, provisioned: &Provisioned) {
        let status = self.cluster.status.get_or_insert_default();
        let (now, generation) = (jiff::Timestamp::UNIX_EPOCH, self.cluster.metadata.generation);
        provisioned.verdict.set("adxcluster.adx-mon.azure.com", generation, &mut status.conditions, now);
        status.endpoint = provisioned.endpoint.clone().unwrap_or(std::mem::take(&mut status.endpoint));
        status.applied_provision_state = provisioned.applied.clone().or(status.applied_provision_state.take());
    }

    /// Steps until the reason is this one; all reasons on the way, without repetitions.
    pub(crate) async fn until(&mut self, reason: &str) -> Vec<String> {
        let started = Instant::now();
        let mut reasons: Vec<String> = Vec::new();
        loop {
            let provisioned = self.step().await;
            let verdict = &provisioned.verdict;
            let text = format!("{} {}", verdict.status.as_str(), verdict.reason);
            if reasons.last() != Some(&text) {
                reasons.push(text);
            }
            if verdict.reason == reason {
                return reasons;
            }
            assert!(started.elapsed() < Duration::from_secs(12 * 3600), "{reasons:?}, at last {verdict:?}");
            tokio::time::sleep(provisioned.again.unwrap()).await;
        }
    }

    pub(crate) fn actual(&self) -> Value {
        self.azure.get(CLUSTER).unwrap()
    }

    /// Azure is as [`spec`] has it.
    pub(crate) fn assert_as_wanted(&self) {
        let cluster = self.actual();
        assert_eq!((&cluster["sku"]["name"], &cluster["sku"]["tier"]), (&json!("Standard_L8as_v3"), &json!("Standard")));
        assert_eq!(cluster["location"], "westus");
        assert!(cluster["identity"]["userAssignedIdentities"]["/i1"].is_object(), "{cluster}");
        assert_eq!(cluster["properties"]["optimizedAutoscale"], json!({"version": 1, "isEnabled": true, "minimum": 2, "maximum": 6}));
        for (name, period) in [("metrics", "P30D"), ("logs", "P90D")] {
            let database = self.azure.get(&format!("{CLUSTER}/databases/{name}")).unwrap();
            let properties = &database["properties"];
            assert_eq!(
                (&properties["softDeletePeriod"], &properties["provisioningState"]),
                (&json!(period), &json!("Succeeded")),
                "{name}"
            );
        }
        let paths = self.azure.paths();
        let roles =
            |owner: &str| paths.iter().filter(|path| path.starts_with(&format!("{owner}/principalassignments/"))).collect::<Vec<_>>();
        let of_cluster = roles(CLUSTER);
        let of_database = roles(&format!("{CLUSTER}/databases/metrics"));
        assert_eq!((of_cluster.len(), of_database.len()), (1, 1), "{paths:?}");
        assert_eq!(self.azure.get(of_cluster[0]).unwrap()["properties"]["role"], "AllDatabasesAdmin");
        assert_eq!(self.azure.get(of_database[0]).unwrap()["properties"]["principalId"], "app-2");
        // Group, cluster, two databases, two roles, and nothing else.
        assert_eq!(paths.len(), 6, "{paths:?}");
        assert_eq!(self.azure.violations(), Vec::<String>::new());
    }
}

fn provisioner(azure: &Arc<ResourceManager>) -> Azure {
    let tokens = ::azure::fixed_token("GOOD").unwrap();
    Azure::new(Arm::with_transport(PUBLIC_CLOUD, tokens, Arc::clone(azure) as _).unwrap())
}

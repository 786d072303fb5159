//! The rules of who may send and how the collector shows who it is, and of the cluster.

use server::auth::Accounts;

use super::Check;
use crate::config::file::MetadataLabels;

impl Check<'_> {
    pub(super) fn authentication(&mut self) {
        let Some(settings) = &self.file.authentication else { return };
        self.table("authentication", |check| {
            if settings.token_file.is_empty() && !settings.token_review {
                check.say("token-file", "authentication.token-file or authentication.token-review must be set: nobody could send");
            }
            let only_reviewed = [&settings.audiences, &settings.service_accounts];
            if !settings.token_review && only_reviewed.iter().any(|list| !list.is_empty()) {
                check.say("token-review", "authentication.audiences and authentication.service-accounts need token-review = true");
            }
            for account in &settings.service_accounts {
                if let Err(error) = account.parse::<Accounts>() {
                    check.say("service-accounts", format!("authentication.service-accounts: {error}"));
                }
            }
        });
    }

    pub(super) fn credentials(&mut self) {
        let file = self.file;
        if file.transfer_client_cert_file.is_empty() != file.transfer_client_key_file.is_empty() {
            let key = if file.transfer_client_cert_file.is_empty() { "transfer-client-key-file" } else { "transfer-client-cert-file" };
            self.say(key, "transfer-client-cert-file and transfer-client-key-file must both be set or both be empty");
        }
        if file.transfer_token_file.is_empty() {
            return;
        }
        for endpoint in file.endpoint.iter().filter(|endpoint| !transfer::may_carry_token(endpoint)) {
            self.say("transfer-token-file", format!("transfer-token-file is not sent to {endpoint} in the clear; use https"));
        }
    }

    pub(super) fn kubelet(&mut self) {
        let Some(kubelet) = &self.file.kubelet_discovery else { return };
        self.table("kubelet-discovery", |check| {
            if !(0..=65535).contains(&kubelet.port) {
                check.say("port", "kubelet-discovery.port must be between 0 and 65535");
            }
            if kubelet.poll_interval < 0 {
                check.say("poll-interval", "kubelet-discovery.poll-interval must be at least 1 second");
            }
            if kubelet.request_timeout < 0 {
                check.say("request-timeout", "kubelet-discovery.request-timeout must be at least 1 second");
            }
        });
    }

    pub(super) fn metadata(&mut self, scope: &str, labels: Option<&MetadataLabels>) {
        let Some(node) = labels.and_then(|l| l.kubernetes_node.as_ref()) else { return };
        let prefix = if scope.is_empty() { String::new() } else { format!("{scope}.add-metadata-labels: ") };
        self.table("add-metadata-labels", |check| {
            if check.file.metadata_watch.as_ref().is_none_or(|w| w.kubernetes_node.is_none()) {
                let message = "metadata-watch.kubernetes-node must be configured when add-metadata-labels.kubernetes-node is used";
                check.say("kubernetes-node", format!("{prefix}{message}"));
            }
            check.table("kubernetes-node", |check| {
                for (name, map) in [("labels", &node.labels), ("annotations", &node.annotations)] {
                    check.map_entries(&format!("{prefix}add-metadata-labels.kubernetes-node.{name}"), map);
                }
            });
        });
    }
}

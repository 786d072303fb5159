//! The collector's configuration against the vectors, and a collector over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod binary;
mod configuration;
mod configuration_reference;
mod discovery;
mod exporting;
mod files;
mod filters;
mod grpc;
mod host_logs;
mod http_vectors;
mod kubernetes_events;
mod log_transforms;
mod logs_document;
mod outage;
mod pod_logs;
mod process;
mod real_receivers;
mod real_targets;
mod reload;
mod rotation_torture;
mod scraping;
mod secure;
mod support;

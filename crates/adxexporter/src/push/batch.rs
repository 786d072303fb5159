//! Batches of points, bounded in number and size before they are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use crate::transform::Point;

/// How large a batch may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Points in a batch.
    pub points: usize,
    /// Bytes of a batch before compression. A single point that is larger goes alone.
    pub bytes: usize,
}

impl Default for Bounds {
    /// Half of what gRPC servers take when nobody tells them otherwise.
    fn default() -> Self {
        Bounds { points: 8192, bytes: 2 << 20 }
    }
}

/// Points on their way.
#[derive(Clone, Debug)]
pub struct Batch {
    request: Arc<ExportMetricsServiceRequest>,
    points: u64,
}

impl Batch {
    /// How many points it has.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// The message.
    pub fn request(&self) -> &ExportMetricsServiceRequest {
        &self.request
    }
}

/// Collects points until a batch is full.
#[derive(Debug)]
pub struct Batcher {
    resource: Resource,
    bounds: Bounds,
    metrics: Vec<Metric>,
    bytes: usize,
}

impl Batcher {
    pub(super) fn new(resource: &BTreeMap<String, String>, bounds: Bounds) -> Batcher {
        let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
        Batcher { resource: Resource { attributes, ..Resource::default() }, bounds, metrics: Vec::new(), bytes: 0 }
    }

    /// Adds a point; returns the batch that had no room for it.
    pub fn add(&mut self, point: &Point) -> Option<Batch> {
        let metric = gauge(point);
        // A field's tag and length come before it.
        let size = metric.encoded_len() + 6;
        let full = self.metrics.len() >= self.bounds.points || self.bytes + size > self.bounds.bytes;
        let batch = if full { self.take() } else { None };
        self.metrics.push(metric);
        self.bytes += size;
        batch
    }

    /// The points that were not given out yet.
    pub fn take(&mut self) -> Option<Batch> {
        if self.metrics.is_empty() {
            return None;
        }
        self.bytes = 0;
        let metrics = std::mem::take(&mut self.metrics);
        let points = metrics.len() as u64;
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics { resource: Some(self.resource.clone()), scope_metrics, ..ResourceMetrics::default() }];
        Some(Batch { request: Arc::new(ExportMetricsServiceRequest { resource_metrics }), points })
    }
}

/// A point as a gauge of its own, as the reference sends it.
fn gauge(point: &Point) -> Metric {
    let labels = point.labels.iter().filter(|(name, _)| is_sent(name));
    let data_point = NumberDataPoint {
        attributes: labels.map(|(name, value)| attribute(name, value)).collect(),
        time_unix_nano: point.time_ms.saturating_mul(1_000_000),
        value: Some(number_data_point::Value::AsDouble(point.value)),
        ..NumberDataPoint::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: vec![data_point] }));
    Metric { name: point.name.to_string(), data, ..Metric::default() }
}

/// Labels that carry the name or ADX-Mon's own routing stay here.
fn is_sent(label: &str) -> bool {
    label != "__name__" && !label.starts_with("adxmon_")
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(n: usize, label: usize) -> Point {
        let labels = BTreeMap::from([("l".into(), "x".repeat(label))]);
        Point { name: format!("m{n}").into(), labels: Arc::new(labels), time_ms: 1, value: n as f64 }
    }

    proptest! {
        #[test]
        fn every_point_is_in_one_batch_in_order_and_batches_keep_their_bounds(
            labels in prop::collection::vec(0usize..200, 0..60), points in 1usize..20, bytes in 250usize..2000,
        ) {
            let bounds = Bounds { points, bytes };
            let mut batcher = Batcher::new(&BTreeMap::new(), bounds);
            let mut batches: Vec<Batch> = labels.iter().enumerate().filter_map(|(n, &l)| batcher.add(&point(n, l))).collect();
            batches.extend(batcher.take());
            for batch in &batches {
                prop_assert!(batch.points() >= 1 && batch.points() <= points as u64);
                // The resource and the messages around the metrics are small change.
                prop_assert!(batch.request().encoded_len() <= bytes + 20 || batch.points() == 1);
            }
            let metrics = batches.iter().flat_map(|b| &b.request().resource_metrics[0].scope_metrics[0].metrics);
            let names: Vec<_> = metrics.map(|m| m.name.clone()).collect();
            prop_assert_eq!(names, (0..labels.len()).map(|n| format!("m{n}")).collect::<Vec<_>>());
        }
    }
}

//! Batches of points, bounded in number and size before they are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use telemetry::export::SeriesKind;

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    points: usize,
    bytes: usize,
}

impl Batcher {
    pub(super) fn new(resource: &BTreeMap<String, String>, bounds: Bounds) -> Batcher {
        let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
        Batcher { resource: Resource { attributes, ..Resource::default() }, bounds, metrics: Vec::new(), points: 0, bytes: 0 }
    }

    /// Adds a point as a gauge of its own, as the reference sends it; returns the batch that had no room for it.
    /// `time_ms` is in milliseconds since 1970.
    pub fn add<'l>(&mut self, name: &str, labels: impl Iterator<Item = (&'l str, &'l str)>, time_ms: u64, value: f64) -> Option<Batch> {
        let point = number_point(labels.filter(|(name, _)| is_sent(name)), time_ms, value);
        let size = point.encoded_len() + name.len() + PER_METRIC;
        let batch = self.make_room(size);
        self.push_metric(name, SeriesKind::Gauge, point);
        batch
    }

    /// As [`Batcher::add`], but points of one metric that follow each other share a message.
    pub fn add_to_metric<'l>(
        &mut self,
        (name, kind): (&str, SeriesKind),
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        time_ms: u64,
        value: f64,
    ) -> Option<Batch> {
        let point = number_point(labels, time_ms, value);
        let size = point.encoded_len() + name.len() + PER_METRIC;
        let batch = self.make_room(size);
        match self.metrics.last_mut().filter(|metric| metric.name == name).and_then(|metric| points_of(metric, kind)) {
            Some(points) => points.push(point),
            None => self.push_metric(name, kind, point),
        }
        batch
    }

    /// The points that were not given out yet.
    pub fn take(&mut self) -> Option<Batch> {
        if self.metrics.is_empty() {
            return None;
        }
        self.bytes = 0;
        let points = std::mem::take(&mut self.points) as u64;
        let scope_metrics = vec![ScopeMetrics { metrics: std::mem::take(&mut self.metrics), ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics { resource: Some(self.resource.clone()), scope_metrics, ..ResourceMetrics::default() }];
        Some(Batch { request: Arc::new(ExportMetricsServiceRequest { resource_metrics }), points })
    }

    fn make_room(&mut self, size: usize) -> Option<Batch> {
        let full = self.points >= self.bounds.points || self.bytes + size > self.bounds.bytes;
        let batch = if full { self.take() } else { None };
        self.points += 1;
        self.bytes += size;
        batch
    }

    fn push_metric(&mut self, name: &str, kind: SeriesKind, point: NumberDataPoint) {
        let data_points = vec![point];
        let sum = |is_monotonic, data_points| {
            metric::Data::Sum(Sum { data_points, aggregation_temporality: AggregationTemporality::Cumulative.into(), is_monotonic })
        };
        let data = match kind {
            SeriesKind::Counter => sum(true, data_points),
            SeriesKind::Sum => sum(false, data_points),
            SeriesKind::Gauge | SeriesKind::Unknown => metric::Data::Gauge(Gauge { data_points }),
        };
        self.metrics.push(Metric { name: name.to_owned(), data: Some(data), ..Metric::default() });
    }
}

/// Tags, lengths and numbers of the messages around a point, at most.
const PER_METRIC: usize = 32;

/// The points of a metric, if it is of this kind.
fn points_of(metric: &mut Metric, kind: SeriesKind) -> Option<&mut Vec<NumberDataPoint>> {
    match metric.data.as_mut()? {
        metric::Data::Gauge(gauge) => matches!(kind, SeriesKind::Gauge | SeriesKind::Unknown).then_some(&mut gauge.data_points),
        metric::Data::Sum(sum) => {
            let wanted = if sum.is_monotonic { SeriesKind::Counter } else { SeriesKind::Sum };
            (kind == wanted).then_some(&mut sum.data_points)
        }
        _ => None,
    }
}

fn number_point<'l>(labels: impl Iterator<Item = (&'l str, &'l str)>, time_ms: u64, value: f64) -> NumberDataPoint {
    // Prometheus marks a series that ended with a value, OTLP with a flag.
    let ended = telemetry::is_stale(value);
    NumberDataPoint {
        attributes: labels.map(|(name, value)| attribute(name, value)).collect(),
        time_unix_nano: time_ms.saturating_mul(1_000_000),
        flags: if ended { DataPointFlags::NoRecordedValueMask as u32 } else { 0 },
        value: (!ended).then_some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
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

    proptest! {
        #[test]
        fn every_point_is_in_one_batch_in_order_and_batches_keep_their_bounds(
            labels in prop::collection::vec(0usize..200, 0..60), points in 1usize..20, bytes in 250usize..2000, shared in any::<bool>(),
        ) {
            let bounds = Bounds { points, bytes };
            let mut batcher = Batcher::new(&BTreeMap::new(), bounds);
            let mut add = |(n, label): (usize, &usize)| {
                let text = "x".repeat(*label);
                let labels = std::iter::once(("l", text.as_str()));
                match shared {
                    false => batcher.add("m", labels, n as u64, 1.0),
                    true => batcher.add_to_metric(("m", SeriesKind::Counter), labels, n as u64, 1.0),
                }
            };
            let mut batches: Vec<Batch> = labels.iter().enumerate().filter_map(&mut add).collect();
            batches.extend(batcher.take());
            let mut times = Vec::new();
            for batch in &batches {
                prop_assert!(batch.points() >= 1 && batch.points() <= points as u64);
                // The resource and the messages around the metrics are small change.
                prop_assert!(batch.request().encoded_len() <= bytes + 20 || batch.points() == 1);
                let before = times.len();
                for metric in &batch.request().resource_metrics[0].scope_metrics[0].metrics {
                    let points = match metric.data.as_ref() {
                        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
                        Some(metric::Data::Sum(sum)) => &sum.data_points,
                        other => panic!("{other:?}"),
                    };
                    times.extend(points.iter().map(|point| point.time_unix_nano / 1_000_000));
                }
                prop_assert_eq!((times.len() - before) as u64, batch.points());
            }
            prop_assert_eq!(times, (0..labels.len() as u64).collect::<Vec<_>>());
        }
    }
}

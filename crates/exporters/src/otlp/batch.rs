//! Batches of points, bounded in number and size before they are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, Exemplar, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use telemetry::export::{ExportExemplar, SeriesKind};

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

/// Where a point stands in the batch that is being made.
#[derive(Clone, Copy, Debug)]
pub(super) struct PointId {
    metric: usize,
    point: usize,
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
    pub(super) fn add_to_metric<'l>(
        &mut self,
        (name, kind): (&str, SeriesKind),
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        (time_ms, value): (u64, f64),
        exemplars: &[ExportExemplar],
    ) -> Option<Batch> {
        let mut point = number_point(labels, time_ms, value);
        point.exemplars = exemplars.iter().map(|one| exemplar(one, time_ms)).collect();
        let size = point.encoded_len() + name.len() + PER_METRIC;
        let batch = self.make_room(size);
        match self.metrics.last_mut().filter(|metric| metric.name == name).and_then(|metric| points_of(metric, kind)) {
            Some(points) => points.push(point),
            None => self.push_metric(name, kind, point),
        }
        batch
    }

    /// The point that was added last.
    pub(super) fn last_point(&mut self) -> Option<PointId> {
        let metric = self.metrics.len().checked_sub(1)?;
        Some(PointId { metric, point: points(self.metrics.get_mut(metric)?)?.len().checked_sub(1)? })
    }

    /// Adds exemplars to a point of the batch that is being made; false when they have no room in it.
    pub(super) fn add_exemplars(&mut self, id: PointId, exemplars: &[ExportExemplar]) -> bool {
        let Some(point) = self.metrics.get_mut(id.metric).and_then(points).and_then(|points| points.get_mut(id.point)) else {
            return false;
        };
        let time_ms = point.time_unix_nano / 1_000_000;
        let exemplars: Vec<_> = exemplars.iter().map(|one| exemplar(one, time_ms)).collect();
        let size = exemplars.iter().map(|exemplar| exemplar.encoded_len() + PER_EXEMPLAR).sum::<usize>();
        if self.bytes + size > self.bounds.bytes {
            return false;
        }
        self.bytes += size;
        point.exemplars.extend(exemplars);
        true
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

/// Tag and length of an exemplar, and what longer lengths of the messages around it take, at most.
const PER_EXEMPLAR: usize = 16;

/// The points of a metric.
fn points(metric: &mut Metric) -> Option<&mut Vec<NumberDataPoint>> {
    match metric.data.as_mut()? {
        metric::Data::Gauge(gauge) => Some(&mut gauge.data_points),
        metric::Data::Sum(sum) => Some(&mut sum.data_points),
        _ => None,
    }
}

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

/// As OpenTelemetry's rules for Prometheus say: `trace_id` and `span_id` are identities if they can be, everything else is an
/// attribute.
fn exemplar(one: &ExportExemplar, time_ms: u64) -> Exemplar {
    let time_ms = one.timestamp_ms.map_or(time_ms, |time_ms| u64::try_from(time_ms).unwrap_or_default());
    let mut exemplar = Exemplar {
        time_unix_nano: time_ms.saturating_mul(1_000_000),
        value: Some(exemplar::Value::AsDouble(one.value)),
        ..Exemplar::default()
    };
    for (name, value) in &one.labels {
        match (name.as_str(), identity(value)) {
            ("trace_id", Some(id)) if id.len() == 16 => exemplar.trace_id = id,
            ("span_id", Some(id)) if id.len() == 8 => exemplar.span_id = id,
            _ => exemplar.filtered_attributes.push(attribute(name, value)),
        }
    }
    exemplar
}

/// The bytes of hexadecimal digits, of which not all are zero.
fn identity(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok();
    let bytes: Vec<u8> = digits.map(byte).collect::<Option<_>>()?;
    // A sign is no digit, though a number may have one.
    (!text.contains('+') && bytes.iter().any(|byte| *byte != 0)).then_some(bytes)
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn with_labels(labels: &[(&str, &str)]) -> ExportExemplar {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ExportExemplar { timestamp_ms: None, value: 2.5, labels }
    }

    /// The table of "Exemplars" in OpenTelemetry's "Prometheus and OpenMetrics Compatibility".
    #[test]
    fn identities_of_exemplars_are_told_from_attributes() {
        let good = [("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"), ("span_id", "00f067aa0ba902b7"), ("user", "u")];
        let made = exemplar(&with_labels(&good), 7);
        assert_eq!(made.trace_id[..2], [0x4b, 0xf9]);
        assert_eq!((made.trace_id.len(), made.span_id), (16, vec![0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        assert_eq!((made.time_unix_nano, made.value), (7_000_000, Some(exemplar::Value::AsDouble(2.5))));
        assert_eq!(made.filtered_attributes, [attribute("user", "u")]);
        let zero = "0".repeat(32);
        for bad in ["", "xyz", "4bf9", &zero, "+bf92f3577b34da6a3ce929d0e0e4736", "é"] {
            let made = exemplar(&with_labels(&[("trace_id", bad)]), 0);
            assert_eq!((made.trace_id, made.filtered_attributes), (vec![], vec![attribute("trace_id", bad)]));
        }
    }

    #[test]
    fn exemplars_find_their_point_and_keep_the_bounds() {
        let mut batcher = Batcher::new(&BTreeMap::new(), Bounds { points: 10, bytes: 300 });
        assert!(batcher.last_point().is_none());
        let mut add = |name| {
            assert!(batcher.add_to_metric((name, SeriesKind::Counter), std::iter::empty(), (1, 1.0), &[]).is_none());
            batcher.last_point().unwrap()
        };
        let (first, _) = (add("a"), add("b"));
        assert!(batcher.add_exemplars(first, &[with_labels(&[])]));
        assert!(!batcher.add_exemplars(first, &[with_labels(&[("l", &"x".repeat(300))])]));
        let batch = batcher.take().unwrap();
        assert!(!batcher.add_exemplars(first, &[with_labels(&[])]), "its batch is away");
        let exemplars = |metric: &Metric| match metric.data.as_ref() {
            Some(metric::Data::Sum(sum)) => sum.data_points[0].exemplars.len(),
            other => panic!("{other:?}"),
        };
        let metrics = &batch.request().resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(metrics.iter().map(exemplars).collect::<Vec<_>>(), [1, 0]);
    }

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
                    true => batcher.add_to_metric(("m", SeriesKind::Counter), labels, (n as u64, 1.0), &[]),
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

//! OTLP metrics: each point becomes one sample (gauge, sum) or the series of a histogram or summary.
//!
//! Resource attributes, scope and point attributes become labels, the point's own winning. Delta points are added
//! up ([`super::delta`]); a point flagged "no recorded value" becomes a
//! stale marker, Prometheus' sign of an ended series.

use super::exponential::{Exponential, SCALES, Side};
use super::histogram::{self, Family};
use super::series::{Request, Sample};
use super::staleness::STALE;
use crate::export::SeriesKind;
use crate::labels::Label;
use crate::otlp::value::{Any, key_value, label_text};
use crate::otlp::{self, Described, Scope, Signal};
use crate::wire::{self, Reader, Span, Value, WireError};
use crate::{DecodeError, Encoding, MetricIntake, Outcome, RowSet};

const NO_RECORDED_VALUE: u64 = 1;
const DELTA: u64 = 1;

/// Decodes an `ExportMetricsServiceRequest`.
pub(crate) fn decode(intake: &MetricIntake, body: &[u8], encoding: Encoding, out: &mut RowSet) -> Result<Outcome, DecodeError> {
    let mut outcome = Outcome::default();
    let body = otlp::protobuf(body, encoding, Signal::Metrics, &mut outcome)?;
    let mut request = Request::new(intake, &body, out);
    request.outcome = outcome;
    let mut fields = Reader::checked(&body)?;
    while let Some((field, value)) = fields.next()? {
        let (1, Value::Bytes(resource_metrics)) = (field, value) else { continue };
        if let Err(error) = resource(&mut request, resource_metrics) {
            request.outcome.reject(otlp::count_lost(&body, resource_metrics, 1, points_of), || error.to_string());
        }
    }
    Ok(request.outcome)
}

fn resource(request: &mut Request<'_, '_>, message: Span) -> Result<(), WireError> {
    let resource = Described::read(request.body, message)?;
    let kept = request.labels.kept();
    request.labels.begin();
    if !request.intake.only_point_attributes {
        for attribute in otlp::resource_attributes(request.body, resource.about)? {
            push_attribute(request, attribute)?;
        }
    }
    let labels = request.labels.entries().to_vec();
    request.labels.keep_arena();
    for scope_metrics in resource.items() {
        if let Err(error) = scope(request, scope_metrics, &labels) {
            request.outcome.reject(otlp::count_lost(request.body, scope_metrics, 0, points_of), || error.to_string());
        }
    }
    request.labels.release_to(kept);
    Ok(())
}

fn scope(request: &mut Request<'_, '_>, message: Span, resource_labels: &[Label]) -> Result<(), WireError> {
    let described = Described::read(request.body, message)?;
    let kept = request.labels.kept();
    request.labels.begin();
    if !request.intake.only_point_attributes {
        let scope = Scope::read(request.body, described.about)?;
        push_scope(request, &scope)?;
    }
    request.labels.push_missing(request.body, resource_labels);
    let labels = request.labels.entries().to_vec();
    request.labels.keep_arena();
    for one in described.items() {
        if let Err(error) = metric(request, one, &labels) {
            request.outcome.reject(points_of(request.body, one), || error.to_string());
        }
    }
    request.labels.release_to(kept);
    Ok(())
}

fn push_scope(request: &mut Request<'_, '_>, scope: &Scope) -> Result<(), WireError> {
    for (label, text) in [(&b"otel_scope_name"[..], scope.name), (b"otel_scope_version", scope.version)] {
        if text.len > 0 {
            let label = request.labels.hold(label);
            request.labels.push(request.body, label, text);
        }
    }
    for attribute in &scope.attributes {
        let (key, value) = key_value(request.body, *attribute)?;
        let label = [b"otel_scope_", key.of(request.body)].concat();
        let label = request.labels.hold(&label);
        push_value(request, label, value)?;
    }
    Ok(())
}

/// A metric's points and how they are to be read.
#[derive(Clone, Copy)]
struct Metric<'l> {
    name: Span,
    /// Labels of the resource and scope.
    shared: &'l [Label],
    delta: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

fn metric(request: &mut Request<'_, '_>, message: Span, shared: &[Label]) -> Result<(), WireError> {
    let (mut name, mut data) = (Span::default(), None);
    let mut fields = Reader::within(request.body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(span)) => name = span,
            (5, Value::Bytes(span)) => data = Some((Kind::Gauge, span)),
            (7, Value::Bytes(span)) => data = Some((Kind::Sum, span)),
            (9, Value::Bytes(span)) => data = Some((Kind::Histogram, span)),
            (10, Value::Bytes(span)) => data = Some((Kind::Exponential, span)),
            (11, Value::Bytes(span)) => data = Some((Kind::Summary, span)),
            (1 | 5 | 7 | 9..=11, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    let Some((kind, data)) = data else {
        let name = String::from_utf8_lossy(name.of(request.body)).into_owned();
        request.outcome.reject(1, || format!("metric {name:?} has no data of a known type"));
        return Ok(());
    };
    let delta = kind != Kind::Summary && number_of(request.body, data, 2)? == DELTA;
    request.kind = match kind {
        Kind::Gauge => SeriesKind::Gauge,
        Kind::Sum if number_of(request.body, data, 3)? != 0 => SeriesKind::Counter,
        Kind::Sum => SeriesKind::Sum,
        Kind::Histogram | Kind::Exponential | Kind::Summary => SeriesKind::Unknown,
    };
    points(request, Metric { name, shared, delta }, kind, data)
}

/// Number of points in a metric that has to be given up, as far as it can be read; at least one.
fn points_of(body: &[u8], metric: Span) -> u64 {
    let mut points = 0;
    let mut fields = Reader::within(body, metric);
    while let Ok(Some((field, value))) = fields.next() {
        let (5 | 7 | 9..=11, Value::Bytes(data)) = (field, value) else { continue };
        let mut data = Reader::within(body, data);
        while let Ok(Some((field, value))) = data.next() {
            points += u64::from(matches!((field, value), (1, Value::Bytes(_))));
        }
    }
    points.max(1)
}

/// A number of `Sum`, `Histogram` and `ExponentialHistogram`: field 2 is the temporality, field 3 of a sum says that it
/// only grows.
fn number_of(body: &[u8], data: Span, wanted: u32) -> Result<u64, WireError> {
    let mut found = 0;
    let mut fields = Reader::within(body, data);
    while let Some((field, value)) = fields.next()? {
        if let Value::Varint(number) = value
            && field == wanted
        {
            found = number;
        }
    }
    Ok(found)
}

fn points(request: &mut Request<'_, '_>, metric: Metric<'_>, kind: Kind, data: Span) -> Result<(), WireError> {
    let mut fields = Reader::within(request.body, data);
    while let Some((field, value)) = fields.next()? {
        let (1, Value::Bytes(message)) = (field, value) else { continue };
        if request.is_spent(1) {
            continue;
        }
        request.labels.begin();
        let read = wire::check_item(message).and_then(|()| match kind {
            Kind::Gauge | Kind::Sum => number_point(request, metric, message),
            Kind::Histogram => histogram_point(request, metric, message),
            Kind::Exponential => exponential_point(request, metric, message),
            Kind::Summary => summary_point(request, metric, message),
        });
        if let Err(error) = read {
            request.outcome.reject(1, || error.to_string());
        }
        request.lose_exemplars();
    }
    Ok(())
}

fn number_point(request: &mut Request<'_, '_>, metric: Metric<'_>, message: Span) -> Result<(), WireError> {
    let (mut time_ns, mut number, mut flags, mut exemplars) = (0, 0.0, 0, Vec::new());
    let mut fields = Reader::within(request.body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (3, Value::Fixed64(ns)) => time_ns = ns,
            (4, Value::Fixed64(bits)) => number = f64::from_bits(bits),
            (5, Value::Bytes(exemplar)) => wire::push(&mut exemplars, exemplar, exemplar)?,
            (6, Value::Fixed64(bits)) => number = bits.cast_signed() as f64,
            (7, Value::Bytes(attribute)) => push_attribute(request, attribute)?,
            (8, Value::Varint(bits)) => flags = bits,
            (3 | 4 | 6..=8, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    request.labels.push_missing(request.body, metric.shared);
    request.push_name(metric.name);
    request.otlp_exemplars(&exemplars);
    let recorded = flags & NO_RECORDED_VALUE == 0;
    let sample = Sample { timestamp_ms: milliseconds(time_ns), value: if recorded { number } else { STALE } };
    if metric.delta && recorded {
        request.delta_series(metric.name, sample, time_ns);
    } else {
        request.series(metric.name, &[sample]);
    }
    Ok(())
}

fn histogram_point(request: &mut Request<'_, '_>, metric: Metric<'_>, message: Span) -> Result<(), WireError> {
    let (mut time_ns, mut count, mut sum, mut flags) = (0, 0, None, 0);
    let (mut counts, mut bounds, mut exemplars) = (Vec::new(), Vec::new(), Vec::new());
    let mut fields = Reader::within(request.body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (3, Value::Fixed64(ns)) => time_ns = ns,
            (4, Value::Fixed64(number)) => count = number,
            (5, Value::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
            (6, value) => packed_fixed64(request.body, value, &mut counts, |number| number)?,
            (7, value) => packed_fixed64(request.body, value, &mut bounds, f64::from_bits)?,
            (8, Value::Bytes(exemplar)) => wire::push(&mut exemplars, exemplar, exemplar)?,
            (9, Value::Bytes(attribute)) => push_attribute(request, attribute)?,
            (10, Value::Varint(bits)) => flags = bits,
            (3..=5 | 9 | 10, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    if !counts.is_empty() && counts.len() != bounds.len() + 1 {
        let (counts, bounds) = (counts.len(), bounds.len());
        request.outcome.reject(1, || format!("histogram with {counts} bucket counts for {bounds} bounds"));
        return Ok(());
    }
    request.labels.push_missing(request.body, metric.shared);
    request.otlp_exemplars(&exemplars);
    let recorded = flags & NO_RECORDED_VALUE == 0;
    let value = |number: f64| if recorded { number } else { STALE };
    request.as_one_item(|request| {
        let delta_ns = (metric.delta && recorded).then_some(time_ns);
        let mut family = Family::new(request, metric.name, milliseconds(time_ns), delta_ns);
        family.series(b"_count", None, value(count as f64));
        if let Some(sum) = sum {
            family.series(b"_sum", None, value(sum));
        }
        let mut below = 0u64;
        let bounds = bounds.into_iter().chain([f64::INFINITY]);
        family.buckets(bounds.zip(&counts).map(|(upper, count)| {
            below = below.saturating_add(*count);
            (upper, value(below as f64))
        }));
    });
    Ok(())
}

fn exponential_point(request: &mut Request<'_, '_>, metric: Metric<'_>, message: Span) -> Result<(), WireError> {
    let mut histogram = Exponential::default();
    let (mut time_ns, mut flags, mut exemplars) = (0, 0, Vec::new());
    let mut fields = Reader::within(request.body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(attribute)) => push_attribute(request, attribute)?,
            (3, Value::Fixed64(ns)) => time_ns = ns,
            (4, Value::Fixed64(number)) => histogram.count = number as f64,
            (5, Value::Fixed64(bits)) => histogram.sum = Some(f64::from_bits(bits)),
            (6, Value::Varint(number)) => histogram.scale = zigzag32(number),
            (7, Value::Fixed64(number)) => histogram.zero_count = number as f64,
            (8, Value::Bytes(side)) => histogram.positive = buckets(request.body, side)?,
            (9, Value::Bytes(side)) => histogram.negative = buckets(request.body, side)?,
            (10, Value::Varint(bits)) => flags = bits,
            (11, Value::Bytes(exemplar)) => wire::push(&mut exemplars, exemplar, exemplar)?,
            (14, Value::Fixed64(bits)) => histogram.zero_threshold = f64::from_bits(bits),
            (1 | 3..=10 | 14, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    if !SCALES.contains(&histogram.scale) {
        request.outcome.reject(1, || format!("exponential histogram of scale {}", histogram.scale));
        return Ok(());
    }
    request.labels.push_missing(request.body, metric.shared);
    request.otlp_exemplars(&exemplars);
    let timestamp_ms = milliseconds(time_ns);
    if flags & NO_RECORDED_VALUE != 0 {
        histogram::write_ended(request, metric.name, timestamp_ms);
    } else if metric.delta {
        histogram::write_exponential_delta(request, metric.name, timestamp_ms, time_ns, histogram);
    } else {
        histogram::write_exponential(request, metric.name, timestamp_ms, &histogram);
    }
    Ok(())
}

fn buckets(body: &[u8], message: Span) -> Result<Side, WireError> {
    let mut side = Side::default();
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(number)) => side.offset = zigzag32(number),
            (2, Value::Varint(count)) => wire::push(&mut side.counts, count as f64, message)?,
            (2, Value::Bytes(span)) => {
                let mut counts = Reader::within(body, span);
                while !counts.at_end() {
                    wire::push(&mut side.counts, counts.varint()? as f64, span)?;
                }
            }
            (1 | 2, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(side)
}

fn summary_point(request: &mut Request<'_, '_>, metric: Metric<'_>, message: Span) -> Result<(), WireError> {
    let (mut time_ns, mut count, mut sum, mut quantiles, mut flags) = (0, 0, 0.0, Vec::new(), 0);
    let mut fields = Reader::within(request.body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (3, Value::Fixed64(ns)) => time_ns = ns,
            (4, Value::Fixed64(number)) => count = number,
            (5, Value::Fixed64(bits)) => sum = f64::from_bits(bits),
            (6, Value::Bytes(quantile)) => wire::push(&mut quantiles, read_quantile(request.body, quantile)?, quantile)?,
            (7, Value::Bytes(attribute)) => push_attribute(request, attribute)?,
            (8, Value::Varint(bits)) => flags = bits,
            (3..=8, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    request.labels.push_missing(request.body, metric.shared);
    let value = |number: f64| if flags & NO_RECORDED_VALUE == 0 { number } else { STALE };
    request.as_one_item(|request| {
        let mut family = Family::new(request, metric.name, milliseconds(time_ns), None);
        family.series(b"_count", None, value(count as f64));
        family.series(b"_sum", None, value(sum));
        for (quantile, read) in quantiles {
            family.series(b"", Some((b"quantile", quantile)), value(read));
        }
    });
    Ok(())
}

fn read_quantile(body: &[u8], message: Span) -> Result<(f64, f64), WireError> {
    let (mut quantile, mut read) = (0.0, 0.0);
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Fixed64(bits)) => quantile = f64::from_bits(bits),
            (2, Value::Fixed64(bits)) => read = f64::from_bits(bits),
            _ => {}
        }
    }
    Ok((quantile, read))
}

fn push_attribute(request: &mut Request<'_, '_>, attribute: Span) -> Result<(), WireError> {
    let (key, value) = key_value(request.body, attribute)?;
    wire::check_members(request.labels.entries().len(), attribute)?;
    push_value(request, key, value)
}

fn push_value(request: &mut Request<'_, '_>, key: Span, value: Any) -> Result<(), WireError> {
    match value {
        Any::String(text) => request.labels.push(request.body, key, text),
        Any::Null => {}
        other => {
            let body = request.body;
            let mut written = Ok(());
            let text = request.labels.hold_with(|arena| written = label_text(arena, body, other));
            written?;
            request.labels.push(body, key, text);
        }
    }
    Ok(())
}

fn milliseconds(time_ns: u64) -> i64 {
    (time_ns / 1_000_000).cast_signed()
}

fn zigzag32(number: u64) -> i32 {
    let number = number as u32;
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// One fixed64 or a packed field of them, added to a list.
pub(crate) fn packed_fixed64<T>(body: &[u8], value: Value, list: &mut Vec<T>, from: fn(u64) -> T) -> Result<(), WireError> {
    match value {
        Value::Fixed64(number) => wire::push(list, from(number), Span::default()),
        Value::Bytes(span) => {
            let (numbers, rest) = span.of(body).as_chunks::<8>();
            if !rest.is_empty() {
                return Err(WireError { offset: span.start as usize, reason: "packed numbers cut short" });
            }
            wire::check_members(list.len() + numbers.len(), span)?;
            list.extend(numbers.iter().map(|number| from(u64::from_le_bytes(*number))));
            Ok(())
        }
        _ => Err(WireError { offset: 0, reason: "unexpected wire type" }),
    }
}

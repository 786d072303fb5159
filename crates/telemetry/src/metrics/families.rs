//! The protobuf exposition: messages `io.prometheus.client.MetricFamily`, each after its length as a varint.
//!
//! `MetricFamily{1: name, 3: type, 4: Metric{1: LabelPair{1: name, 2: value}, 2: Gauge{1}, 3: Counter{1, 2: exemplar},
//! 4: Summary{1: count, 2: sum, 3: Quantile{1, 2}}, 5: Untyped{1}, 6: int64 ms, 7: Histogram}}`. What is counted in buckets
//! becomes the series that the text formats have: `_bucket` by `le`, `_sum`, `_count`, numbers written as Go does. A
//! histogram with both kinds of buckets is taken by its classic ones, whose bounds stay the same; one with native buckets
//! alone is converted as those of remote write are.

use super::exemplars;
use super::exponential::Exponential;
use super::native_histogram::{self, SentSide};
use super::scrape::{PageProgress, Target};
use super::series::Request;
use crate::export::SeriesKind;
use crate::labels::Label;
use crate::text;
use crate::wire::{self, Reader, Span, Value, WireError};

/// Where reading stands within a family.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// What is left of the family that is being read.
    left: Option<Span>,
    name: Span,
    kind: u64,
}

const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const SUMMARY: u64 = 2;
const UNTYPED: u64 = 3;
const HISTOGRAM: u64 = 4;
const GAUGE_HISTOGRAM: u64 = 5;

/// Whether `body` consists of whole messages.
pub(super) fn is_complete(body: &[u8]) -> bool {
    let mut pos = 0;
    while pos < body.len() {
        if next_family(body, &mut pos).is_err() {
            return false;
        }
    }
    true
}

/// Number of metrics.
pub(super) fn count(body: &[u8]) -> u64 {
    let (mut pos, mut metrics) = (0, 0);
    while pos < body.len() {
        let Ok(family) = next_family(body, &mut pos) else { break };
        let mut left = Some(family);
        while let Some(here) = left {
            let (metric, rest) = next_metric(body, here);
            metrics += u64::from(metric.is_some());
            left = rest;
        }
    }
    metrics
}

/// Reads families; answers whether the page has ended.
pub(super) fn read(request: &mut Request<'_, '_>, target: &mut Target<'_>, progress: &mut PageProgress, max_samples: u64) -> bool {
    loop {
        if progress.family.left.is_none() {
            if progress.pos >= request.body.len() {
                return true;
            }
            let begun = next_family(request.body, &mut progress.pos).map(|message| begin(request.body, message));
            match begun {
                Ok(Ok(begun)) => progress.family = begun,
                Ok(Err(error)) => request.outcome.reject(1, || error.to_string()),
                // Without its length nobody knows where the next message begins.
                Err(error) => {
                    request.outcome.reject(1, || error.to_string());
                    return true;
                }
            }
        }
        while let Some(left) = progress.family.left {
            if request.outcome.total() >= max_samples {
                return false;
            }
            let (metric, rest) = next_metric(request.body, left);
            progress.family.left = rest;
            let Some(metric) = metric else { continue };
            if let Err(error) = one_metric(request, target, progress, metric) {
                request.outcome.reject(1, || error.to_string());
            }
        }
    }
}

/// The next message, behind which `pos` is left.
fn next_family(body: &[u8], pos: &mut usize) -> Result<Span, WireError> {
    let mut frame = Reader::within(body, Span { start: *pos as u32, len: (body.len() - *pos) as u32 });
    let message = frame.bytes()?;
    *pos = message.start as usize + message.len as usize;
    Ok(message)
}

/// Name and type of a family, all of which is left to read.
fn begin(body: &[u8], message: Span) -> Result<Progress, WireError> {
    let mut family = Progress { left: Some(message), name: Span::default(), kind: COUNTER };
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(name)) => family.name = name,
            (3, Value::Varint(kind)) => family.kind = kind,
            (4, Value::Bytes(_)) => {}
            (1 | 3 | 4, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(family)
}

/// The next metric of a family, and what is left of the family after it. The family's fields were all read once.
fn next_metric(body: &[u8], left: Span) -> (Option<Span>, Option<Span>) {
    let mut fields = Reader::within(body, left);
    while let Ok(Some((field, value))) = fields.next() {
        if let (4, Value::Bytes(metric)) = (field, value) {
            return (Some(metric), Some(fields.rest()));
        }
    }
    (None, None)
}

/// A metric as it is sent.
#[derive(Default)]
struct Metric {
    /// Of the type that the family names.
    data: Option<Span>,
    timestamp_ms: Option<i64>,
}

fn one_metric(request: &mut Request<'_, '_>, target: &mut Target<'_>, progress: &mut PageProgress, message: Span) -> Result<(), WireError> {
    wire::check_item(message)?;
    let family = progress.family;
    request.labels.begin();
    let metric = read_metric(request, family.kind, message)?;
    let data = metric.data.ok_or(WireError { offset: message.start as usize, reason: "a metric without a value of its family's type" })?;
    request.kind = match family.kind {
        COUNTER => SeriesKind::Counter,
        GAUGE => SeriesKind::Gauge,
        _ => SeriesKind::Unknown,
    };
    let own = request.labels.entries().to_vec();
    let mut series = Series { request, target, name: family.name, own, timestamp_ms: metric.timestamp_ms };
    match family.kind {
        SUMMARY => summary(&mut series, data),
        HISTOGRAM | GAUGE_HISTOGRAM => histogram(&mut series, data),
        _ => number(&mut series, data),
    }
}

fn read_metric(request: &mut Request<'_, '_>, kind: u64, message: Span) -> Result<Metric, WireError> {
    let wanted = match kind {
        COUNTER => 3,
        GAUGE => 2,
        SUMMARY => 4,
        UNTYPED => 5,
        HISTOGRAM | GAUGE_HISTOGRAM => 7,
        _ => return Err(WireError { offset: message.start as usize, reason: "a metric of an unknown type" }),
    };
    let mut metric = Metric::default();
    let mut fields = Reader::within(request.body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(label)) => {
                let (name, value) = super::remote_write::read_label(request.body, label)?;
                wire::check_members(request.labels.entries().len(), label)?;
                request.labels.push(request.body, name, value);
            }
            (6, Value::Varint(ms)) => metric.timestamp_ms = Some(ms.cast_signed()),
            (field, Value::Bytes(data)) if field == wanted => metric.data = Some(data),
            (1 | 6, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(metric)
}

/// Writes the series of one metric.
struct Series<'r, 'i, 'o, 't, 's> {
    request: &'r mut Request<'i, 'o>,
    target: &'t mut Target<'s>,
    name: Span,
    own: Vec<Label>,
    timestamp_ms: Option<i64>,
}

impl Series<'_, '_, '_, '_, '_> {
    /// Writes `<name><suffix>` with one label more.
    fn write(&mut self, suffix: &[u8], extra: Option<(&[u8], f64)>, value: f64) {
        let labels = &mut self.request.labels;
        labels.begin();
        labels.restore(&self.own);
        if let Some((label, number)) = extra {
            let (name, number) = (labels.hold(label), labels.hold_with(|out| text::go_float(out, number)));
            let label = labels.label(self.request.body, name, number);
            labels.set_all(self.request.body, &[label]);
        }
        let mut metric = self.name;
        if !suffix.is_empty() {
            let body = self.request.body;
            metric = labels.hold_with(|out| out.extend([self.name.of(body), suffix].concat()));
        }
        self.target.sample(self.request, metric, value, self.timestamp_ms);
    }
}

/// Gauge, counter or untyped: one value, and an exemplar of a counter.
fn number(series: &mut Series<'_, '_, '_, '_, '_>, data: Span) -> Result<(), WireError> {
    let (mut number, mut exemplar) = (0.0, None);
    let mut fields = Reader::within(series.request.body, data);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Fixed64(bits)) => number = f64::from_bits(bits),
            (1, _) => return Err(fields.error("unexpected wire type")),
            (2, Value::Bytes(span)) => exemplar = Some(span),
            _ => {}
        }
    }
    series.request.exposition_exemplars(exemplar.as_slice());
    series.write(b"", None, number);
    Ok(())
}

fn summary(series: &mut Series<'_, '_, '_, '_, '_>, data: Span) -> Result<(), WireError> {
    let (mut count, mut sum, mut quantiles) = (0, 0.0, Vec::new());
    let body = series.request.body;
    let mut fields = Reader::within(body, data);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(number)) => count = number,
            (2, Value::Fixed64(bits)) => sum = f64::from_bits(bits),
            (3, Value::Bytes(quantile)) => wire::push(&mut quantiles, two_doubles(body, quantile)?, quantile)?,
            (1..=3, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    for (quantile, value) in quantiles {
        series.write(b"", Some((b"quantile", quantile)), value);
    }
    series.write(b"_sum", None, sum);
    series.write(b"_count", None, count as f64);
    Ok(())
}

fn two_doubles(body: &[u8], message: Span) -> Result<(f64, f64), WireError> {
    let mut read = (0.0, 0.0);
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Fixed64(bits)) => read.0 = f64::from_bits(bits),
            (2, Value::Fixed64(bits)) => read.1 = f64::from_bits(bits),
            (1 | 2, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(read)
}

/// A histogram as it is sent: 1 and 4: count, 2: sum, 3: classic buckets, 5: schema, 6: zero threshold, 7 and 8: zero
/// count, 9 to 11: negative spans, deltas and counts, 12 to 14: positive ones, 16: exemplars of native buckets.
#[derive(Default)]
struct Sent {
    count: f64,
    float_count: f64,
    sum: f64,
    /// Upper bound and cumulative count.
    classic: Vec<(f64, f64)>,
    schema: i64,
    zero_threshold: f64,
    zero_count: f64,
    float_zero_count: f64,
    negative: SentSide,
    positive: SentSide,
    exemplars: Vec<Span>,
}

impl Sent {
    fn count(&self) -> f64 {
        if self.float_count > 0.0 { self.float_count } else { self.count }
    }

    /// The buckets to write, ending with (`+Inf`, all).
    fn buckets(self, at: Span) -> Result<Vec<(f64, f64)>, WireError> {
        let count = self.count();
        let is_native = !self.positive.is_empty() || !self.negative.is_empty() || self.zero_threshold > 0.0;
        if self.classic.is_empty() && is_native {
            let zero_count = if self.float_zero_count > 0.0 { self.float_zero_count } else { self.zero_count };
            let known = Exponential { zero_threshold: self.zero_threshold, zero_count, count, ..Exponential::default() };
            let unknown = WireError { offset: at.start as usize, reason: "native histogram of an unknown schema or shape" };
            let mut native = native_histogram::with_sides(known, self.schema, &self.negative, &self.positive).ok_or(unknown)?;
            native.fit();
            return Ok(native.cumulative());
        }
        let mut buckets = self.classic;
        if buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            buckets.push((f64::INFINITY, count));
        }
        Ok(buckets)
    }
}

fn histogram(series: &mut Series<'_, '_, '_, '_, '_>, data: Span) -> Result<(), WireError> {
    let mut sent = read_histogram(series.request.body, data)?;
    let (count, sum, exemplars) = (sent.count(), sent.sum, std::mem::take(&mut sent.exemplars));
    let buckets = sent.buckets(data)?;
    series.request.exposition_exemplars(&exemplars);
    let mut exemplars = std::mem::take(&mut series.request.exemplars);
    for (upper, count) in buckets {
        series.request.exemplars = exemplars::up_to(&mut exemplars, upper);
        series.write(b"_bucket", Some((b"le", upper)), count);
    }
    series.request.exemplars.append(&mut exemplars);
    series.request.lose_exemplars();
    series.write(b"_sum", None, sum);
    series.write(b"_count", None, count);
    Ok(())
}

fn read_histogram(body: &[u8], data: Span) -> Result<Sent, WireError> {
    let mut sent = Sent::default();
    let mut fields = Reader::within(body, data);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(count)) => sent.count = count as f64,
            (2, Value::Fixed64(bits)) => sent.sum = f64::from_bits(bits),
            (3, Value::Bytes(bucket)) => {
                let read = read_bucket(body, bucket, &mut sent.exemplars)?;
                wire::push(&mut sent.classic, read, bucket)?;
            }
            (4, Value::Fixed64(bits)) => sent.float_count = f64::from_bits(bits),
            (5, Value::Varint(number)) => sent.schema = native_histogram::zigzag(number),
            (6, Value::Fixed64(bits)) => sent.zero_threshold = f64::from_bits(bits),
            (7, Value::Varint(count)) => sent.zero_count = count as f64,
            (8, Value::Fixed64(bits)) => sent.float_zero_count = f64::from_bits(bits),
            (9..=11, value) => sent.negative.field(body, field - 9, value)?,
            (12..=14, value) => sent.positive.field(body, field - 12, value)?,
            (16, Value::Bytes(exemplar)) => wire::push(&mut sent.exemplars, exemplar, exemplar)?,
            (1..=8, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(sent)
}

fn read_bucket(body: &[u8], message: Span, exemplars: &mut Vec<Span>) -> Result<(f64, f64), WireError> {
    let (mut bound, mut count, mut float_count) = (0.0, 0.0, 0.0);
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(number)) => count = number as f64,
            (2, Value::Fixed64(bits)) => bound = f64::from_bits(bits),
            (3, Value::Bytes(exemplar)) => wire::push(exemplars, exemplar, exemplar)?,
            (4, Value::Fixed64(bits)) => float_count = f64::from_bits(bits),
            (1 | 2 | 4, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok((bound, if float_count > 0.0 { float_count } else { count }))
}

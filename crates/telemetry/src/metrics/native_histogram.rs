//! Native histograms of remote write (`prometheus.Histogram`), exponential or with custom buckets, written as cumulative
//! buckets.

use super::exponential::{Exponential, SCALES, Side};
use super::histogram;
use super::series::Request;
use super::staleness::is_stale;
use crate::wire::{self, Reader, Span, Value, WireError};

/// The schema of histograms whose bounds are sent with them.
const CUSTOM_BUCKETS: i64 = -53;

/// Longest gap between spans that is filled with empty buckets.
const MAX_SPREAD: usize = 1 << 16;

/// Spans and counts of one side as they are sent.
#[derive(Default)]
pub(super) struct SentSide {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl SentSide {
    /// Takes a field: 0 for spans, 1 for counts as differences, 2 for counts.
    pub(super) fn field(&mut self, body: &[u8], which: u32, value: Value) -> Result<(), WireError> {
        match (which, value) {
            (0, Value::Bytes(span)) => wire::push(&mut self.spans, bucket_span(body, span)?, span),
            (1, value) => packed_zigzag(body, value, &mut self.deltas),
            (2, value) => packed_doubles(body, value, &mut self.counts),
            _ => Ok(()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// Writes the histograms of the series whose labels the request holds. They were collected before anything was
/// written, so the labels still name the histogram itself.
pub(crate) fn write_all(request: &mut Request<'_, '_>, metric: Span, histograms: &[Span]) -> Result<(), WireError> {
    for message in histograms {
        let sent = Sent::read(request.body, *message)?;
        // Prometheus says by the sum that a histogram has ended.
        if is_stale(sent.sum) {
            histogram::write_ended(request, metric, sent.timestamp_ms);
        } else if !sent.write(request, metric) {
            request.outcome.reject(1, || "native histogram of an unknown schema or shape".to_owned());
        }
    }
    Ok(())
}

/// A histogram as it is sent.
#[derive(Default)]
struct Sent {
    timestamp_ms: i64,
    schema: i64,
    count: f64,
    sum: f64,
    zero_threshold: f64,
    zero_count: f64,
    negative: SentSide,
    positive: SentSide,
    /// Upper bounds of custom buckets.
    bounds: Vec<f64>,
}

impl Sent {
    fn read(body: &[u8], message: Span) -> Result<Sent, WireError> {
        let mut sent = Sent::default();
        let mut fields = Reader::within(body, message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Varint(count)) => sent.count = count as f64,
                (2, Value::Fixed64(bits)) => sent.count = f64::from_bits(bits),
                (3, Value::Fixed64(bits)) => sent.sum = f64::from_bits(bits),
                (4, Value::Varint(number)) => sent.schema = zigzag(number),
                (5, Value::Fixed64(bits)) => sent.zero_threshold = f64::from_bits(bits),
                (6, Value::Varint(count)) => sent.zero_count = count as f64,
                (7, Value::Fixed64(bits)) => sent.zero_count = f64::from_bits(bits),
                (8..=10, value) => sent.negative.field(body, field - 8, value)?,
                (11..=13, value) => sent.positive.field(body, field - 11, value)?,
                (15, Value::Varint(ms)) => sent.timestamp_ms = ms.cast_signed(),
                (16, value) => packed_doubles(body, value, &mut sent.bounds)?,
                _ => {}
            }
        }
        Ok(sent)
    }

    /// Writes it, or answers that its schema or shape is unknown.
    fn write(self, request: &mut Request<'_, '_>, metric: Span) -> bool {
        if self.schema == CUSTOM_BUCKETS {
            let Some(buckets) = self.custom_buckets() else { return false };
            histogram::write_cumulative(request, metric, self.timestamp_ms, (self.count, Some(self.sum)), buckets);
            return true;
        }
        let Sent { timestamp_ms, count, zero_threshold, zero_count, .. } = self;
        let known = Exponential { count, sum: Some(self.sum), zero_threshold, zero_count, ..Exponential::default() };
        let Some(histogram) = with_sides(known, self.schema, &self.negative, &self.positive) else { return false };
        histogram::write_exponential(request, metric, timestamp_ms, &histogram);
        true
    }

    /// Upper bound and cumulative count of each bucket, ending with (`+Inf`, all): one for each bound, with values or
    /// without, as a classic histogram has them.
    fn custom_buckets(&self) -> Option<Vec<(f64, f64)>> {
        let ascending = self.bounds.is_sorted_by(|a, b| a < b) && self.bounds.first().is_none_or(|first| !first.is_nan());
        if !ascending || !self.negative.is_empty() {
            return None;
        }
        let side = dense(&self.positive)?;
        // Its index is one less than Prometheus', by which the first bound has number 0.
        let first = usize::try_from(side.offset.checked_add(1)?).ok()?;
        if side.counts.len() > (self.bounds.len() + 1).saturating_sub(first) {
            return None;
        }
        let mut counts = std::iter::repeat_n(0.0, first).chain(side.counts);
        let mut below = 0.0;
        let mut next = || {
            below += counts.next().unwrap_or_default();
            below
        };
        let mut buckets: Vec<(f64, f64)> = self.bounds.iter().map(|bound| (*bound, next())).collect();
        buckets.retain(|(bound, _)| bound.is_finite());
        buckets.push((f64::INFINITY, self.count.max(next())));
        Some(buckets)
    }
}

/// The histogram with its buckets; none of an unknown schema or a shape that cannot be.
pub(super) fn with_sides(histogram: Exponential, schema: i64, negative: &SentSide, positive: &SentSide) -> Option<Exponential> {
    let scale = i32::try_from(schema).ok().filter(|scale| (-4..=8).contains(scale) && SCALES.contains(scale))?;
    let (negative, positive) = dense(negative).zip(dense(positive))?;
    Some(Exponential { scale, negative, positive, ..histogram })
}

fn bucket_span(body: &[u8], message: Span) -> Result<(i32, u32), WireError> {
    let (mut offset, mut length) = (0, 0);
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(number)) => offset = zigzag(number) as i32,
            (2, Value::Varint(number)) => length = number as u32,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// Contiguous buckets. Integer counts are sent as differences to the bucket before; index *i* of Prometheus ends
/// at b^i, one less than the index of OTLP whose convention [`Side`] follows.
fn dense(sent: &SentSide) -> Option<Side> {
    let mut running = 0i64;
    let from_deltas = sent.deltas.iter().map(|delta| {
        running = running.saturating_add(*delta);
        running as f64
    });
    let values: Vec<f64> = if sent.counts.is_empty() { from_deltas.collect() } else { sent.counts.clone() };
    let mut values = values.into_iter();
    let mut side = Side::default();
    let mut next = 0i64;
    for (number, &(offset, length)) in sent.spans.iter().enumerate() {
        if number == 0 {
            side.offset = offset.checked_sub(1)?;
        } else {
            let gap = usize::try_from(offset).ok()?;
            next += gap as i64;
        }
        let start = usize::try_from(next).ok()?;
        let length = length as usize;
        if start + length > MAX_SPREAD || length > values.len() {
            return None;
        }
        side.counts.resize(start, 0.0);
        side.counts.extend(values.by_ref().take(length));
        next += length as i64;
    }
    Some(side)
}

pub(super) fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

fn packed_zigzag(body: &[u8], value: Value, out: &mut Vec<i64>) -> Result<(), WireError> {
    match value {
        Value::Varint(number) => out.push(zigzag(number)),
        Value::Bytes(span) => {
            let mut numbers = Reader::within(body, span);
            while !numbers.at_end() {
                wire::push(out, zigzag(numbers.varint()?), span)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn packed_doubles(body: &[u8], value: Value, out: &mut Vec<f64>) -> Result<(), WireError> {
    super::otlp::packed_fixed64(body, value, out, f64::from_bits)
}

//! Native histograms of remote write 1.0 (`prometheus.Histogram`), written as cumulative buckets.

use super::exponential::{Exponential, SCALES, Side};
use super::histogram;
use super::series::Request;
use crate::wire::{self, Reader, Span, Value, WireError};

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
        match read(request.body, *message)? {
            (timestamp_ms, Some(histogram)) => {
                histogram::write_exponential(request, metric, timestamp_ms, &histogram);
            }
            (_, None) => request.outcome.reject(1, || "native histogram of an unknown schema or shape".to_owned()),
        }
    }
    Ok(())
}

fn read(body: &[u8], message: Span) -> Result<(i64, Option<Exponential>), WireError> {
    let mut histogram = Exponential::default();
    let (mut schema, mut timestamp_ms, mut sum) = (0, 0, 0.0);
    let (mut negative, mut positive) = (SentSide::default(), SentSide::default());
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(count)) => histogram.count = count as f64,
            (2, Value::Fixed64(bits)) => histogram.count = f64::from_bits(bits),
            (3, Value::Fixed64(bits)) => sum = f64::from_bits(bits),
            (4, Value::Varint(number)) => schema = zigzag(number),
            (5, Value::Fixed64(bits)) => histogram.zero_threshold = f64::from_bits(bits),
            (6, Value::Varint(count)) => histogram.zero_count = count as f64,
            (7, Value::Fixed64(bits)) => histogram.zero_count = f64::from_bits(bits),
            (8..=10, value) => negative.field(body, field - 8, value)?,
            (11..=13, value) => positive.field(body, field - 11, value)?,
            (15, Value::Varint(ms)) => timestamp_ms = ms.cast_signed(),
            _ => {}
        }
    }
    histogram.sum = Some(sum);
    Ok((timestamp_ms, with_sides(histogram, schema, &negative, &positive)))
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

//! Prometheus remote write 1.0: `WriteRequest{1: TimeSeries{1: Label{1: name, 2: value}, 2: Sample{1: double value,
//! 2: int64 ms}, 3: exemplars, 4: native histograms}, 3: metadata}`.
//!
//! Labels are spans of the body until they are hashed and written; a series that cannot be read is counted and its
//! neighbours are kept.

use super::native_histogram;
use super::series::{Request, Sample};
use crate::labels::{Labels, NAME};
use crate::wire::{self, Reader, Span, Value, WireError};
use crate::{DecodeError, MetricIntake, Outcome, RowSet};

/// Decodes a `WriteRequest`.
pub(crate) fn decode(intake: &MetricIntake, body: &[u8], out: &mut RowSet) -> Result<Outcome, DecodeError> {
    let mut fields = Reader::checked(body)?;
    let mut request = Request::new(intake, body, out);
    let mut scratch = Scratch::default();
    while let Some((field, value)) = fields.next()? {
        let (1, Value::Bytes(series)) = (field, value) else { continue };
        if let Err(error) = one_series(&mut request, series, &mut scratch) {
            request.outcome.reject(1, || error.to_string());
        }
        request.lose_exemplars();
    }
    Ok(request.outcome)
}

/// What is collected of one series before anything of it is written.
#[derive(Default)]
struct Scratch {
    samples: Vec<Sample>,
    histograms: Vec<Span>,
    exemplars: Vec<Span>,
}

fn one_series(request: &mut Request<'_, '_>, series: Span, scratch: &mut Scratch) -> Result<(), WireError> {
    let metric = read_series(request, series, scratch)?;
    request.remote_write_exemplars(&scratch.exemplars);
    if !scratch.samples.is_empty() {
        request.series(metric, &scratch.samples);
    }
    if scratch.samples.is_empty() && scratch.histograms.is_empty() {
        request.series_of_exemplars(metric);
    }
    native_histogram::write_all(request, metric, &scratch.histograms)
}

/// Collects labels into the request and the rest into `scratch`; answers with the metric's name.
fn read_series(request: &mut Request<'_, '_>, series: Span, scratch: &mut Scratch) -> Result<Span, WireError> {
    wire::check_item(series)?;
    request.labels.begin();
    scratch.samples.clear();
    scratch.histograms.clear();
    scratch.exemplars.clear();
    let mut metric = Span::default();
    let mut add = |labels: &mut Labels, label: Span| {
        let (name, value) = read_label(request.body, label)?;
        wire::check_members(labels.entries().len(), label)?;
        if metric.len == 0 && name.of(request.body) == NAME {
            metric = value;
        }
        labels.push(request.body, name, value);
        Ok(())
    };
    let mut fields = Reader::within(request.body, series);
    loop {
        while let Some(label) = fields.short_bytes(1) {
            add(&mut request.labels, label)?;
        }
        let Some((field, value)) = fields.next()? else { break };
        match (field, value) {
            (1, Value::Bytes(label)) => add(&mut request.labels, label)?,
            (2, Value::Bytes(sample)) => wire::push(&mut scratch.samples, read_sample(request.body, sample)?, sample)?,
            (3, Value::Bytes(exemplar)) => wire::push(&mut scratch.exemplars, exemplar, exemplar)?,
            (4, Value::Bytes(histogram)) => wire::push(&mut scratch.histograms, histogram, histogram)?,
            (1 | 2 | 4, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(metric)
}

#[inline]
pub(super) fn read_label(body: &[u8], label: Span) -> Result<(Span, Span), WireError> {
    match wire::pair(body, label) {
        Some(pair) => Ok(pair),
        None => read_any_label(body, label),
    }
}

fn read_any_label(body: &[u8], label: Span) -> Result<(Span, Span), WireError> {
    let (mut name, mut text) = (Span::default(), Span::default());
    let mut fields = Reader::within(body, label);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(span)) => name = span,
            (2, Value::Bytes(span)) => text = span,
            (1 | 2, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok((name, text))
}

#[inline]
pub(super) fn read_sample(body: &[u8], sample: Span) -> Result<Sample, WireError> {
    match usual_sample(sample.of(body)) {
        Some(sample) => Ok(sample),
        None => read_any_sample(body, sample),
    }
}

/// A sample of a value and a time between 1971 and 2109, in this order: what nearly every one is.
#[inline]
fn usual_sample(message: &[u8]) -> Option<Sample> {
    const VALUE: u8 = 1 << 3 | 1;
    const TIME: u8 = 2 << 3;
    let &[VALUE, a, b, c, d, e, f, g, h, TIME, ref time @ ..] = message else { return None };
    // The seventh byte would begin with the 42nd bit.
    let time: &[u8; 6] = time.try_into().ok()?;
    let (last, others) = time.split_last()?;
    if *last >= 0x80 || others.iter().any(|byte| *byte < 0x80) {
        return None;
    }
    let timestamp_ms = time.iter().rev().fold(0, |ms, byte| ms << 7 | i64::from(byte & 0x7f));
    Some(Sample { timestamp_ms, value: f64::from_le_bytes([a, b, c, d, e, f, g, h]) })
}

fn read_any_sample(body: &[u8], sample: Span) -> Result<Sample, WireError> {
    let mut read = Sample { timestamp_ms: 0, value: 0.0 };
    let mut fields = Reader::within(body, sample);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Fixed64(bits)) => read.value = f64::from_bits(bits),
            (2, Value::Varint(ms)) => read.timestamp_ms = ms.cast_signed(),
            (1 | 2, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(read)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_short_way_reads_what_the_long_way_reads(value: f64, ms in prop_oneof![any::<u64>(), 0u64..1 << 44], cut in 0usize..20, flipped in prop::option::of((0usize..20, any::<u8>()))) {
            let mut body = vec![0x09];
            body.extend(value.to_le_bytes());
            body.push(0x10);
            prost::encoding::encode_varint(ms, &mut body);
            body.truncate(20 - cut);
            if let Some((at, byte)) = flipped && let Some(flipped) = body.get_mut(at) {
                *flipped = byte;
            }
            if let Some(sample) = usual_sample(&body) {
                let long = read_any_sample(&body, Span { start: 0, len: body.len() as u32 }).unwrap();
                prop_assert_eq!((sample.timestamp_ms, sample.value.to_bits()), (long.timestamp_ms, long.value.to_bits()));
            }
        }

        #[test]
        fn samples_of_our_time_are_read_the_short_way(value: f64, ms in 1i64 << 35..1 << 42) {
            let mut body = vec![0x09];
            body.extend(value.to_le_bytes());
            body.push(0x10);
            prost::encoding::encode_varint(ms.cast_unsigned(), &mut body);
            let sample = usual_sample(&body).unwrap();
            prop_assert_eq!((sample.timestamp_ms, sample.value.to_bits()), (ms, value.to_bits()));
        }
    }
}

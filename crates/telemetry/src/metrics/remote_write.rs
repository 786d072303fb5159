//! Prometheus remote write 1.0: `WriteRequest{1: TimeSeries{1: Label{1: name, 2: value}, 2: Sample{1: double value,
//! 2: int64 ms}, 3: exemplars, 4: native histograms}, 3: metadata}`.
//!
//! Labels are spans of the body until they are hashed and written; a series that cannot be read is counted and its
//! neighbours are kept.

use super::native_histogram;
use super::series::{Request, Sample};
use crate::labels::NAME;
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
    }
    Ok(request.outcome)
}

/// What is collected of one series before anything of it is written.
#[derive(Default)]
struct Scratch {
    samples: Vec<Sample>,
    histograms: Vec<Span>,
}

fn one_series(request: &mut Request<'_, '_>, series: Span, scratch: &mut Scratch) -> Result<(), WireError> {
    let metric = read_series(request, series, scratch)?;
    if !scratch.samples.is_empty() {
        request.series(metric, &scratch.samples);
    }
    native_histogram::write_all(request, metric, &scratch.histograms)
}

/// Collects labels into the request and the rest into `scratch`; answers with the metric's name.
fn read_series(request: &mut Request<'_, '_>, series: Span, scratch: &mut Scratch) -> Result<Span, WireError> {
    wire::check_item(series)?;
    request.labels.begin();
    scratch.samples.clear();
    scratch.histograms.clear();
    let mut metric = Span::default();
    let mut fields = Reader::within(request.body, series);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(label)) => {
                let (name, value) = read_label(request.body, label)?;
                wire::check_members(request.labels.entries().len(), label)?;
                if metric.len == 0 && name.of(request.body) == NAME {
                    metric = value;
                }
                request.labels.push(request.body, name, value);
            }
            (2, Value::Bytes(sample)) => wire::push(&mut scratch.samples, read_sample(request.body, sample)?, sample)?,
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

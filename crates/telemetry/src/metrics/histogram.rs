//! Histograms and summaries as Prometheus writes them: `_bucket` with cumulative counts by `le`, `_sum`, `_count`.

use super::delta::DeltaError;
use super::exemplars::{self, Exemplar};
use super::exponential::Exponential;
use super::series::{Request, Sample};
use super::staleness::STALE;
use crate::labels::{Label, NAME};
use crate::text;
use crate::wire::Span;

/// Writes the series of one point. They share the labels that the request held when it was made.
pub(crate) struct Family<'r, 'i, 'o> {
    request: &'r mut Request<'i, 'o>,
    metric: Span,
    labels: Vec<Label>,
    timestamp_ms: i64,
    /// Time of a delta point, whose values are added to running totals.
    delta_ns: Option<u64>,
    /// Of the buckets that are not written yet.
    exemplars: Vec<Exemplar>,
    kept: usize,
}

impl<'r, 'i, 'o> Family<'r, 'i, 'o> {
    pub(crate) fn new(request: &'r mut Request<'i, 'o>, metric: Span, timestamp_ms: i64, delta_ns: Option<u64>) -> Self {
        request.labels.retain(request.body, |name, _| name != NAME);
        let labels = request.labels.entries().to_vec();
        let kept = request.labels.kept();
        request.labels.keep_arena();
        let exemplars = std::mem::take(&mut request.exemplars);
        Self { request, metric, labels, timestamp_ms, delta_ns, exemplars, kept }
    }

    /// Writes `<metric><suffix>` with one label more.
    pub(crate) fn series(&mut self, suffix: &[u8], extra: Option<(&[u8], f64)>, value: f64) {
        let request = &mut *self.request;
        if request.is_spent(1) {
            return request.lose_exemplars();
        }
        request.labels.begin();
        request.labels.restore(&self.labels);
        if let Some((label, number)) = extra {
            let (name, number) = (request.labels.hold(label), request.labels.hold_with(|out| bound(out, number)));
            let label = request.labels.label(request.body, name, number);
            request.labels.set_all(request.body, &[label]);
        }
        let mut metric = request.labels.text(request.body, self.metric).to_vec();
        metric.extend_from_slice(suffix);
        let metric = request.labels.hold(&metric);
        request.push_name(metric);
        let sample = Sample { timestamp_ms: self.timestamp_ms, value };
        match self.delta_ns {
            None => request.series(metric, &[sample]),
            Some(time_ns) => request.delta_series(metric, sample, time_ns),
        }
    }

    /// Writes `_bucket` series of cumulative counts.
    pub(crate) fn buckets(&mut self, buckets: impl Iterator<Item = (f64, f64)>) {
        for (upper, count) in buckets {
            self.request.exemplars = exemplars::up_to(&mut self.exemplars, upper);
            self.series(b"_bucket", Some((b"le", upper)), count);
        }
    }
}

impl Drop for Family<'_, '_, '_> {
    fn drop(&mut self) {
        self.request.exemplars.append(&mut self.exemplars);
        self.request.lose_exemplars();
        self.request.labels.begin();
        self.request.labels.release_to(self.kept);
        self.request.labels.restore(&self.labels);
    }
}

/// Writes an exponential histogram whose labels the request holds.
pub(crate) fn write_exponential(request: &mut Request<'_, '_>, metric: Span, timestamp_ms: i64, histogram: &Exponential) {
    let mut fitted = histogram.clone();
    fitted.fit();
    write_cumulative(request, metric, timestamp_ms, (fitted.count, fitted.sum), fitted.cumulative());
}

/// Writes a histogram by its cumulative buckets; the request holds its labels.
pub(crate) fn write_cumulative(
    request: &mut Request<'_, '_>,
    metric: Span,
    timestamp_ms: i64,
    (count, sum): (f64, Option<f64>),
    buckets: Vec<(f64, f64)>,
) {
    request.as_one_item(|request| {
        let mut family = Family::new(request, metric, timestamp_ms, None);
        family.series(b"_count", None, count);
        if let Some(sum) = sum {
            family.series(b"_sum", None, sum);
        }
        family.buckets(buckets.into_iter());
    });
}

/// Writes that the histogram whose labels the request holds has ended. Its buckets are not known any more.
pub(crate) fn write_ended(request: &mut Request<'_, '_>, metric: Span, timestamp_ms: i64) {
    request.as_one_item(|request| {
        let mut family = Family::new(request, metric, timestamp_ms, None);
        family.series(b"_count", None, STALE);
        family.series(b"_sum", None, STALE);
        family.buckets([(f64::INFINITY, STALE)].into_iter());
    });
}

/// Adds a delta histogram to its running total, and writes that.
pub(crate) fn write_exponential_delta(
    request: &mut Request<'_, '_>,
    metric: Span,
    timestamp_ms: i64,
    time_ns: u64,
    mut histogram: Exponential,
) {
    histogram.fit();
    let point_labels = request.labels.entries().to_vec();
    request.push_name(metric);
    let Some(index) = request.admit(metric, 1) else { return request.lose_exemplars() };
    let series = request.identify(index);
    request.labels.restore(&point_labels);
    match request.intake.deltas.add_histogram(series, time_ns, histogram) {
        Ok(total) => write_exponential(request, metric, timestamp_ms, &total),
        Err(error) => reject_delta(request, error),
    }
    request.lose_exemplars();
}

pub(crate) fn reject_delta(request: &mut Request<'_, '_>, error: DeltaError) {
    request.outcome.reject(1, || error.to_string());
}

/// A bucket bound or quantile with six decimals as ADX-Mon always wrote it, or, where that would change the number,
/// in its shortest form.
fn bound(out: &mut Vec<u8>, number: f64) {
    let fixed = format!("{number:.6}");
    if number.is_finite() && fixed.parse() == Ok(number) {
        out.extend_from_slice(fixed.as_bytes());
    } else {
        text::real(out, number);
    }
}

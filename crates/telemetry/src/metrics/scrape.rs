//! Scraped pages, and the samples that a scraper adds itself, into rows.

use super::exposition::{self, ExpositionFormat, Line, Parsed};
use super::series::{Request, Sample};
use crate::labels::Label;
use crate::wire::Span;
use crate::{MetricIntake, Outcome, RowSet};

/// Longest page; spans cannot address more.
const MAX_PAGE: usize = 0x7fff_ffff;

/// Parses a page.
pub(crate) fn parse(
    intake: &MetricIntake,
    page: &[u8],
    format: ExpositionFormat,
    target_labels: &[(String, String)],
    now_ms: i64,
    out: &mut RowSet,
) -> Outcome {
    let mut request = Request::new(intake, page, out);
    if page.len() > MAX_PAGE {
        request.outcome.reject(1, || "page longer than 2 GiB".to_owned());
        return request.outcome;
    }
    let target = Target::new(&mut request, target_labels);
    let mut complete = format != ExpositionFormat::OpenMetrics;
    for (number, position) in (1..).zip(exposition::lines(page)) {
        request.labels.begin();
        match exposition::parse_line(page, position, format, &mut request.labels) {
            Ok(Parsed::Sample(line)) => target.sample(&mut request, line, now_ms),
            Ok(Parsed::Blank) => {}
            Ok(Parsed::End) => {
                complete = true;
                break;
            }
            Err(reason) => request.outcome.reject(1, || format!("line {number}: {reason}")),
        }
    }
    if !complete {
        request.outcome.reject(1, || "the OpenMetrics page ends without # EOF: it may be cut short".to_owned());
    }
    request.outcome
}

/// Writes one sample past the filters.
pub(crate) fn own_sample(intake: &MetricIntake, name: &str, labels: &[(&str, &str)], sample: Sample, out: &mut RowSet) {
    let mut request = Request::new(intake, &[], out);
    for (name, value) in labels {
        request.labels.push_held(name.as_bytes(), value.as_bytes());
    }
    let metric = request.labels.hold(name.as_bytes());
    request.push_name(metric);
    request.unfiltered_series(metric, &[sample]);
}

/// Labels of the scraped target, and the names that scraped labels in their way get.
struct Target {
    labels: Vec<Label>,
    exported: Vec<Span>,
}

impl Target {
    fn new(request: &mut Request<'_, '_>, target_labels: &[(String, String)]) -> Self {
        let mut target = Self { labels: Vec::new(), exported: Vec::new() };
        let all = &mut request.labels;
        for (name, value) in target_labels {
            let (held, value) = (all.hold(name.as_bytes()), all.hold(value.as_bytes()));
            target.labels.push(all.label(request.body, held, value));
            target.exported.push(all.hold(format!("exported_{name}").as_bytes()));
        }
        all.keep_arena();
        target
    }

    fn sample(&self, request: &mut Request<'_, '_>, line: Line, now_ms: i64) {
        request.push_name(line.metric);
        let Some(admitted) = request.admit(line.metric, 1) else { return };
        for (label, exported) in self.labels.iter().zip(&self.exported) {
            request.labels.rename_all(request.body, label, *exported);
        }
        request.labels.extend(&self.labels);
        let timestamp_ms = line.timestamp_ms.unwrap_or(now_ms);
        request.admitted_series(admitted, line.metric, &[Sample { timestamp_ms, value: line.value }]);
    }
}

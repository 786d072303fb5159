//! Scraped pages, and the samples that a scraper adds itself, into rows.
//!
//! A page is read in parts, so that its rows never have to be in memory all at once, and may be read again later: to tell
//! of the series that have ended since ([`Reading::Ended`]).

use super::exposition::{self, ExpositionFormat, Line, Parsed};
use super::families;
use super::series::{Request, Sample};
use super::staleness::{STALE, SeriesSet};
use crate::export::SeriesKind;
use crate::labels::Label;
use crate::wire::Span;
use crate::{MetricIntake, Outcome, RowSet};

/// Longest page; spans cannot address more.
const MAX_PAGE: usize = 0x7fff_ffff;

/// A page of metrics as it was scraped.
#[derive(Clone, Copy, Debug)]
pub struct ScrapedPage<'p> {
    /// The page, inflated.
    pub body: &'p [u8],
    /// What it is written in.
    pub format: ExpositionFormat,
    /// Added to every series; a scraped label of the same name becomes `exported_<name>`,
    pub target_labels: &'p [(String, String)],
    /// or takes its place.
    pub honor_labels: bool,
    /// Time of the samples that carry none, in milliseconds since 1970.
    pub now_ms: i64,
}

/// How far a page was read.
#[derive(Clone, Debug, Default)]
pub struct PageProgress {
    pub(super) pos: usize,
    line: u64,
    done: bool,
    /// The metric that a `# TYPE` line has named, or a protobuf family of which there is more to read.
    pub(super) family: families::Progress,
    declared: (Span, SeriesKind),
}

impl PageProgress {
    /// Whether there is nothing more to read.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

/// What a page is read for.
#[derive(Debug)]
pub enum Reading<'s> {
    /// Its samples.
    Samples,
    /// Its samples; the series of those without a time of their own are noted.
    Noting(&'s mut SeriesSet),
    /// The series that are in it and not in the set: their samples are stale markers at [`ScrapedPage::now_ms`]. Series
    /// whose samples carry times are left alone, as Prometheus does: their end is not known.
    Ended(&'s SeriesSet),
}

/// Reads on until `max_samples` were read or the page ends.
pub(crate) fn read(
    intake: &MetricIntake,
    page: &ScrapedPage<'_>,
    progress: &mut PageProgress,
    reading: Reading<'_>,
    max_samples: u64,
    out: &mut RowSet,
) -> Outcome {
    let mut request = Request::new(intake, page.body, out);
    if page.body.len() > MAX_PAGE {
        progress.done = true;
        request.outcome.reject(1, || "page longer than 2 GiB".to_owned());
        return request.outcome;
    }
    request.ended = matches!(reading, Reading::Ended(_));
    let mut target = Target::new(&mut request, page, reading);
    progress.done = match page.format {
        ExpositionFormat::Protobuf => families::read(&mut request, &mut target, progress, max_samples),
        ExpositionFormat::PrometheusText | ExpositionFormat::OpenMetrics => lines(&mut request, &mut target, progress, max_samples),
    };
    request.outcome
}

/// Reads lines; answers whether the page has ended.
fn lines(request: &mut Request<'_, '_>, target: &mut Target<'_>, progress: &mut PageProgress, max_samples: u64) -> bool {
    let format = target.page.format;
    while request.outcome.total() < max_samples {
        let Some(position) = exposition::next_line(request.body, &mut progress.pos) else {
            if format == ExpositionFormat::OpenMetrics {
                request.outcome.reject(1, || "the OpenMetrics page ends without # EOF: it may be cut short".to_owned());
            }
            return true;
        };
        progress.line += 1;
        request.labels.begin();
        match exposition::parse_line(request.body, position, format, &mut request.labels) {
            Ok(Parsed::Sample(Line { metric, value, timestamp_ms, exemplar })) => {
                request.kind = kind_of(request, progress.declared, metric);
                if let Some(found) = exemplar {
                    request.text_exemplar(found);
                }
                target.sample(request, metric, value, timestamp_ms);
            }
            Ok(Parsed::Type(metric, kind)) => progress.declared = (metric, kind),
            Ok(Parsed::Blank) => {}
            Ok(Parsed::End) => return true,
            Err(reason) => request.outcome.reject(1, || format!("line {}: {reason}", progress.line)),
        }
    }
    false
}

/// What a `# TYPE` line says about the samples of `metric`. In OpenMetrics it names a counter without its `_total`.
fn kind_of(request: &Request<'_, '_>, (declared, kind): (Span, SeriesKind), metric: Span) -> SeriesKind {
    if kind == SeriesKind::Unknown {
        return kind;
    }
    let (declared, metric) = (declared.of(request.body), request.labels.text(request.body, metric));
    let is_counter = || kind == SeriesKind::Counter && metric.strip_suffix(b"_total") == Some(declared);
    if metric == declared || is_counter() { kind } else { SeriesKind::Unknown }
}

/// Writes one sample past the filters.
pub(crate) fn own_sample(intake: &MetricIntake, name: &str, labels: &[(&str, &str)], sample: Sample, out: &mut RowSet) {
    let mut request = Request::new(intake, &[], out);
    request.kind = SeriesKind::Gauge;
    for (name, value) in labels {
        request.labels.push_held(name.as_bytes(), value.as_bytes());
    }
    let metric = request.labels.hold(name.as_bytes());
    request.push_name(metric);
    request.unfiltered_series(metric, &[sample]);
}

/// The scraped target: its labels, and the names that scraped labels in their way get.
pub(super) struct Target<'s> {
    page: &'s ScrapedPage<'s>,
    reading: Reading<'s>,
    labels: Vec<Label>,
    exported: Vec<Span>,
}

impl<'s> Target<'s> {
    fn new(request: &mut Request<'_, '_>, page: &'s ScrapedPage<'s>, reading: Reading<'s>) -> Self {
        let mut target = Self { page, reading, labels: Vec::new(), exported: Vec::new() };
        let all = &mut request.labels;
        for (name, value) in page.target_labels {
            let (held, value) = (all.hold(name.as_bytes()), all.hold(value.as_bytes()));
            target.labels.push(all.label(request.body, held, value));
            target.exported.push(all.hold(format!("exported_{name}").as_bytes()));
        }
        all.keep_arena();
        target
    }

    /// Takes the sample of the series whose labels, without the metric's name, the request holds.
    pub(super) fn sample(&mut self, request: &mut Request<'_, '_>, metric: Span, value: f64, timestamp_ms: Option<i64>) {
        if self.is_wanted(request, metric, timestamp_ms) {
            self.wanted_sample(request, metric, value, timestamp_ms);
        }
        request.lose_exemplars();
    }

    fn wanted_sample(&self, request: &mut Request<'_, '_>, metric: Span, value: f64, timestamp_ms: Option<i64>) {
        request.push_name(metric);
        let Some(admitted) = request.admit(metric, 1) else { return };
        if self.page.honor_labels {
            for label in &self.labels {
                request.labels.extend_unless_there(request.body, label);
            }
        } else {
            for (label, exported) in self.labels.iter().zip(&self.exported) {
                request.labels.rename_all(request.body, label, *exported);
            }
            request.labels.extend(&self.labels);
        }
        let sample = Sample { timestamp_ms: timestamp_ms.unwrap_or(self.page.now_ms), value };
        request.admitted_series(admitted, metric, &[sample]);
    }

    fn is_wanted(&mut self, request: &Request<'_, '_>, metric: Span, timestamp_ms: Option<i64>) -> bool {
        match &mut self.reading {
            Reading::Samples => true,
            Reading::Noting(set) => {
                if timestamp_ms.is_none() {
                    set.insert(&request.labels, request.body, metric);
                }
                true
            }
            Reading::Ended(alive) => timestamp_ms.is_none() && !alive.contains(&request.labels, request.body, metric),
        }
    }
}

/// A stale marker, whatever the value was.
pub(super) fn marker(sample: Sample) -> Sample {
    Sample { value: STALE, ..sample }
}

//! Prometheus remote write 2.0: `io.prometheus.write.v2.Request{4: symbols, 5: TimeSeries{1: labels_refs, 2: Sample{1: double
//! value, 2: int64 ms}, 3: native histograms, 4: exemplars, 5: metadata}}`. Names and values of labels are indices into the
//! symbols, by twos.
//!
//! Source: the Remote-Write 2.0 specification (2.0-rc.4) and its `types.proto`. Metadata and start timestamps have
//! no place in our tables and are left out; exemplars go to exporters. What the specification says a series must not be is rejected by series: labels
//! without a partner, beyond the table, empty or repeated; samples together with histograms, or neither.

use super::native_histogram;
use super::remote_write::read_sample;
use super::series::{Request, Sample};
use crate::labels::NAME;
use crate::wire::{self, Reader, Span, Value, WireError};
use crate::{DecodeError, MetricIntake, Outcome, RowSet};

/// Texts that one request may have; each takes eight bytes beside its own.
const MAX_SYMBOLS: usize = 1 << 20;

/// What became of a request, and what its sender is told was written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Written {
    /// Counts of rows as for all requests.
    pub outcome: Outcome,
    /// Samples that were taken, those that filters removed included.
    pub samples: u64,
    /// Native histograms likewise.
    pub histograms: u64,
}

/// Decodes a `Request`.
pub(crate) fn decode(intake: &MetricIntake, body: &[u8], out: &mut RowSet) -> Result<Written, DecodeError> {
    let mut fields = Reader::checked(body)?;
    let symbols = symbols(fields)?;
    let mut request = Request::new(intake, body, out);
    let mut written = Written::default();
    let mut scratch = Scratch::default();
    while let Some((field, value)) = fields.next()? {
        let (5, Value::Bytes(series)) = (field, value) else { continue };
        if let Err(refusal) = one_series(&mut request, &symbols, series, &mut scratch, &mut written) {
            request.outcome.reject(scratch.items(), || refusal.to_string());
        }
        request.lose_exemplars();
    }
    written.outcome = request.outcome;
    Ok(written)
}

/// The table of texts, which may stand behind the series that refer to it.
fn symbols(mut fields: Reader<'_>) -> Result<Vec<Span>, WireError> {
    let mut symbols = Vec::new();
    while let Some((field, value)) = fields.next()? {
        if let (4, Value::Bytes(symbol)) = (field, value) {
            if symbols.len() == MAX_SYMBOLS {
                return Err(fields.error("more than 1048576 symbols"));
            }
            symbols.push(symbol);
        }
    }
    Ok(symbols)
}

/// Why a series is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("reading a series: {0}")]
    Wire(WireError),
    #[error("labels_refs of a series has an odd number of members")]
    OddRefs,
    #[error("labels_refs names symbol {0}, but there are {1}")]
    NoSymbol(u64, usize),
    #[error("a label with an empty name or value")]
    EmptyLabel,
    #[error("label {0:?} is there more than once")]
    RepeatedLabel(String),
    #[error("a series with both samples and histograms; send two")]
    Mixed,
    #[error("a series without samples and histograms")]
    Nothing,
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Refusal::Wire(error)
    }
}

/// What is collected of one series before anything of it is written.
#[derive(Default)]
struct Scratch {
    refs: Vec<u64>,
    samples: Vec<Sample>,
    histograms: Vec<Span>,
    exemplars: Vec<Span>,
}

impl Scratch {
    /// What a series counts as when it is rejected.
    fn items(&self) -> u64 {
        (self.samples.len() + self.histograms.len()).max(1) as u64
    }
}

fn one_series(
    request: &mut Request<'_, '_>,
    symbols: &[Span],
    series: Span,
    scratch: &mut Scratch,
    written: &mut Written,
) -> Result<(), Refusal> {
    read_series(request.body, series, scratch)?;
    match (scratch.samples.is_empty(), scratch.histograms.is_empty()) {
        (false, false) => return Err(Refusal::Mixed),
        (true, true) if scratch.exemplars.is_empty() => return Err(Refusal::Nothing),
        _ => {}
    }
    let metric = resolve(request, symbols, &scratch.refs, series)?;
    request.remote_write_2_exemplars(symbols, &scratch.exemplars);
    let taken = |outcome: &Outcome| outcome.accepted + outcome.filtered;
    let before = taken(&request.outcome);
    if !scratch.samples.is_empty() {
        request.series(metric, &scratch.samples);
        written.samples += taken(&request.outcome) - before;
        return Ok(());
    }
    if scratch.histograms.is_empty() {
        request.series_of_exemplars(metric);
        return Ok(());
    }
    let histograms = native_histogram::write_all(request, metric, &scratch.histograms);
    written.histograms += taken(&request.outcome) - before;
    // Those before a broken one are written; it and those behind it are counted as one.
    scratch.histograms.clear();
    Ok(histograms?)
}

fn read_series(body: &[u8], series: Span, scratch: &mut Scratch) -> Result<(), WireError> {
    scratch.refs.clear();
    scratch.samples.clear();
    scratch.histograms.clear();
    scratch.exemplars.clear();
    wire::check_item(series)?;
    let mut fields = Reader::within(body, series);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(reference)) => wire::push(&mut scratch.refs, reference, series)?,
            (1, Value::Bytes(packed)) => {
                let mut numbers = Reader::within(body, packed);
                while !numbers.at_end() {
                    wire::push(&mut scratch.refs, numbers.varint()?, packed)?;
                }
            }
            (2, Value::Bytes(sample)) => wire::push(&mut scratch.samples, read_sample(body, sample)?, sample)?,
            (3, Value::Bytes(histogram)) => wire::push(&mut scratch.histograms, histogram, histogram)?,
            (4, Value::Bytes(exemplar)) => wire::push(&mut scratch.exemplars, exemplar, exemplar)?,
            (1..=4, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(())
}

/// Collects the labels into the request; answers with the metric's name.
fn resolve(request: &mut Request<'_, '_>, symbols: &[Span], refs: &[u64], series: Span) -> Result<Span, Refusal> {
    let symbol = |reference: u64| {
        let found = usize::try_from(reference).ok().and_then(|index| symbols.get(index));
        found.copied().ok_or(Refusal::NoSymbol(reference, symbols.len()))
    };
    let pairs = refs.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Refusal::OddRefs);
    }
    wire::check_members(refs.len() / 2, series)?;
    request.labels.begin();
    let body = request.body;
    let mut metric = Span::default();
    let mut last: &[u8] = &[];
    let mut sorted = true;
    for pair in pairs {
        let (name, value) = (symbol(pair[0])?, symbol(pair[1])?);
        if name.len == 0 || value.len == 0 {
            return Err(Refusal::EmptyLabel);
        }
        let text = name.of(body);
        if text == last {
            return Err(repeated(text));
        }
        sorted &= text > last;
        last = text;
        if text == NAME {
            metric = value;
        }
        request.labels.push(body, name, value);
    }
    if !sorted {
        check_unsorted(body, symbols, refs)?;
    }
    Ok(metric)
}

/// Names must be sorted; where they are not, those that are repeated need not stand together.
#[cold]
fn check_unsorted(body: &[u8], symbols: &[Span], refs: &[u64]) -> Result<(), Refusal> {
    let text = |pair: &[u64]| symbols.get(pair[0] as usize).map(|name| name.of(body)).unwrap_or_default();
    let mut names: Vec<&[u8]> = refs.chunks_exact(2).map(text).collect();
    names.sort_unstable();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => Err(repeated(two[0])),
        None => Ok(()),
    }
}

fn repeated(name: &[u8]) -> Refusal {
    Refusal::RepeatedLabel(String::from_utf8_lossy(name).into_owned())
}

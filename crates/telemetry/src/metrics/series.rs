//! From the labels of a series to its rows: filters, label rules, SeriesId, the `Labels` object, lifted columns.
//!
//! All decoders of metrics end here, in [`Request::series`].

use super::decisions::Lent;
use super::exemplars::Exemplar;
use super::scrape;
use super::staleness::is_stale;
use crate::export::{self, SeriesKind};
use crate::labels::{Label, Labels, NAME};
use crate::rows::{Destination, RowSet};
use crate::rules::Verdict;
use crate::schema::SampleType;
use crate::text::{self, Joined, TimestampText};
use crate::wire::Span;
use crate::{MetricIntake, Outcome, hash};

/// Labels with this prefix count in the SeriesId and are left out of the `Labels` column.
const HIDDEN_PREFIX: &[u8] = b"adxmon_";

/// Label bytes that one request may have compared and hashed. A resource's labels are those of all its points, so a
/// small body can ask for very much; normal requests stay below a few times their own size.
const MAX_WORK: usize = 1 << 30;

/// What a label costs beside its bytes.
const LABEL_WORK: usize = 16;

/// A timestamp in milliseconds since 1970, and a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) timestamp_ms: i64,
    pub(crate) value: f64,
}

/// One request on its way into rows.
pub(crate) struct Request<'i, 'o> {
    pub(crate) intake: &'i MetricIntake,
    pub(crate) body: &'i [u8],
    pub(crate) labels: Labels,
    pub(crate) outcome: Outcome,
    out: &'o mut RowSet,
    encoder: Encoder,
    /// Whether no table was in `out` before this request.
    began_empty: bool,
    names: Lent<'i>,
    added: Vec<Label>,
    name_label: Span,
    work: usize,
    /// What the series that are being read are, where the format says so.
    pub(crate) kind: SeriesKind,
    /// Whether the series that are read have ended: their samples are stale markers.
    pub(crate) ended: bool,
    /// Of the series that is being read, or of its next bucket.
    pub(super) exemplars: Vec<Exemplar>,
    /// A series as the taps write it.
    exported: Vec<u8>,
}

impl<'i, 'o> Request<'i, 'o> {
    pub(crate) fn new(intake: &'i MetricIntake, body: &'i [u8], out: &'o mut RowSet) -> Self {
        let mut labels = Labels::default();
        let name_label = labels.hold(NAME);
        let mut added = Vec::new();
        for (name, value) in &*intake.added.get() {
            let (name, value) = (labels.hold(name.as_bytes()), labels.hold(value.as_bytes()));
            added.push(labels.label(body, name, value));
        }
        labels.keep_arena();
        Self {
            intake,
            body,
            labels,
            outcome: Outcome::default(),
            began_empty: out.tables().is_empty(),
            out,
            encoder: Encoder::default(),
            names: intake.decisions.lend(),
            added,
            name_label,
            work: 0,
            kind: SeriesKind::Unknown,
            ended: false,
            exemplars: Vec::new(),
            exported: Vec::new(),
        }
    }

    /// Adds the label `__name__`.
    pub(crate) fn push_name(&mut self, metric: Span) {
        self.labels.push(self.body, self.name_label, metric);
    }

    /// [`Request::series`] past the filters.
    pub(crate) fn unfiltered_series(&mut self, metric: Span, samples: &[Sample]) {
        let index = self.names.find_or_decide(self.labels.text(self.body, metric), self.intake);
        self.admitted_series(index, metric, samples);
    }

    /// Whether the request has had its share of work; if so, counts `items` as rejected.
    #[inline]
    pub(crate) fn is_spent(&mut self, items: u64) -> bool {
        if self.work <= MAX_WORK && !self.out.is_full() {
            return false;
        }
        let reason = if self.out.is_full() { RowSet::too_large } else { too_much_work };
        self.outcome.reject(items, reason);
        true
    }

    /// Whether the filters keep the series whose labels were collected, and what its metric's name decided.
    /// Counts and returns `None` when not.
    pub(crate) fn admit(&mut self, metric: Span, samples: u64) -> Option<usize> {
        if self.is_spent(samples.max(1)) {
            return None;
        }
        let name = self.labels.text(self.body, metric);
        self.work += name.len() + self.labels.entries().len() * LABEL_WORK;
        if name.is_empty() {
            self.outcome.reject(samples.max(1), || "series without a metric name (label __name__)".to_owned());
            return None;
        }
        let index = self.names.find_or_decide(name, self.intake);
        match self.names.at(index).decision.verdict {
            Verdict::Keep => Some(index),
            Verdict::AskLabels if self.intake.rules.keeps_labels(self.labels.iter(self.body)) => Some(index),
            Verdict::AskLabels | Verdict::Drop => {
                self.outcome.filtered += samples;
                if let Some(told) = &self.intake.on_drop.0 {
                    told(&String::from_utf8_lossy(self.labels.text(self.body, metric)), samples);
                }
                None
            }
        }
    }

    /// Applies the label rules, encodes the collected labels once, and writes a row for each sample.
    pub(crate) fn series(&mut self, metric: Span, samples: &[Sample]) {
        if let Some(index) = self.admit(metric, samples.len() as u64) {
            self.admitted_series(index, metric, samples);
        }
        self.lose_exemplars();
    }

    /// [`Request::series`] for what [`Request::admit`] let in.
    pub(crate) fn admitted_series(&mut self, index: usize, metric: Span, samples: &[Sample]) {
        if samples.is_empty() {
            return;
        }
        let table = match self.table(index, metric) {
            Ok(table) => table,
            Err(reason) => return self.outcome.reject(samples.len() as u64, || reason),
        };
        self.apply_label_rules(index);
        self.encoder.labels(&self.labels, self.body, &self.intake.lifted);
        self.work += self.encoder.hashed.len();
        for sample in samples {
            let sample = if self.ended { scrape::marker(*sample) } else { *sample };
            if is_stale(sample.value) && !self.intake.stale_markers {
                self.outcome.filtered += 1;
            } else if self.out.append(table, |row| self.encoder.row(row, sample)) {
                self.outcome.accepted += 1;
            } else {
                self.outcome.reject(1, RowSet::too_large);
            }
        }
        if !self.intake.taps.is_empty() {
            self.tap(index, metric, samples);
        }
    }

    /// Gives the exemplars of the series whose labels were collected to exporters: its sample came without them.
    pub(super) fn series_of_exemplars(&mut self, metric: Span) {
        if self.exemplars.is_empty() {
            return;
        }
        if let Some(index) = self.admit(metric, 0) {
            self.apply_label_rules(index);
            self.tap(index, metric, &[]);
        }
        self.lose_exemplars();
    }

    /// Gives each exporter of the source what it wants of the series whose labels are final.
    fn tap(&mut self, index: usize, metric: Span, samples: &[Sample]) {
        let exemplars = self.exemplar_text();
        let Self { intake, body, labels, names, out, exported, exemplars: own_exemplars, kind, ended, .. } = self;
        for (number, (tap, decision)) in intake.taps.iter().zip(&names.at(index).taps).enumerate() {
            let keep = match decision.verdict {
                Verdict::Keep => true,
                Verdict::AskLabels => tap.rules.keeps_labels(labels.iter(body)),
                Verdict::Drop => false,
            };
            if !keep {
                continue;
            }
            let added = tap.rules.add_labels();
            let is_kept = |name: &[u8]| {
                is_shown(name)
                    && !tap.rules.drops_label(&decision.drop_labels, name)
                    && !added.iter().any(|(added, _)| added.as_bytes() == name)
            };
            let own = labels.iter(body).filter(|(name, _)| is_kept(name));
            let added = added.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).filter(|(name, _)| is_shown(name));
            export::write_series(exported, *kind, labels.text(body, metric), own.chain(added));
            let rows = out.export(number);
            if samples.is_empty() {
                rows.append_exemplars(&exemplars, exported);
            }
            for (i, sample) in samples.iter().enumerate() {
                let sample = if *ended { scrape::marker(*sample) } else { *sample };
                let exemplars = if i + 1 == samples.len() { &exemplars[..] } else { &[] };
                rows.append(sample.timestamp_ms, sample.value, exemplars, exported);
            }
            own_exemplars.clear();
        }
    }

    /// [`Request::series`] for a delta value: writes the running total.
    pub(crate) fn delta_series(&mut self, metric: Span, sample: Sample, time_ns: u64) {
        if let Some(index) = self.admit(metric, 1) {
            let series = self.identify(index);
            match self.intake.deltas.add(series, time_ns, sample.value) {
                Ok(value) => self.admitted_series(index, metric, &[Sample { value, ..sample }]),
                Err(error) => self.outcome.reject(1, || error.to_string()),
            }
        }
        self.lose_exemplars();
    }

    /// Counts what `write` does as one item: accepted if anything of it was.
    pub(crate) fn as_one_item(&mut self, write: impl FnOnce(&mut Self)) {
        let before = std::mem::take(&mut self.outcome);
        write(self);
        let written = std::mem::replace(&mut self.outcome, before);
        if written.accepted > 0 {
            self.outcome.accepted += 1;
        } else if written.filtered > 0 {
            self.outcome.filtered += 1;
        }
        if written.rejected > 0 && written.accepted == 0 {
            self.outcome.reject(1, || written.first_error.unwrap_or_default());
        }
    }

    /// Brings the collected labels into their final form and identifies the series by them.
    pub(crate) fn identify(&mut self, index: usize) -> u128 {
        self.apply_label_rules(index);
        let series = self.encoder.identify(&self.labels, self.body);
        self.work += self.encoder.hashed.len();
        series
    }

    fn apply_label_rules(&mut self, index: usize) {
        let rules = &self.names.at(index).decision.drop_labels;
        if !rules.is_empty() {
            let intake = self.intake;
            self.labels.retain(self.body, |name, _| name == NAME || !intake.rules.drops_label(rules, name));
        }
        self.labels.set_all(self.body, &self.added);
        self.labels.sort(self.body);
    }

    /// Table of the series, made when this is the first one that is written to it.
    fn table(&mut self, index: usize, metric: Span) -> Result<usize, String> {
        if let Some(table) = self.names.table(index) {
            return Ok(table);
        }
        let entry = self.names.at(index);
        if entry.name.is_empty() {
            let name = String::from_utf8_lossy(self.labels.text(self.body, metric)).into_owned();
            return Err(format!("metric name {name:?} has no letter or digit"));
        }
        let to = Destination {
            database: &self.intake.database,
            table: &entry.name,
            schema: &self.intake.schema,
            sample_type: SampleType::Metric,
        };
        let is_new = self.began_empty && self.names.knows_all_tables();
        let table = if is_new { self.out.add(to) } else { self.out.find_or_add(to) };
        let table = table.ok_or_else(RowSet::too_many_tables)?;
        self.names.set_table(index, table);
        Ok(table)
    }
}

fn too_much_work() -> String {
    "the request repeats its labels too often; send smaller requests".to_owned()
}

/// Encodes the parts of a row that the samples of a series share.
#[derive(Default)]
pub(crate) struct Encoder {
    time: TimestampText,
    hashed: Joined,
    /// `,<SeriesId>,"{…}",`
    middle: Joined,
    /// `,<lifted>,<lifted>\n`
    tail: Vec<u8>,
}

/// What a label adds to the middle beside its own bytes: `,""name"":""value""`.
const MEMBER_MARKS: usize = 11;

impl Encoder {
    /// Takes the labels in the order given. `lifted` are label names in the order of their columns.
    pub(crate) fn labels(&mut self, labels: &Labels, body: &[u8], lifted: &[Box<[u8]>]) {
        self.concatenate(labels, body);
        self.middle.begin(self.hashed.len() + labels.entries().len() * MEMBER_MARKS + 32);
        self.middle.put_fixed(b",");
        self.middle.put(itoa::Buffer::new().format(hash::series_id_of(self.hashed.text())).as_bytes());
        self.middle.put_fixed(b",\"{");
        self.tail.clear();
        if lifted.is_empty() {
            self.members(labels, body, labels.entries().iter());
        } else {
            self.members_and_columns(labels, body, lifted);
        }
        self.middle.put_fixed(b"}\",");
        self.tail.push(b'\n');
    }

    /// Writes one row.
    #[inline]
    pub(crate) fn row(&mut self, row: &mut Vec<u8>, sample: Sample) {
        self.time.write_ms(row, sample.timestamp_ms);
        row.extend_from_slice(self.middle.text());
        text::real(row, sample.value);
        row.extend_from_slice(&self.tail);
    }

    fn identify(&mut self, labels: &Labels, body: &[u8]) -> u128 {
        self.concatenate(labels, body);
        xxhash_rust::xxh3::xxh3_128(self.hashed.text())
    }

    fn concatenate(&mut self, labels: &Labels, body: &[u8]) {
        let entries = labels.entries();
        self.hashed.begin(entries.iter().map(|label| (label.name.len + label.value.len) as usize).sum());
        for label in entries {
            for span in [label.name, label.value] {
                let (base, start, len) = labels.place(body, span);
                self.hashed.put_part(base, start, len);
            }
        }
    }

    /// Labels that are hidden are left out.
    fn members<'l>(&mut self, labels: &Labels, body: &[u8], members: impl Iterator<Item = &'l Label>) {
        let mut first = true;
        for label in members {
            if !is_shown(labels.text(body, label.name)) {
                continue;
            }
            if first {
                self.middle.put_fixed(b"\"\"");
            } else {
                self.middle.put_fixed(b",\"\"");
            }
            first = false;
            self.json(labels, body, label.name);
            self.middle.put_fixed(b"\"\":\"\"");
            self.json(labels, body, label.value);
            self.middle.put_fixed(b"\"\"");
        }
    }

    /// Appends the inside of a JSON string.
    #[inline]
    fn json(&mut self, labels: &Labels, body: &[u8], span: Span) {
        let (base, start, len) = labels.place(body, span);
        let string = &base[start..start + len];
        if text::is_plain(string) {
            self.middle.put_part(base, start, len);
        } else {
            self.middle.put_with(|out| text::open_json_string(out, string));
        }
    }

    /// The first label that matches a lifted name becomes its column; hidden labels can be lifted.
    fn members_and_columns(&mut self, labels: &Labels, body: &[u8], lifted: &[Box<[u8]>]) {
        let mut columns = vec![None; lifted.len()];
        let mut others = Vec::with_capacity(labels.entries().len());
        for label in labels.entries() {
            let name = labels.text(body, label.name);
            match lifted.iter().position(|wanted| wanted.eq_ignore_ascii_case(name)) {
                Some(at) if columns[at].is_none() => columns[at] = Some(labels.text(body, label.value)),
                _ => others.push(label),
            }
        }
        self.members(labels, body, others.into_iter());
        for column in columns {
            self.tail.push(b',');
            text::csv_field(&mut self.tail, column.unwrap_or_default());
        }
    }
}

#[inline]
fn is_shown(name: &[u8]) -> bool {
    name != NAME && !name.starts_with(HIDDEN_PREFIX)
}

//! Metrics from remote write, OTLP and exposition pages into rows.

mod delta;
mod exponential;
mod exposition;
mod histogram;
mod native_histogram;
mod otlp;
mod remote_write;
mod scrape;
mod series;
#[cfg(test)]
mod tests;

use crate::rules::MetricRules;
use crate::schema::Schema;
use crate::{DecodeError, Encoding, Lift, Outcome, RowSet, names};
use std::fmt;
use std::sync::Arc;

pub use exposition::ExpositionFormat;

/// The label that carries the database of a series; it counts in the SeriesId.
const DATABASE_LABEL: &str = "adxmon_database";

/// Settings of one metric source; shared by its requests.
#[derive(Debug)]
pub struct MetricIntake {
    database: Arc<str>,
    rules: MetricRules,
    schema: Arc<Schema>,
    /// Label names in the order of their columns.
    lifted: Vec<Box<[u8]>>,
    added_labels: Vec<(String, String)>,
    only_point_attributes: bool,
    deltas: delta::Totals,
    on_drop: OnDrop,
    taps: Vec<Tap>,
}

/// An exporter's filters and labels, on top of the source's.
#[derive(Debug)]
struct Tap {
    rules: MetricRules,
}

/// Is told the metric and the number of samples that a filter removes.
type Told = Box<dyn Fn(&str, u64) + Send + Sync>;

#[derive(Default)]
struct OnDrop(Option<Told>);

impl fmt::Debug for OnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnDrop").field(&self.0.is_some()).finish()
    }
}

impl MetricIntake {
    /// An intake that writes into `database`. Lifted columns stand in the order of their lower-cased label names.
    pub fn new(database: impl Into<String>, rules: MetricRules, mut lifts: Vec<Lift>) -> Self {
        let database = database.into();
        lifts.sort_by_key(|lift| lift.name.to_ascii_lowercase());
        let mut added_labels = rules.add_labels().to_vec();
        added_labels.retain(|(name, _)| name != DATABASE_LABEL);
        added_labels.push((DATABASE_LABEL.to_owned(), database.clone()));
        Self {
            database: names::normalize_id(&database).into(),
            rules,
            schema: Arc::new(Schema::metrics(&lifts)),
            lifted: lifts.into_iter().map(|lift| lift.name.into_bytes().into()).collect(),
            added_labels,
            only_point_attributes: false,
            deltas: delta::Totals::default(),
            on_drop: OnDrop::default(),
            taps: Vec::new(),
        }
    }

    /// Whether OTLP points keep only their own attributes as labels, as the reference does; otherwise resource
    /// attributes and the scope become labels too. Needed where dashboards rely on equal SeriesIds.
    pub fn reference_labels(mut self, only_point_attributes: bool) -> Self {
        self.only_point_attributes = only_point_attributes;
        self
    }

    /// Tells `told` the metric and the number of samples whenever the filters remove some.
    pub fn on_drop(mut self, told: impl Fn(&str, u64) + Send + Sync + 'static) -> Self {
        self.on_drop = OnDrop(Some(Box::new(told)));
        self
    }

    /// Gives an exporter a copy of every sample that is kept, filtered and labelled by `rules` on top of this source's.
    /// Rows of the taps come with the [`RowSet`], in the order of these calls ([`RowSet::take_exports`]).
    pub fn tap(mut self, rules: MetricRules) -> Self {
        self.taps.push(Tap { rules });
        self
    }

    /// Decodes a remote-write 1.0 `WriteRequest`, already decompressed.
    pub fn remote_write(&self, body: &[u8], out: &mut RowSet) -> Result<Outcome, DecodeError> {
        remote_write::decode(self, body, out)
    }

    /// Decodes an OTLP `ExportMetricsServiceRequest`.
    ///
    /// Delta sums and histograms become cumulative: this intake keeps a running total per series, and a repeated
    /// request (equal point times) adds nothing twice.
    pub fn otlp(&self, body: &[u8], encoding: Encoding, out: &mut RowSet) -> Result<Outcome, DecodeError> {
        otlp::decode(self, body, encoding, out)
    }

    /// Parses a scraped page. `target_labels` are added to every series (a scraped label of the same name becomes
    /// `exported_<name>`); samples without a timestamp get `now_ms`. A bad line costs one line.
    pub fn scrape(
        &self,
        body: &[u8],
        format: ExpositionFormat,
        target_labels: &[(String, String)],
        now_ms: i64,
        out: &mut RowSet,
    ) -> Outcome {
        scrape::parse(self, body, format, target_labels, now_ms, out)
    }

    /// Adds one sample of our own, past the filters: `up`, `scrape_duration_seconds`, …
    pub fn sample(&self, name: &str, labels: &[(&str, &str)], timestamp_ms: i64, value: f64, out: &mut RowSet) {
        scrape::own_sample(self, name, labels, series::Sample { timestamp_ms, value }, out);
    }

    /// Labels set on every series: the rules' own and the database.
    fn added_labels(&self) -> &[(String, String)] {
        &self.added_labels
    }
}

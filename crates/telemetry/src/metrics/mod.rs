//! Metrics from remote write, OTLP and exposition pages into rows.

mod decisions;
mod delta;
mod exemplars;
mod exponential;
mod exposition;
mod families;
mod histogram;
mod native_histogram;
mod otlp;
mod remote_write;
mod remote_write_2;
mod scrape;
mod series;
mod staleness;
#[cfg(test)]
mod tests;

use crate::rules::MetricRules;
use crate::schema::Schema;
use crate::{Added, DecodeError, Encoding, Lift, Outcome, RowSet, names};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use exposition::ExpositionFormat;
pub use remote_write_2::Written;
pub use scrape::{PageProgress, Reading, ScrapedPage};
pub use staleness::{STALE, SeriesSet, is_stale};

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
    added: Added,
    only_point_attributes: bool,
    stale_markers: bool,
    deltas: delta::Totals,
    decisions: decisions::Spare,
    on_drop: OnDrop,
    on_exemplars_lost: OnExemplarsLost,
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

/// Is told how many exemplars no exporter takes.
#[derive(Default)]
struct OnExemplarsLost(Option<Box<dyn Fn(u64) + Send + Sync>>);

impl fmt::Debug for OnExemplarsLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnExemplarsLost").field(&self.0.is_some()).finish()
    }
}

impl MetricIntake {
    /// An intake that writes into `database`. Lifted columns stand in the order of their lower-cased label names.
    pub fn new(database: impl Into<String>, rules: MetricRules, mut lifts: Vec<Lift>) -> Self {
        let database = database.into();
        lifts.sort_by_key(|lift| lift.name.to_ascii_lowercase());
        let mut added: BTreeMap<String, String> = rules.add_labels().iter().cloned().collect();
        added.insert(DATABASE_LABEL.to_owned(), database.clone());
        Self {
            database: names::normalize_id(&database).into(),
            rules,
            schema: Arc::new(Schema::metrics(&lifts)),
            lifted: lifts.into_iter().map(|lift| lift.name.into_bytes().into()).collect(),
            added: Added::new(added),
            only_point_attributes: false,
            stale_markers: false,
            deltas: delta::Totals::default(),
            decisions: decisions::Spare::default(),
            on_drop: OnDrop::default(),
            on_exemplars_lost: OnExemplarsLost::default(),
            taps: Vec::new(),
        }
    }

    /// Whether OTLP points keep only their own attributes as labels, as the reference does; otherwise resource
    /// attributes and the scope become labels too. Needed where dashboards rely on equal SeriesIds.
    pub fn reference_labels(mut self, only_point_attributes: bool) -> Self {
        self.only_point_attributes = only_point_attributes;
        self
    }

    /// Whether stale markers become rows, with the value NaN. Otherwise they go to exporters only and count as filtered:
    /// in a table they would make NaN of every aggregate over them.
    pub fn store_stale_markers(mut self, store: bool) -> Self {
        self.stale_markers = store;
        self
    }

    /// Tells `told` the metric and the number of samples whenever the filters remove some.
    pub fn on_drop(mut self, told: impl Fn(&str, u64) + Send + Sync + 'static) -> Self {
        self.on_drop = OnDrop(Some(Box::new(told)));
        self
    }

    /// Tells `told` how many exemplars went nowhere: tables have no column for them, so that only [taps](Self::tap) take them.
    pub fn on_exemplars_lost(mut self, told: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_exemplars_lost = OnExemplarsLost(Some(Box::new(told)));
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

    /// Decodes a remote-write 2.0 `Request`, already decompressed.
    pub fn remote_write_2(&self, body: &[u8], out: &mut RowSet) -> Result<Written, DecodeError> {
        remote_write_2::decode(self, body, out)
    }

    /// Decodes an OTLP `ExportMetricsServiceRequest`.
    ///
    /// Delta sums and histograms become cumulative: this intake keeps a running total per series, and a repeated
    /// request (equal point times) adds nothing twice.
    pub fn otlp(&self, body: &[u8], encoding: Encoding, out: &mut RowSet) -> Result<Outcome, DecodeError> {
        otlp::decode(self, body, encoding, out)
    }

    /// Parses a whole page for its samples. A bad line costs one line.
    pub fn scrape(&self, page: &ScrapedPage<'_>, out: &mut RowSet) -> Outcome {
        self.scrape_part(page, &mut PageProgress::default(), Reading::Samples, u64::MAX, out)
    }

    /// Reads on in a page until about `max_samples` more were read, or to its end.
    pub fn scrape_part(
        &self,
        page: &ScrapedPage<'_>,
        progress: &mut PageProgress,
        reading: Reading<'_>,
        max_samples: u64,
        out: &mut RowSet,
    ) -> Outcome {
        scrape::read(self, page, progress, reading, max_samples, out)
    }

    /// Whether somebody wants stale markers: an exporter, or the tables.
    pub fn wants_stale_markers(&self) -> bool {
        self.stale_markers || !self.taps.is_empty()
    }

    /// Adds one sample of our own, past the filters: `up`, `scrape_duration_seconds`, …
    pub fn sample(&self, name: &str, labels: &[(&str, &str)], timestamp_ms: i64, value: f64, out: &mut RowSet) {
        scrape::own_sample(self, name, labels, series::Sample { timestamp_ms, value }, out);
    }

    /// Labels set on every series: the rules' own and the database, and those of the node as long as they may change.
    pub fn added(&self) -> &Added {
        &self.added
    }
}

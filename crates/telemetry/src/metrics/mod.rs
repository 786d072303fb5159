//! Metrics from remote write, OTLP and exposition pages into rows.

use crate::rules::MetricRules;
use crate::{DecodeError, Encoding, Lift, Outcome, RowSet};

/// Text formats of a metrics page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExpositionFormat {
    /// Prometheus text 0.0.4: timestamps in milliseconds.
    PrometheusText,
    /// OpenMetrics 1.0: timestamps in seconds, `# EOF` at the end.
    OpenMetrics,
}

impl ExpositionFormat {
    /// The format a `Content-Type` header names; Prometheus text when it names none.
    pub fn from_content_type(content_type: Option<&str>) -> Self {
        let media = content_type.unwrap_or("").split(';').next().unwrap_or("").trim();
        if media.eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::PrometheusText
        }
    }
}

/// Settings of one metric source; shared by its requests.
#[derive(Debug)]
pub struct MetricIntake {}

impl MetricIntake {
    /// An intake that writes into `database`.
    pub fn new(_database: impl Into<String>, _rules: MetricRules, _lifts: Vec<Lift>) -> Self {
        Self {}
    }

    /// Whether OTLP points keep only their own attributes as labels, as the reference does; otherwise resource
    /// attributes and the scope become labels too. Needed where dashboards rely on equal SeriesIds.
    pub fn reference_labels(self, _only_point_attributes: bool) -> Self {
        self
    }

    /// Decodes a remote-write 1.0 `WriteRequest`, already decompressed.
    pub fn remote_write(&self, _body: &[u8], _out: &mut RowSet) -> Result<Outcome, DecodeError> {
        Ok(Outcome::default())
    }

    /// Decodes an OTLP `ExportMetricsServiceRequest`.
    pub fn otlp(&self, _body: &[u8], _encoding: Encoding, _out: &mut RowSet) -> Result<Outcome, DecodeError> {
        Ok(Outcome::default())
    }

    /// Parses a scraped page. `target_labels` are added to every series; samples without a timestamp get `now_ms`.
    pub fn scrape(
        &self,
        _body: &[u8],
        _format: ExpositionFormat,
        _target_labels: &[(String, String)],
        _now_ms: i64,
        _out: &mut RowSet,
    ) -> Outcome {
        Outcome::default()
    }

    /// Adds one sample of our own, past the filters: `up`, `scrape_duration_seconds`, …
    pub fn sample(&self, _name: &str, _labels: &[(&str, &str)], _timestamp_ms: i64, _value: f64, _out: &mut RowSet) {}
}

//! Lines of samples, read with one series at a time in memory: most lines differ from the one before in time and value only.

use telemetry::export::{ExportExemplar, ExportSample, ExportSeries};

/// Reads lines and remembers the last series.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    text: Vec<u8>,
    series: ExportSeries,
}

/// What a line says.
#[derive(Debug)]
pub(crate) struct Line<'s> {
    /// Milliseconds since 1970.
    pub(crate) timestamp_ms: i64,
    /// None where exemplars come without a sample.
    pub(crate) value: Option<f64>,
    pub(crate) exemplars: Vec<ExportExemplar>,
    /// Whether the series is that of the line before.
    pub(crate) same: bool,
    /// The series as it stands in the line.
    pub(crate) text: &'s [u8],
    pub(crate) series: &'s ExportSeries,
}

impl Samples {
    /// A line, read.
    pub(crate) fn read(&mut self, line: &[u8]) -> Option<Line<'_>> {
        let sample = ExportSample::read(line)?;
        let same = self.text == sample.series;
        if !same {
            self.series = ExportSeries::read(sample.series)?;
            self.text.clear();
            self.text.extend_from_slice(sample.series);
        }
        let exemplars = ExportExemplar::read_all(sample.exemplars);
        Some(Line { timestamp_ms: sample.timestamp_ms, value: sample.value, exemplars, same, text: &self.text, series: &self.series })
    }
}

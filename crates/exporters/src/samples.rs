//! Lines of samples, read with one series at a time in memory: most lines differ from the one before in time and value only.

use telemetry::export::{ExportSample, ExportSeries};

/// Reads lines and remembers the last series.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    text: Vec<u8>,
    series: ExportSeries,
}

impl Samples {
    /// Time, value and series of a line, and whether the series is that of the line before.
    pub(crate) fn read(&mut self, line: &[u8]) -> Option<(i64, f64, bool, &ExportSeries)> {
        let sample = ExportSample::read(line)?;
        let same = self.text == sample.series;
        if !same {
            self.series = ExportSeries::read(sample.series)?;
            self.text.clear();
            self.text.extend_from_slice(sample.series);
        }
        Some((sample.timestamp_ms, sample.value, same, &self.series))
    }
}

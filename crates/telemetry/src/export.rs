//! Samples on their way to exporters: what an intake keeps, as its label rules left it, in lines that can be
//! stored and read back.
//!
//! The rows of tables will not do: a table's name is the metric's name normalised, and the `Labels` column lacks
//! `adxmon_*`. A line is `<milliseconds>\t<bits of the value, hex>\t[x<length>\t<exemplars>]<kind>\t<metric>[\t<label>\t<value>]…\n`.
//! The bits keep what a number as text would lose: a stale marker is a NaN of its own. An exemplar, of which there may be
//! several in `length` bytes, is `[milliseconds]\t<bits of the value>\t<number of labels>\t[<label>\t<value>\t]…`; where
//! exemplars come without a sample, its bits are `-`. In texts tab, newline, backslash and quote are escaped, so that a
//! line is also one CSV record of one field.

use std::borrow::Cow;

/// Lines that one tap of one request may fill.
const MAX_BYTES: usize = 256 << 20;

/// What a series is, where its source knows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SeriesKind {
    /// Nobody said.
    #[default]
    Unknown,
    /// A value that goes up and down.
    Gauge,
    /// A total that only grows.
    Counter,
    /// A total that may shrink.
    Sum,
}

impl SeriesKind {
    fn letter(self) -> u8 {
        match self {
            SeriesKind::Unknown => b'-',
            SeriesKind::Gauge => b'g',
            SeriesKind::Counter => b'c',
            SeriesKind::Sum => b's',
        }
    }

    fn of_letter(letter: &[u8]) -> Self {
        match letter {
            b"g" => SeriesKind::Gauge,
            b"c" => SeriesKind::Counter,
            b"s" => SeriesKind::Sum,
            _ => SeriesKind::Unknown,
        }
    }
}

/// What one tap took from one request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExportRows {
    /// Samples in `bytes`, one a line.
    pub rows: u32,
    /// The lines.
    pub bytes: Vec<u8>,
    /// Samples that had no room: the request expands to too much.
    pub lost: u64,
}

impl ExportRows {
    pub(crate) fn append(&mut self, timestamp_ms: i64, value: f64, exemplars: &[u8], series: &[u8]) {
        if self.has_room() {
            crate::text::integer(&mut self.bytes, timestamp_ms);
            self.bytes.push(b'\t');
            crate::text::hex(&mut self.bytes, &value.to_bits().to_be_bytes());
            self.end_line(exemplars, series);
        }
    }

    /// Exemplars whose sample came without them.
    pub(crate) fn append_exemplars(&mut self, exemplars: &[u8], series: &[u8]) {
        if self.has_room() {
            self.bytes.extend_from_slice(b"0\t-");
            self.end_line(exemplars, series);
        }
    }

    fn has_room(&mut self) -> bool {
        let room = self.bytes.len() <= MAX_BYTES;
        self.lost += u64::from(!room);
        room
    }

    fn end_line(&mut self, exemplars: &[u8], series: &[u8]) {
        self.bytes.push(b'\t');
        if !exemplars.is_empty() {
            self.bytes.push(b'x');
            crate::text::integer(&mut self.bytes, exemplars.len() as i64);
            self.bytes.push(b'\t');
            self.bytes.extend_from_slice(exemplars);
        }
        self.bytes.extend_from_slice(series);
        self.bytes.push(b'\n');
        self.rows += 1;
    }
}

/// Replaces `out` by the part of a line that the samples of a series share.
pub(crate) fn write_series<'t>(out: &mut Vec<u8>, kind: SeriesKind, metric: &[u8], labels: impl Iterator<Item = (&'t [u8], &'t [u8])>) {
    out.clear();
    out.push(kind.letter());
    out.push(b'\t');
    escape(out, metric);
    for (name, value) in labels {
        for text in [name, value] {
            out.push(b'\t');
            escape(out, text);
        }
    }
}

/// Appends one exemplar.
pub(crate) fn write_exemplar<'t>(
    out: &mut Vec<u8>,
    timestamp_ms: Option<i64>,
    value: f64,
    labels: impl ExactSizeIterator<Item = (&'t [u8], &'t [u8])>,
) {
    if let Some(timestamp_ms) = timestamp_ms {
        crate::text::integer(out, timestamp_ms);
    }
    out.push(b'\t');
    crate::text::hex(out, &value.to_bits().to_be_bytes());
    out.push(b'\t');
    crate::text::integer(out, labels.len() as i64);
    out.push(b'\t');
    for (name, value) in labels {
        for text in [name, value] {
            escape(out, text);
            out.push(b'\t');
        }
    }
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' => out.extend_from_slice(b"\\q"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.push(other),
        }
    }
}

fn unescape(text: &[u8]) -> String {
    let mut plain = Cow::Borrowed(text);
    if text.contains(&b'\\') {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.iter();
        while let Some(&byte) = rest.next() {
            bytes.push(match (byte, byte == b'\\') {
                (byte, false) => byte,
                (_, true) => match rest.next() {
                    Some(b't') => b'\t',
                    Some(b'n') => b'\n',
                    Some(b'q') => b'"',
                    Some(&other) => other,
                    None => b'\\',
                },
            });
        }
        plain = Cow::Owned(bytes);
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// A line, read. Lines that follow each other mostly differ in time and value alone: compare
/// [`ExportSample::series`] before reading it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExportSample<'a> {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The value, bit by bit as it came; none where exemplars come without a sample.
    pub value: Option<f64>,
    /// Exemplars of it, for [`ExportExemplar::read_all`].
    pub exemplars: &'a [u8],
    /// Kind, metric and labels, for [`ExportSeries::read`].
    pub series: &'a [u8],
}

impl<'a> ExportSample<'a> {
    /// Reads a line, with or without its newline; nothing for bytes that are none.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(3, |&byte| byte == b'\t');
        let timestamp_ms = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let value = match parts.next()? {
            b"-" => None,
            bits => Some(float(bits)?),
        };
        let (exemplars, series) = split_exemplars(parts.next()?)?;
        Some(Self { timestamp_ms, value, exemplars, series })
    }
}

fn float(bits: &[u8]) -> Option<f64> {
    u64::from_str_radix(std::str::from_utf8(bits).ok()?, 16).ok().map(f64::from_bits)
}

/// Exemplars, if there are any, and what is behind them.
fn split_exemplars(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(counted) = rest.strip_prefix(b"x") else { return Some((&[], rest)) };
    let end = counted.iter().position(|&byte| byte == b'\t')?;
    let length: usize = std::str::from_utf8(&counted[..end]).ok()?.parse().ok()?;
    counted[end + 1..].split_at_checked(length)
}

/// A value that a sample was made from, with what is known of where it came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportExemplar {
    /// Milliseconds since 1970; none when it has the time of its sample.
    pub timestamp_ms: Option<i64>,
    /// The value.
    pub value: f64,
    /// Mostly `trace_id` and `span_id`.
    pub labels: Vec<(String, String)>,
}

impl ExportExemplar {
    /// Reads [`ExportSample::exemplars`], as far as they can be read.
    pub fn read_all(exemplars: &[u8]) -> Vec<Self> {
        let mut fields = exemplars.split(|&byte| byte == b'\t');
        std::iter::from_fn(|| Self::read(&mut fields)).collect()
    }

    fn read<'t>(fields: &mut impl Iterator<Item = &'t [u8]>) -> Option<Self> {
        let timestamp_ms = std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let value = float(fields.next()?)?;
        let number: usize = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let mut labels = Vec::new();
        for _ in 0..number {
            labels.push((unescape(fields.next()?), unescape(fields.next()?)));
        }
        Some(Self { timestamp_ms, value, labels })
    }
}

/// What the samples of a series share.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExportSeries {
    /// What it is.
    pub kind: SeriesKind,
    /// Name of the metric, as it came.
    pub metric: String,
    /// Labels without `__name__` and `adxmon_*`, as the exporter's label rules left them.
    pub labels: Vec<(String, String)>,
}

impl ExportSeries {
    /// Reads [`ExportSample::series`]; nothing for bytes that are none.
    pub fn read(series: &[u8]) -> Option<Self> {
        let mut parts = series.split(|&byte| byte == b'\t');
        let kind = SeriesKind::of_letter(parts.next()?);
        let metric = unescape(parts.next()?);
        let mut labels = Vec::new();
        while let Some(name) = parts.next() {
            labels.push((unescape(name), unescape(parts.next()?)));
        }
        Some(Self { kind, metric, labels })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_read_back_and_are_records_of_their_own(
            time in any::<i64>(), bits in any::<u64>(), metric in "[a\\t\\n\"\\\\é]{0,6}",
            labels in prop::collection::vec(("[a\\t\\n\"\\\\q]{0,4}", "[a\\t\\n\"\\\\n]{0,4}"), 0..4),
            exemplars in prop::collection::vec((any::<Option<i64>>(), any::<i32>(), prop::collection::vec(("[a\\t\"]{0,3}", "[a\\n\\\\]{0,3}"), 0..3)), 0..3),
            without_sample in any::<bool>(),
        ) {
            let mut series = Vec::new();
            let pairs = labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            write_series(&mut series, SeriesKind::Counter, metric.as_bytes(), pairs);
            let mut rows = ExportRows::default();
            let exemplars: Vec<_> = exemplars
                .into_iter()
                .map(|(timestamp_ms, value, labels)| ExportExemplar { timestamp_ms, value: value.into(), labels })
                .collect();
            let mut text = Vec::new();
            for ExportExemplar { timestamp_ms, value, labels } in &exemplars {
                write_exemplar(&mut text, *timestamp_ms, *value, labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            }
            if without_sample {
                rows.append_exemplars(&text, &series);
            } else {
                rows.append(time, f64::from_bits(bits), &text, &series);
            }
            prop_assert_eq!(rows.bytes.iter().filter(|&&b| b == b'\n').count(), 1);
            prop_assert!(!rows.bytes.contains(&b'"'));
            let sample = ExportSample::read(&rows.bytes).unwrap();
            let wanted = if without_sample { (0, None) } else { (time, Some(bits)) };
            prop_assert_eq!((sample.timestamp_ms, sample.value.map(f64::to_bits)), wanted);
            prop_assert_eq!(ExportExemplar::read_all(sample.exemplars), exemplars);
            prop_assert_eq!(ExportSeries::read(sample.series), Some(ExportSeries { kind: SeriesKind::Counter, metric, labels }));
        }

        #[test]
        fn any_bytes_are_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(sample) = ExportSample::read(&line) {
                ExportSeries::read(sample.series);
                ExportExemplar::read_all(sample.exemplars);
            }
        }
    }
}

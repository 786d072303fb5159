//! Lines of a metrics page: Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! One line at a time, borrowed from the page; only label values with escapes are copied, into the arena of
//! [`Labels`]. Help texts and units are not used; exemplars stay text until an exporter wants them.

use super::families;
use crate::export::SeriesKind;
use crate::labels::Labels;
use crate::wire::Span;
use memchr::{memchr, memchr2};

/// Formats of a metrics page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExpositionFormat {
    /// Prometheus text 0.0.4: timestamps in milliseconds.
    PrometheusText,
    /// OpenMetrics 1.0: timestamps in seconds, `# EOF` at the end.
    OpenMetrics,
    /// Messages `io.prometheus.client.MetricFamily`, each after its length.
    Protobuf,
}

impl ExpositionFormat {
    /// The format a `Content-Type` header names; Prometheus text when it names none.
    pub fn from_content_type(content_type: Option<&str>) -> Self {
        let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else if media.eq_ignore_ascii_case("application/vnd.google.protobuf") {
            Self::Protobuf
        } else {
            Self::PrometheusText
        }
    }

    /// Why a page was cut short, if it shows: Prometheus text does not.
    ///
    /// # Errors
    /// What is missing.
    pub fn check_complete(self, page: &[u8]) -> Result<(), &'static str> {
        match self {
            Self::OpenMetrics if !page.trim_ascii_end().ends_with(b"# EOF") => Err("it ends without # EOF"),
            Self::Protobuf if !families::is_complete(page) => Err("it ends within a message"),
            _ => Ok(()),
        }
    }

    /// How many samples a page has, about: lines that are no comments, or metrics, one histogram being one.
    pub fn count_samples(self, page: &[u8]) -> u64 {
        match self {
            Self::Protobuf => families::count(page),
            Self::PrometheusText | Self::OpenMetrics => {
                let lines = page.split(|byte| *byte == b'\n');
                lines.filter(|line| !matches!(line, [] | [b'#', ..])).count() as u64
            }
        }
    }
}

/// What a sample line says besides its labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) metric: Span,
    pub(crate) value: f64,
    pub(crate) timestamp_ms: Option<i64>,
    /// Where an exemplar stands, from its `#` on.
    pub(crate) exemplar: Option<(usize, usize)>,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Parsed {
    Sample(Line),
    /// `# TYPE <metric> <type>`
    Type(Span, SeriesKind),
    /// Another comment or nothing.
    Blank,
    /// `# EOF`
    End,
}

/// Where the next line of a page is, without its line end; `pos` is left behind it.
pub(crate) fn next_line(page: &[u8], pos: &mut usize) -> Option<(usize, usize)> {
    let start = *pos;
    if start >= page.len() {
        return None;
    }
    let end = memchr(b'\n', &page[start..]).map_or(page.len(), |at| start + at);
    *pos = end + 1;
    Some((start, end))
}

/// Parses the line at `start..end` of `page` and adds its labels, without the metric's name, to `labels`.
pub(crate) fn parse_line(
    page: &[u8],
    (start, end): (usize, usize),
    format: ExpositionFormat,
    labels: &mut Labels,
) -> Result<Parsed, &'static str> {
    let mut line = Cursor { page, pos: start, end };
    line.skip_space();
    match line.peek() {
        None => return Ok(Parsed::Blank),
        Some(b'#') => {
            return Ok(line.comment(format));
        }
        Some(_) => {}
    }
    let mut metric = line.bare(|byte| byte == b'{');
    line.skip_space();
    if line.peek() == Some(b'{') {
        line.pos += 1;
        line.labels(labels, &mut metric)?;
    }
    if metric.len == 0 {
        return Err("no metric name");
    }
    let value = number(line.word()).ok_or("the value is not a number")?;
    line.skip_space();
    let mut timestamp_ms = None;
    if !matches!(line.peek(), None | Some(b'#')) {
        timestamp_ms = Some(timestamp(line.word(), format).ok_or("the timestamp is not a number")?);
        line.skip_space();
    }
    let exemplar = match line.peek() {
        None => None,
        Some(b'#') => Some((line.pos, line.end)),
        Some(_) => return Err("text after the timestamp"),
    };
    Ok(Parsed::Sample(Line { metric, value, timestamp_ms, exemplar }))
}

/// Value and time of an exemplar, `# {labels} value [seconds]`; its labels are added to `labels`.
pub(crate) fn parse_exemplar(page: &[u8], (start, end): (usize, usize), labels: &mut Labels) -> Option<(f64, Option<i64>)> {
    let mut text = Cursor { page, pos: start + 1, end };
    text.skip_space();
    if text.peek() != Some(b'{') {
        return None;
    }
    text.pos += 1;
    // There is no metric to be named.
    text.labels(labels, &mut Span { start: 0, len: 1 }).ok()?;
    let value = number(text.word())?;
    let timestamp_ms = match text.word() {
        [] => None,
        word => Some(timestamp(word, ExpositionFormat::OpenMetrics)?),
    };
    text.word().is_empty().then_some((value, timestamp_ms))
}

struct Cursor<'a> {
    page: &'a [u8],
    pos: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        (self.pos < self.end).then(|| self.page[self.pos])
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.pos += 1;
        }
    }

    fn span(&self, start: usize) -> Span {
        Span { start: start as u32, len: (self.pos - start) as u32 }
    }

    /// Text up to white space or what `stop` says.
    fn bare(&mut self, stop: impl Fn(u8) -> bool) -> Span {
        let start = self.pos;
        while self.peek().is_some_and(|byte| !is_space(byte) && !stop(byte)) {
            self.pos += 1;
        }
        self.span(start)
    }

    /// The next word; empty at the end of the line.
    fn word(&mut self) -> &'a [u8] {
        self.skip_space();
        self.bare(|_| false).of(self.page)
    }

    /// A line that begins with `#`.
    fn comment(&mut self, format: ExpositionFormat) -> Parsed {
        let text = self.page[self.pos..self.end].trim_ascii_end();
        if text == b"# EOF" && format == ExpositionFormat::OpenMetrics {
            return Parsed::End;
        }
        if !text.starts_with(b"# TYPE ") {
            return Parsed::Blank;
        }
        self.pos += b"# TYPE".len();
        self.skip_space();
        let metric = match self.peek() {
            // A name that has to be quoted; one with escapes is not worth the trouble.
            Some(b'"') => {
                self.pos += 1;
                let name = self.bare(|byte| byte == b'"');
                self.pos = (self.pos + 1).min(self.end);
                name
            }
            _ => self.bare(|_| false),
        };
        let kind = match self.word() {
            b"counter" => SeriesKind::Counter,
            b"gauge" => SeriesKind::Gauge,
            _ => SeriesKind::Unknown,
        };
        Parsed::Type(metric, kind)
    }

    /// What stands between braces. A quoted string without a value is the metric's name.
    fn labels(&mut self, labels: &mut Labels, metric: &mut Span) -> Result<(), &'static str> {
        loop {
            self.skip_space();
            let name = match self.peek() {
                None => return Err("no closing brace"),
                Some(b'}') => {
                    self.pos += 1;
                    return Ok(());
                }
                Some(b'"') => self.quoted(labels)?,
                Some(_) => self.bare(|byte| matches!(byte, b'=' | b'"' | b'}' | b',')),
            };
            self.skip_space();
            if self.peek() == Some(b'=') {
                self.pos += 1;
                self.skip_space();
                let value = self.quoted(labels)?;
                labels.push(self.page, name, value);
            } else if metric.len == 0 && self.pos > 0 && self.page[self.pos - 1] == b'"' {
                *metric = name;
            } else {
                return Err("a label without =");
            }
            self.skip_space();
            if self.peek() == Some(b',') {
                self.pos += 1;
            }
        }
    }

    /// A string in double quotes.
    fn quoted(&mut self, labels: &mut Labels) -> Result<Span, &'static str> {
        if self.peek() != Some(b'"') {
            return Err("a label value without quotes");
        }
        self.pos += 1;
        let start = self.pos;
        let mut escaped = false;
        loop {
            let special = memchr2(b'"', b'\\', &self.page[self.pos..self.end]).ok_or("no closing quote")?;
            self.pos += special;
            if self.page[self.pos] == b'"' {
                break;
            }
            escaped = true;
            self.pos += 2;
            if self.pos > self.end {
                return Err("no closing quote");
            }
        }
        let raw = self.span(start);
        self.pos += 1;
        Ok(if escaped { labels.hold_with(|arena| unescape(arena, raw.of(self.page))) } else { raw })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// `\\`, `\"` and `\n`; any other escape stands for itself, both characters.
fn unescape(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        match text.get(at + 1) {
            Some(b'n') => out.push(b'\n'),
            Some(&byte @ (b'\\' | b'"')) => out.push(byte),
            other => {
                out.push(b'\\');
                out.extend(other);
            }
        }
        text = text.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(text);
}

/// A decimal number, `NaN`, or an infinity.
fn number(word: &[u8]) -> Option<f64> {
    fast_float2::parse(word).ok()
}

fn timestamp(word: &[u8], format: ExpositionFormat) -> Option<i64> {
    match format {
        ExpositionFormat::PrometheusText => std::str::from_utf8(word).ok()?.parse().ok(),
        ExpositionFormat::OpenMetrics | ExpositionFormat::Protobuf => {
            let milliseconds = (number(word)? * 1000.0).round();
            (milliseconds.abs() < 9e18).then_some(milliseconds as i64)
        }
    }
}

//! Exemplars: they go to exporters with the sample that they are of. Tables have no column for them.
//!
//! A decoder gives the request the exemplars of a sample before the sample itself. What no exporter takes, and what cannot
//! be read or is too much, is counted.

use std::borrow::Cow;

use super::series::Request;
use crate::export;
use crate::labels::Labels;
use crate::otlp::value::{Any, key_value, label_text};
use crate::wire::{Reader, Span, Value, WireError};

/// Exemplars of one sample, or of one histogram.
const MAX_EXEMPLARS: usize = 128;

/// Bytes of an exemplar's labels. OpenMetrics allows 128 characters.
const MAX_LABEL_BYTES: usize = 1024;

/// One exemplar.
#[derive(Clone, Debug)]
pub(super) struct Exemplar {
    value: f64,
    /// As a line of samples has it.
    text: Vec<u8>,
}

/// Of the body, or made from it.
type Text<'b> = Cow<'b, [u8]>;

/// An exemplar that is being read.
#[derive(Default)]
struct Sent<'b> {
    value: f64,
    timestamp_ms: Option<i64>,
    labels: Vec<(Text<'b>, Text<'b>)>,
}

impl<'b> Sent<'b> {
    fn label(&mut self, name: &'b [u8], value: impl Into<Text<'b>>) {
        self.labels.push((name.into(), value.into()));
    }
}

/// What becomes of the exemplars of the series that is being read.
impl<'i> Request<'i, '_> {
    /// Takes exemplars of remote write 1.0: `Exemplar{1: Label{1: name, 2: value}, 2: double value, 3: int64 ms}`.
    pub(super) fn remote_write_exemplars(&mut self, messages: &[Span]) {
        self.read_exemplars(messages, |body, message| {
            read(body, message, |sent, field, value| {
                if let (3, Value::Varint(ms)) = (field, value) {
                    sent.timestamp_ms = Some(ms.cast_signed());
                }
                labelled(body, sent, field, value)
            })
        });
    }

    /// Takes exemplars of remote write 2.0: `Exemplar{1: labels_refs, 2: double value, 3: int64 ms}`.
    pub(super) fn remote_write_2_exemplars(&mut self, symbols: &[Span], messages: &[Span]) {
        self.read_exemplars(messages, |body, message| {
            let mut refs = Vec::new();
            let mut sent = read(body, message, |sent, field, value| {
                match (field, value) {
                    (1, Value::Varint(reference)) => crate::wire::push(&mut refs, reference, message)?,
                    (1, Value::Bytes(packed)) => {
                        let mut numbers = Reader::within(body, packed);
                        while !numbers.at_end() {
                            crate::wire::push(&mut refs, numbers.varint()?, packed)?;
                        }
                    }
                    (2, Value::Fixed64(bits)) => sent.value = f64::from_bits(bits),
                    (3, Value::Varint(ms)) => sent.timestamp_ms = Some(ms.cast_signed()),
                    _ => {}
                }
                Ok(())
            })?;
            let symbol = |reference: &u64| {
                let found = usize::try_from(*reference).ok().and_then(|index| symbols.get(index));
                found
                    .map(|span| span.of(body))
                    .ok_or(WireError { offset: message.start as usize, reason: "an exemplar without its symbols" })
            };
            for pair in refs.chunks(2) {
                let [name, value] = pair else {
                    return Err(WireError { offset: message.start as usize, reason: "an odd number of references" });
                };
                sent.label(symbol(name)?, symbol(value)?);
            }
            Ok(sent)
        });
    }

    /// Takes exemplars of the protobuf exposition: `Exemplar{1: LabelPair{1: name, 2: value}, 2: double value,
    /// 3: Timestamp{1: seconds, 2: nanoseconds}}`.
    pub(super) fn exposition_exemplars(&mut self, messages: &[Span]) {
        self.read_exemplars(messages, |body, message| {
            read(body, message, |sent, field, value| {
                if let (3, Value::Bytes(timestamp)) = (field, value) {
                    sent.timestamp_ms = Some(timestamp_ms(body, timestamp)?);
                }
                labelled(body, sent, field, value)
            })
        });
    }

    /// Takes exemplars of OTLP: `Exemplar{2: fixed64 ns, 3: double, 4: span id, 5: trace id, 6: sfixed64, 7: attributes}`.
    /// Identities become labels as OpenTelemetry's rules for Prometheus want it.
    pub(super) fn otlp_exemplars(&mut self, messages: &[Span]) {
        self.read_exemplars(messages, |body, message| {
            read(body, message, |sent, field, value| {
                match (field, value) {
                    (2, Value::Fixed64(ns)) if ns > 0 => sent.timestamp_ms = Some((ns / 1_000_000).cast_signed()),
                    (3, Value::Fixed64(bits)) => sent.value = f64::from_bits(bits),
                    (4, Value::Bytes(id)) if id.len > 0 => sent.label(b"span_id", hex(id.of(body))),
                    (5, Value::Bytes(id)) if id.len > 0 => sent.label(b"trace_id", hex(id.of(body))),
                    (6, Value::Fixed64(bits)) => sent.value = bits.cast_signed() as f64,
                    (7, Value::Bytes(attribute)) => match key_value(body, attribute)? {
                        (_, Any::Null) => {}
                        (key, Any::String(text)) => sent.label(key.of(body), text.of(body)),
                        (key, other) => {
                            let mut text = Vec::new();
                            label_text(&mut text, body, other)?;
                            sent.label(key.of(body), text);
                        }
                    },
                    _ => {}
                }
                Ok(())
            })
        });
    }

    /// Takes an exemplar of a text page, `# {labels} value [seconds]`, as [`super::exposition`] found it.
    pub(super) fn text_exemplar(&mut self, found: (usize, usize)) {
        if !self.exemplars_are_wanted(1) {
            return;
        }
        let mut labels = Labels::default();
        let Some((value, timestamp_ms)) = super::exposition::parse_exemplar(self.body, found, &mut labels) else {
            return self.count_lost_exemplars(1);
        };
        let labels = labels.iter(self.body).map(|(name, value)| (Cow::Owned(name.to_vec()), Cow::Owned(value.to_vec()))).collect();
        self.add_exemplar(&Sent { value, timestamp_ms, labels });
    }

    fn read_exemplars(&mut self, messages: &[Span], read: impl Fn(&'i [u8], Span) -> Result<Sent<'i>, WireError>) {
        if messages.is_empty() || !self.exemplars_are_wanted(messages.len()) {
            return;
        }
        for message in messages {
            match read(self.body, *message) {
                Ok(sent) => self.add_exemplar(&sent),
                Err(_) => self.count_lost_exemplars(1),
            }
        }
    }

    /// Whether there is an exporter; counts `number` exemplars as lost when there is none.
    fn exemplars_are_wanted(&self, number: usize) -> bool {
        let wanted = !self.intake.taps.is_empty();
        // A page that is read for the series that ended has been read before.
        if !wanted && !self.ended {
            self.count_lost_exemplars(number);
        }
        wanted && !self.ended
    }

    fn add_exemplar(&mut self, sent: &Sent<'_>) {
        let size: usize = sent.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > MAX_LABEL_BYTES || self.exemplars.len() == MAX_EXEMPLARS {
            return self.count_lost_exemplars(1);
        }
        let mut text = Vec::new();
        export::write_exemplar(&mut text, sent.timestamp_ms, sent.value, sent.labels.iter().map(|(name, value)| (&**name, &**value)));
        self.exemplars.push(Exemplar { value: sent.value, text });
    }

    /// The exemplars that were given, at the end of lines.
    pub(super) fn exemplar_text(&self) -> Vec<u8> {
        self.exemplars.iter().flat_map(|exemplar| &exemplar.text).copied().collect()
    }

    /// Counts exemplars that are still there as lost: the sample that they are of was not taken.
    #[inline]
    pub(super) fn lose_exemplars(&mut self) {
        if !self.exemplars.is_empty() {
            self.count_lost_exemplars(self.exemplars.len());
            self.exemplars.clear();
        }
    }

    fn count_lost_exemplars(&self, number: usize) {
        if let Some(told) = &self.intake.on_exemplars_lost.0 {
            told(number as u64);
        }
    }
}

/// Takes those out of `exemplars` that belong into the bucket up to `upper`; buckets ascend.
pub(super) fn up_to(exemplars: &mut Vec<Exemplar>, upper: f64) -> Vec<Exemplar> {
    if exemplars.is_empty() {
        return Vec::new();
    }
    let (within, above) = std::mem::take(exemplars).into_iter().partition(|exemplar| exemplar.value <= upper);
    *exemplars = above;
    within
}

/// Reads a message, of which `take` is given each field.
fn read<'b>(
    body: &'b [u8],
    message: Span,
    mut take: impl FnMut(&mut Sent<'b>, u32, Value) -> Result<(), WireError>,
) -> Result<Sent<'b>, WireError> {
    let mut sent = Sent::default();
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        take(&mut sent, field, value)?;
    }
    Ok(sent)
}

/// Field 1, a label, and field 2, the value, as in remote write 1.0 and the exposition.
fn labelled<'b>(body: &'b [u8], sent: &mut Sent<'b>, field: u32, value: Value) -> Result<(), WireError> {
    match (field, value) {
        (1, Value::Bytes(label)) => {
            let (name, text) = super::remote_write::read_label(body, label)?;
            sent.label(name.of(body), text.of(body));
        }
        (2, Value::Fixed64(bits)) => sent.value = f64::from_bits(bits),
        _ => {}
    }
    Ok(())
}

fn timestamp_ms(body: &[u8], message: Span) -> Result<i64, WireError> {
    let (mut seconds, mut nanoseconds) = (0i64, 0i64);
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(number)) => seconds = number.cast_signed(),
            (2, Value::Varint(number)) => nanoseconds = number.cast_signed(),
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000))
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    crate::text::hex(&mut text, bytes);
    text
}

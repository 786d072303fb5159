//! Protobuf wire format, read in place: fields come out as numbers or as spans of the body, nothing is copied.
//!
//! Positions are absolute in the request body, so an error can say at which byte it happened however deep it is.

use crate::DecodeError;

/// A piece of the request body (or of a [`crate::labels::Labels`] arena, which marks its spans).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    /// The bytes of a span of `body`; empty when it does not lie inside.
    #[inline]
    pub(crate) fn of(self, body: &[u8]) -> &[u8] {
        let start = self.start as usize;
        body.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// Reads a message of exactly two texts, field 1 and field 2 in this order and each shorter than 128 bytes: what
/// nearly every label and attribute is. `None` means that it has to be read field by field.
#[inline]
pub(crate) fn pair(body: &[u8], message: Span) -> Option<(Span, Span)> {
    const FIRST: u8 = 1 << 3 | 2;
    const SECOND: u8 = 2 << 3 | 2;
    let bytes = message.of(body);
    let &[FIRST, len @ ..0x80, ref rest @ ..] = bytes else { return None };
    let first = Span { start: message.start + 2, len: u32::from(len) };
    let &[SECOND, len @ ..0x80, ref rest @ ..] = rest.get(usize::from(len)..)? else { return None };
    let second = Span { start: first.start + first.len + 2, len: u32::from(len) };
    (rest.len() == usize::from(len)).then_some((first, second))
}

/// Reads a message of exactly one text in field 1, shorter than 128 bytes.
#[inline]
pub(crate) fn single(body: &[u8], message: Span) -> Option<Span> {
    let &[0x0a, len @ ..0x80, ref rest @ ..] = message.of(body) else { return None };
    (rest.len() == usize::from(len)).then_some(Span { start: message.start + 2, len: u32::from(len) })
}

/// Longest body that spans can address.
const MAX_BODY: usize = 0x7fff_ffff;

/// Deepest nesting of unknown groups that is skipped; the same as other protobuf libraries allow.
const MAX_GROUPS: usize = 100;

/// Members that one list within a message may have: two bytes of body make one, and tens of bytes of memory.
const MAX_MEMBERS: usize = 1 << 17;

/// Longest item (series, point, record) and longest description of items (resource, scope), in bytes. Rows repeat
/// them with escapes, so they take a multiple of it.
const MAX_ITEM: u32 = 16 << 20;

/// Refuses what is longer than an item may be.
#[inline]
pub(crate) fn check_item(message: Span) -> Result<(), WireError> {
    if message.len > MAX_ITEM {
        return Err(WireError { offset: message.start as usize, reason: "an item of more than 16 MiB" });
    }
    Ok(())
}

/// Refuses a list that has become longer than a list may be; `at` is its last member.
#[inline]
pub(crate) fn check_members(members: usize, at: Span) -> Result<(), WireError> {
    if members > MAX_MEMBERS {
        return Err(WireError { offset: at.start as usize, reason: "more than 131072 members in one list" });
    }
    Ok(())
}

/// Adds to a list of bounded length.
#[inline]
pub(crate) fn push<T>(list: &mut Vec<T>, member: T, at: Span) -> Result<(), WireError> {
    list.push(member);
    check_members(list.len(), at)
}

/// Where and why reading stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WireError {
    pub(crate) offset: usize,
    pub(crate) reason: &'static str,
}

impl From<WireError> for DecodeError {
    fn from(error: WireError) -> Self {
        Self::Protobuf { offset: error.offset, reason: error.reason }
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reading protobuf at byte {}: {}", self.offset, self.reason)
    }
}

/// The value of one field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Span),
}

/// Reads the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    body: &'a [u8],
    pos: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader over the outermost message, after checking that its own fields are framed correctly.
    pub(crate) fn checked(body: &'a [u8]) -> Result<Self, WireError> {
        if body.len() > MAX_BODY {
            return Err(WireError { offset: MAX_BODY, reason: "body longer than 2 GiB" });
        }
        let reader = Self { body, pos: 0, end: body.len() };
        let mut ahead = reader;
        while ahead.next()?.is_some() {}
        Ok(reader)
    }

    /// A reader over a message that is a field of this one's body.
    #[inline]
    pub(crate) fn within(body: &'a [u8], span: Span) -> Self {
        let start = (span.start as usize).min(body.len());
        Self { body, pos: start, end: (start + span.len as usize).min(body.len()) }
    }

    /// Number and value of the next field, `None` at the end of the message.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value)>, WireError> {
        match self.usual_bytes() {
            Some((field, span)) => Ok(Some((field, Value::Bytes(span)))),
            None => self.next_any(),
        }
    }

    /// The next field when it is bytes in a field below 16, and shorter than 16 KiB; `None`, with nothing read, when it
    /// is anything else.
    #[inline(always)]
    fn usual_bytes(&mut self) -> Option<(u32, Span)> {
        let &[tag, low, ref rest @ ..] = self.body.get(self.pos..self.end)? else { return None };
        let (len, head) = match rest {
            _ if low < 0x80 => (usize::from(low), 2),
            &[high @ ..0x80, ..] => (usize::from(low & 0x7f) | usize::from(high) << 7, 3),
            _ => return None,
        };
        let start = self.pos + head;
        if tag & 0x87 != 2 || tag < 8 || len > self.end - start {
            return None;
        }
        self.pos = start + len;
        Some((u32::from(tag >> 3), Span { start: start as u32, len: len as u32 }))
    }

    fn next_any(&mut self) -> Result<Option<(u32, Value)>, WireError> {
        while self.pos < self.end {
            let (field, wire_type) = self.tag()?;
            if wire_type == 3 {
                self.skip_group(field)?;
                continue;
            }
            return Ok(Some((field, self.value(wire_type)?)));
        }
        Ok(None)
    }

    /// The next field when it is bytes in `field`, a number below 16, and shorter than 128 bytes; `None`, with nothing
    /// read, when it is anything else. Most of a body is such fields.
    #[inline]
    pub(crate) fn short_bytes(&mut self, field: u8) -> Option<Span> {
        let &[tag, len @ ..0x80, ref rest @ ..] = self.body.get(self.pos..self.end)? else { return None };
        if tag != (field << 3 | 2) || rest.len() < usize::from(len) {
            return None;
        }
        let span = Span { start: self.pos as u32 + 2, len: u32::from(len) };
        self.pos += 2 + usize::from(len);
        Some(span)
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), WireError> {
        let at = self.pos;
        let tag = self.varint()?;
        let field = tag >> 3;
        if field == 0 || tag > u64::from(u32::MAX) {
            return Err(WireError { offset: at, reason: "impossible field number" });
        }
        Ok((field as u32, (tag & 7) as u8))
    }

    #[inline]
    fn value(&mut self, wire_type: u8) -> Result<Value, WireError> {
        match wire_type {
            0 => Ok(Value::Varint(self.varint()?)),
            1 => Ok(Value::Fixed64(u64::from_le_bytes(self.take()?))),
            2 => {
                let len = self.varint()?;
                if len > (self.end - self.pos) as u64 {
                    return Err(self.error("field longer than its message"));
                }
                let span = Span { start: self.pos as u32, len: len as u32 };
                self.pos += len as usize;
                Ok(Value::Bytes(span))
            }
            5 => Ok(Value::Fixed32(u32::from_le_bytes(self.take()?))),
            _ => Err(self.error("unexpected wire type")),
        }
    }

    /// Reads a length and as many bytes.
    pub(crate) fn bytes(&mut self) -> Result<Span, WireError> {
        match self.value(2)? {
            Value::Bytes(span) => Ok(span),
            _ => Err(self.error("unexpected wire type")),
        }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> Span {
        Span { start: self.pos as u32, len: (self.end - self.pos) as u32 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.body[self.pos..self.end].first_chunk::<N>();
        let bytes = *bytes.ok_or_else(|| self.error("number cut short"))?;
        self.pos += N;
        Ok(bytes)
    }

    /// Reads a packed or single varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        if self.pos < self.end && self.body[self.pos] < 0x80 {
            self.pos += 1;
            return Ok(u64::from(self.body[self.pos - 1]));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (index, &byte) in self.body[self.pos..self.end].iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return Err(self.error("number wider than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.pos += index + 1;
                return Ok(value);
            }
        }
        Err(self.error("number cut short"))
    }

    /// Skips an unknown group, without recursion.
    #[cold]
    fn skip_group(&mut self, field: u32) -> Result<(), WireError> {
        let mut open = vec![field];
        while let Some(&innermost) = open.last() {
            if self.pos >= self.end {
                return Err(self.error("group without an end"));
            }
            let (field, wire_type) = self.tag()?;
            match wire_type {
                3 if open.len() == MAX_GROUPS => return Err(self.error("groups nested too deep")),
                3 => open.push(field),
                4 if field == innermost => {
                    open.pop();
                }
                4 => return Err(self.error("end of another group")),
                _ => {
                    self.value(wire_type)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn error(&self, reason: &'static str) -> WireError {
        WireError { offset: self.pos, reason }
    }

    /// Whether everything was read.
    pub(crate) fn at_end(&self) -> bool {
        self.pos >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes like those of messages: tags, lengths of one and two bytes, and what is between.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0x0a), Just(0x12), Just(0x1a), Just(0x7a), Just(0x82), 0u8..6, Just(0x80), any::<u8>()];
        prop::collection::vec(byte, 0..300)
    }

    proptest! {
        #[test]
        fn the_short_ways_read_what_the_long_way_reads(body in message(), cut in any::<prop::sample::Index>()) {
            let mut short = Reader::within(&body, Span { start: 0, len: cut.index(body.len() + 1) as u32 });
            loop {
                let mut long = short;
                let (field, mut shortest) = (((body.get(short.pos).copied().unwrap_or(0) >> 3) & 0xf).max(1), short);
                let read = (format!("{:?}", short.next()), short.pos);
                prop_assert_eq!(&read, &(format!("{:?}", long.next_any()), long.pos));
                if let Some(span) = shortest.short_bytes(field) {
                    let read_so = (format!("{:?}", Ok::<_, WireError>(Some((u32::from(field), Value::Bytes(span))))), shortest.pos);
                    prop_assert_eq!(&read, &read_so);
                }
                if read.0.starts_with("Err") || read.0 == "Ok(None)" {
                    break;
                }
            }
        }
    }
}

//! JSON objects of log records and spans: attributes of several origins, by key, as one CSV field.

use super::value::{self, Any};
use crate::text::{self, json_field};
use crate::wire::{self, Span, WireError};

/// A value that comes from the body or from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Member<'a> {
    Any(Any),
    Text(&'a [u8]),
}

/// Members of one object. Of equal keys the one added last counts.
#[derive(Debug, Default)]
pub(crate) struct Object<'a> {
    members: Vec<(&'a [u8], Member<'a>)>,
}

impl<'a> Object<'a> {
    pub(crate) fn clear(&mut self) {
        self.members.clear();
    }

    pub(crate) fn push(&mut self, key: &'a [u8], value: Member<'a>) {
        self.members.push((key, value));
    }

    /// Adds a text unless it is empty.
    pub(crate) fn push_text(&mut self, key: &'a [u8], text: &'a [u8]) {
        if !text.is_empty() {
            self.push(key, Member::Text(text));
        }
    }

    /// Adds what a `KeyValue` message holds.
    pub(crate) fn push_any(&mut self, body: &'a [u8], key: Span, value: Any) -> Result<(), WireError> {
        wire::push(&mut self.members, (key.of(body), Member::Any(value)), key)
    }

    /// Adds a `KeyValue` message.
    pub(crate) fn push_attribute(&mut self, body: &'a [u8], attribute: Span) -> Result<(), WireError> {
        let (key, value) = value::key_value(body, attribute)?;
        self.push_any(body, key, value)
    }

    /// The members in their order.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'a [u8], Member<'a>)> {
        self.members.iter().copied()
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.members.extend_from_slice(&other.members);
    }

    /// Sorts by key and settles equal keys.
    pub(crate) fn settle(&mut self) {
        if self.members.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        self.members.reverse();
        self.members.sort_by(|a, b| a.0.cmp(b.0));
        self.members.dedup_by(|later, earlier| later.0 == earlier.0);
    }

    /// Drops for good what [`Object::write`] would not write.
    pub(crate) fn forget(&mut self, hidden: impl Fn(&[u8]) -> bool) {
        self.members.retain(|(key, member)| !hidden(key) && is_writable(member));
    }

    /// Takes out the value of a key, after [`Object::settle`]: of that very key, or of the first one that differs in
    /// the case of ASCII letters only.
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<Member<'a>> {
        let exact = self.members.binary_search_by(|member| member.0.cmp(key)).ok();
        let at = exact.or_else(|| self.members.iter().position(|member| member.0.eq_ignore_ascii_case(key)))?;
        Some(self.members.remove(at).1)
    }

    /// Writes the members whose keys are not hidden as one CSV field, after [`Object::settle`].
    pub(crate) fn write(&self, out: &mut Vec<u8>, body: &[u8], hidden: impl Fn(&[u8]) -> bool) -> Result<(), WireError> {
        json_field(out, |out| self.write_json(out, body, hidden))
    }

    /// Like [`Object::write`], inside a field that is quoted already.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>, body: &[u8], hidden: impl Fn(&[u8]) -> bool) -> Result<(), WireError> {
        out.push(b'{');
        let mut first = true;
        for (key, member) in &self.members {
            if hidden(key) || !is_writable(member) {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            text::json_string(out, key);
            out.push(b':');
            match member {
                Member::Any(value) => value::json(out, body, *value)?,
                Member::Text(text) => text::json_string(out, text),
            }
        }
        out.push(b'}');
        Ok(())
    }
}

fn is_writable(member: &Member<'_>) -> bool {
    match member {
        Member::Any(value) => value::is_writable(*value),
        Member::Text(_) => true,
    }
}

//! The label set of one series while it is being decoded: spans into the request body or into a small arena.
//!
//! Labels sort with `__name__` first, then by name without regard to ASCII case; SeriesIds depend on that order.
//! The first eight bytes of each name are kept as a number, so that sorting and comparing rarely touch the text.

use crate::wire::Span;
use std::cmp::Ordering;

/// The label that holds the metric's name.
pub(crate) const NAME: &[u8] = b"__name__";

/// Marks a span as one of the arena.
const IN_ARENA: u32 = 0x8000_0000;

/// Pairs of labels that are compared directly.
const MAX_COMPARISONS: usize = 100_000;

/// One label.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    key: u64,
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// Labels of one series after the other; the buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    entries: Vec<Label>,
    arena: Vec<u8>,
    kept: usize,
}

impl Labels {
    /// Starts the next series: forgets the last one's labels, and what it put into the arena.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.entries.clear();
        self.arena.truncate(self.kept);
    }

    /// Makes what is in the arena now outlive [`Labels::begin`].
    pub(crate) fn keep_arena(&mut self) {
        self.kept = self.arena.len();
    }

    /// Length of the part of the arena that outlives [`Labels::begin`].
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Forgets arena text beyond `len`, which [`Labels::kept`] told.
    pub(crate) fn release_to(&mut self, len: usize) {
        self.kept = len;
        self.arena.truncate(len);
    }

    /// Puts text into the arena.
    pub(crate) fn hold(&mut self, text: &[u8]) -> Span {
        self.hold_with(|arena| arena.extend_from_slice(text))
    }

    /// Puts into the arena what `write` appends.
    pub(crate) fn hold_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.arena.len();
        write(&mut self.arena);
        Span { start: start as u32 | IN_ARENA, len: (self.arena.len() - start) as u32 }
    }

    /// The text of a span of `body` or of the arena.
    #[inline]
    pub(crate) fn text<'t>(&'t self, body: &'t [u8], span: Span) -> &'t [u8] {
        text_of(&self.arena, body, span)
    }

    /// Where a span lies: the bytes it is of, its start in them, and its length.
    #[inline]
    pub(crate) fn place<'t>(&'t self, body: &'t [u8], span: Span) -> (&'t [u8], usize, usize) {
        let (base, start) = if span.start & IN_ARENA == 0 { (body, span.start) } else { (&self.arena[..], span.start & !IN_ARENA) };
        let (start, len) = (start as usize, span.len as usize);
        if start + len <= base.len() { (base, start, len) } else { (&[], 0, 0) }
    }

    /// Makes a label without adding it.
    pub(crate) fn label(&self, body: &[u8], name: Span, value: Span) -> Label {
        let (base, start, len) = self.place(body, name);
        Label { key: sort_key(base, start, len), name, value }
    }

    /// Adds a label.
    #[inline]
    pub(crate) fn push(&mut self, body: &[u8], name: Span, value: Span) {
        let label = self.label(body, name, value);
        self.entries.push(label);
    }

    /// Adds a label whose texts are not in the body.
    pub(crate) fn push_held(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.hold(name), self.hold(value));
        self.push(&[], name, value);
    }

    /// Adds the labels whose names are not there yet.
    pub(crate) fn push_missing(&mut self, body: &[u8], labels: &[Label]) {
        let own = self.entries.len();
        if own.saturating_mul(labels.len()) > MAX_COMPARISONS {
            return self.merge_missing(body, labels);
        }
        for label in labels {
            if !self.entries[..own].iter().any(|present| self.same_name(body, present, label)) {
                self.entries.push(*label);
            }
        }
    }

    /// [`Labels::push_missing`] for sets so large that comparing all with all would take seconds.
    #[cold]
    fn merge_missing(&mut self, body: &[u8], labels: &[Label]) {
        self.entries.extend_from_slice(labels);
        self.sort(body);
        let Self { entries, arena, .. } = self;
        entries.dedup_by(|later, earlier| same_name(arena, body, later, earlier));
    }

    /// Adds labels, replacing those of the same names.
    pub(crate) fn set_all(&mut self, body: &[u8], labels: &[Label]) {
        let Self { entries, arena, .. } = self;
        let is_set = |present: &Label| labels.iter().any(|label| same_name(arena, body, present, label));
        // Mostly there is nothing to replace, and finding that out is cheaper than retaining all.
        if entries.iter().any(is_set) {
            entries.retain(|present| !is_set(present));
        }
        entries.extend_from_slice(labels);
    }

    /// Keeps the labels that `keep` says yes to, given name and value.
    pub(crate) fn retain(&mut self, body: &[u8], mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let Self { entries, arena, .. } = self;
        entries.retain(|label| keep(text_of(arena, body, label.name), text_of(arena, body, label.value)));
    }

    /// Sorts as SeriesIds need it. Equal names keep their order. Senders sort by name already, so mostly it is about
    /// the labels that we added.
    pub(crate) fn sort(&mut self, body: &[u8]) {
        let Self { entries, arena, .. } = self;
        if entries.is_sorted_by(|a, b| a.key < b.key) {
            return;
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| full_order(arena, body, a, b)));
    }

    /// Name and value of each label, in order.
    #[inline]
    pub(crate) fn iter<'t>(&'t self, body: &'t [u8]) -> impl Iterator<Item = (&'t [u8], &'t [u8])> {
        self.entries.iter().map(move |label| (self.text(body, label.name), self.text(body, label.value)))
    }

    /// The labels themselves.
    pub(crate) fn entries(&self) -> &[Label] {
        &self.entries
    }

    /// Replaces the labels, e.g. by an earlier copy of [`Labels::entries`].
    pub(crate) fn restore(&mut self, entries: &[Label]) {
        self.entries.clear();
        self.entries.extend_from_slice(entries);
    }

    /// Gives labels of the same name as `label` the name `name`.
    pub(crate) fn rename_all(&mut self, body: &[u8], label: &Label, name: Span) {
        let Self { entries, arena, .. } = self;
        for present in entries {
            if same_name(arena, body, present, label) {
                let text = text_of(arena, body, name);
                *present = Label { key: sort_key(text, 0, text.len()), name, value: present.value };
            }
        }
    }

    /// Adds labels.
    pub(crate) fn extend(&mut self, labels: &[Label]) {
        self.entries.extend_from_slice(labels);
    }

    /// Adds a label whose name no other has.
    pub(crate) fn extend_unless_there(&mut self, body: &[u8], label: &Label) {
        if !self.entries.iter().any(|present| self.same_name(body, present, label)) {
            self.entries.push(*label);
        }
    }

    fn same_name(&self, body: &[u8], a: &Label, b: &Label) -> bool {
        same_name(&self.arena, body, a, b)
    }
}

#[inline]
fn text_of<'t>(arena: &'t [u8], body: &'t [u8], span: Span) -> &'t [u8] {
    if span.start & IN_ARENA == 0 { span.of(body) } else { Span { start: span.start & !IN_ARENA, len: span.len }.of(arena) }
}

#[inline]
fn same_name(arena: &[u8], body: &[u8], a: &Label, b: &Label) -> bool {
    a.key == b.key && a.name.len == b.name.len && text_of(arena, body, a.name) == text_of(arena, body, b.name)
}

fn full_order(arena: &[u8], body: &[u8], a: &Label, b: &Label) -> Ordering {
    let (a, b) = (text_of(arena, body, a.name), text_of(arena, body, b.name));
    a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
}

/// The first eight bytes of the name at `start` of `base` in lower case as a big-endian number; `__name__` sorts before
/// everything.
#[inline]
fn sort_key(base: &[u8], start: usize, len: usize) -> u64 {
    let text = &base[start..];
    let prefix = match text.first_chunk::<8>() {
        Some(_) if len == NAME.len() && text.starts_with(NAME) => return 0,
        // Bytes beyond a short name are cut off: to copy only those of the name would be to wait for that copy.
        Some(first) => u64::from_be_bytes(*first) & !u64::MAX.checked_shr(8 * len as u32).unwrap_or(0),
        None => {
            let mut padded = [0; 8];
            let len = len.min(text.len());
            padded[..len].copy_from_slice(&text[..len]);
            u64::from_be_bytes(padded)
        }
    };
    lower_case(prefix).max(1)
}

/// ASCII letters of eight bytes in lower case.
#[inline]
fn lower_case(bytes: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    let low = bytes & !HIGH;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let beyond_z = low + ONES * (0x7f - b'Z' as u64);
    let upper = (from_a ^ beyond_z) & !bytes & HIGH;
    bytes | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn eight_at_a_time_lowers_what_one_at_a_time_lowers(bytes in any::<[u8; 8]>()) {
            prop_assert_eq!(lower_case(u64::from_be_bytes(bytes)).to_be_bytes(), bytes.map(|byte| byte.to_ascii_lowercase()));
        }
    }
}

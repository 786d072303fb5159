//! Rows that wait for their block, in pieces of memory: growing one large piece would copy what is in it again and
//! again, and these bytes have long left the processor's caches.

use std::borrow::Cow;
use std::collections::VecDeque;

/// Sizes of the pieces: a table that gets little takes little.
const FIRST_PIECE: usize = 1 << 10;
const LARGEST_PIECE: usize = 8 << 10;

/// Bytes that are added at one end and taken from the other.
#[derive(Default)]
pub(crate) struct Pile {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were taken.
    taken: usize,
    len: usize,
}

impl Pile {
    pub(crate) fn push(&mut self, bytes: Cow<'_, [u8]>) {
        self.len += bytes.len();
        let bytes = match bytes {
            Cow::Owned(bytes) if bytes.len() >= LARGEST_PIECE => return self.pieces.push_back(bytes),
            Cow::Owned(ref bytes) => bytes,
            Cow::Borrowed(bytes) => bytes,
        };
        let room = self.pieces.back().map_or(0, |last| last.capacity() - last.len());
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        if let Some(last) = self.pieces.back_mut() {
            last.extend_from_slice(head);
        }
        if !rest.is_empty() {
            let size = self.len.clamp(FIRST_PIECE, LARGEST_PIECE).max(rest.len());
            let mut piece = Vec::with_capacity(size);
            piece.extend_from_slice(rest);
            self.pieces.push_back(piece);
        }
    }

    /// Appends a copy of the first `n` bytes to `out`.
    pub(crate) fn copy_to(&self, n: usize, out: &mut Vec<u8>) {
        let mut missing = n;
        let mut skip = self.taken;
        for piece in &self.pieces {
            let bytes = &piece[skip..];
            let bytes = &bytes[..missing.min(bytes.len())];
            out.extend_from_slice(bytes);
            missing -= bytes.len();
            skip = 0;
            if missing == 0 {
                return;
            }
        }
    }

    /// Takes the first `n` bytes away.
    pub(crate) fn take(&mut self, n: usize) {
        self.len -= n;
        self.taken += n;
        while let Some(first) = self.pieces.front()
            && self.taken >= first.len()
        {
            self.taken -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((prop_oneof![0usize..3000, 0usize..20_000], prop::bool::ANY, 0usize..20_000), 1..60)) {
            let (mut pile, mut plain) = (Pile::default(), Vec::new());
            for (number, (added, owned, taken)) in steps.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..added).map(|i| (i * 7 + number) as u8).collect();
                plain.extend_from_slice(&bytes);
                pile.push(if owned { Cow::Owned(bytes) } else { Cow::Borrowed(&bytes) });
                let taken = taken.min(plain.len());
                let mut out = Vec::new();
                pile.copy_to(taken, &mut out);
                prop_assert_eq!(&out, &plain[..taken]);
                pile.take(taken);
                plain.drain(..taken);
                prop_assert_eq!(pile.len, plain.len());
                // Little is held beside what waits.
                let held = pile.pieces.iter().map(Vec::capacity).sum::<usize>();
                prop_assert!(held <= 2 * plain.len() + 20_000 + 2 * LARGEST_PIECE, "{} of {}", held, plain.len());
            }
        }
    }
}

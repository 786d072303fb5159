//! Text that is joined from many short pieces. A label set is some forty of them, and a call of `memcpy` for each costs
//! more than its bytes: here a short piece is one copy of fixed length, whose end the next piece overwrites.

/// Length of the copies.
const SHORT: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// The text, and behind it what copies left over.
    bytes: Vec<u8>,
    len: usize,
}

impl Joined {
    /// Begins anew; `room` is about how long the text will be.
    pub(crate) fn begin(&mut self, room: usize) {
        self.len = 0;
        self.make_room(room);
    }

    /// The text.
    #[inline]
    pub(crate) fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Length of the text.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends `len` bytes of `base` from `start` on.
    ///
    /// # Panics
    /// When they do not lie inside.
    #[inline]
    pub(crate) fn put_part(&mut self, base: &[u8], start: usize, len: usize) {
        if len <= SHORT
            && let Some(from) = base.get(start..).and_then(<[u8]>::first_chunk::<SHORT>)
            && let Some(to) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut::<SHORT>)
        {
            *to = *from;
            self.len += len;
        } else {
            self.put(&base[start..start + len]);
        }
    }

    /// Appends a short text that is known when this is compiled.
    #[inline]
    pub(crate) fn put_fixed<const N: usize>(&mut self, text: &[u8; N]) {
        match self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut::<N>) {
            Some(to) => {
                *to = *text;
                self.len += N;
            }
            None => self.put(text),
        }
    }

    /// Appends any text.
    pub(crate) fn put(&mut self, text: &[u8]) {
        self.make_room(text.len());
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }

    /// Appends what `write` appends.
    pub(crate) fn put_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.truncate(self.len);
        write(&mut self.bytes);
        self.len = self.bytes.len();
        self.make_room(0);
    }

    fn make_room(&mut self, more: usize) {
        let needed = self.len + more + SHORT;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_follow_each_other(base in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..70, 0u8..4), 0..40), room in 0usize..100) {
            let (mut joined, mut plain) = (Joined::default(), Vec::new());
            joined.put(b"of the text before");
            joined.begin(room);
            for (start, len, how) in cuts {
                let start = start.index(base.len() + 1);
                let part = &base[start..(start + len).min(base.len())];
                match how {
                    0 => joined.put_part(&base, start, part.len()),
                    1 => joined.put(part),
                    2 => joined.put_with(|out| out.extend_from_slice(part)),
                    _ => joined.put_fixed(b"\"\":\"\""),
                }
                plain.extend_from_slice(if how == 3 { b"\"\":\"\"" } else { part });
                prop_assert_eq!((joined.text(), joined.len()), (&plain[..], plain.len()));
            }
        }
    }
}

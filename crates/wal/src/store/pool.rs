//! The memory of rows that are not in a segment yet: the buffers of their requests, as they came.
//!
//! A request has a few rows for each of many tables. Copying them to a buffer of each table would touch as many cold
//! places in memory; so they stay where they are until they are written, and tables know their pieces. A buffer goes
//! when its last piece is released. [`Pool::compact`] moves what is left of many buffers together.

use std::sync::Arc;

use parking_lot::Mutex;

/// Largest size of the buffers that little requests share, and that pieces are moved together in.
pub(crate) const SHARED_BYTES: usize = 64 << 10;

/// Buffers of [`SHARED_BYTES`] that nothing uses, for the requests that come. What is freed goes back to the kernel, and
/// has to be fetched and cleared again page by page.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    /// The fewest there were since [`Spare::trim`].
    fewest: usize,
}

impl Spare {
    /// Keeps at most `most` bytes.
    pub(crate) fn new(most: usize) -> Spare {
        Spare { most: most / SHARED_BYTES, kept: Mutex::default() }
    }

    /// An empty buffer of [`SHARED_BYTES`].
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut kept = self.kept.lock();
        let buffer = kept.buffers.pop();
        kept.fewest = kept.fewest.min(kept.buffers.len());
        drop(kept);
        buffer.unwrap_or_else(|| Vec::with_capacity(SHARED_BYTES))
    }

    /// Takes a buffer back; those of another size are freed.
    fn put(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() == SHARED_BYTES {
            buffer.clear();
            let mut kept = self.kept.lock();
            if kept.buffers.len() < self.most {
                kept.buffers.push(buffer);
            }
        }
    }

    /// Frees what was not needed since the last call.
    pub(crate) fn trim(&self) {
        let mut kept = self.kept.lock();
        let left = kept.buffers.len() - kept.fewest;
        let unused = kept.buffers.split_off(left);
        kept.buffers.shrink_to_fit();
        kept.fewest = left;
        drop(kept);
        drop(unused);
    }
}

/// Where the rows of one section are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    buffer: u32,
    start: u32,
    pub(crate) len: u32,
    pub(crate) rows: u32,
}

/// Where a buffer was put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home {
    buffer: u32,
    start: u32,
}

impl Home {
    /// The piece at `start` of what was put there.
    #[inline]
    pub(crate) fn piece(self, start: usize, len: usize, rows: u32) -> Piece {
        Piece { buffer: self.buffer, start: self.start + start as u32, len: len as u32, rows }
    }
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Bytes of pieces that were not released.
    live: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Size of shared buffers.
    shared_bytes: usize,
    buffers: Vec<Buffer>,
    /// Empty places among them.
    free: Vec<u32>,
    /// The buffer that is added to.
    shared: Option<u32>,
    held: usize,
    spare: Arc<Spare>,
}

impl Pool {
    /// A pool that may come to hold `most` bytes, and gives its buffers to `spare`.
    pub(crate) fn new(most: usize, spare: Arc<Spare>) -> Pool {
        let shared_bytes = (most / 64).min(SHARED_BYTES);
        Pool { shared_bytes, buffers: Vec::new(), free: Vec::new(), shared: None, held: 0, spare }
    }

    /// Takes bytes, all of which belong to pieces.
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> Home {
        if bytes.len() < self.shared_bytes / 8 {
            return self.add_copy(&bytes);
        }
        let live = bytes.len();
        Home { buffer: self.insert(Buffer { bytes, live }), start: 0 }
    }

    /// The bytes of a piece.
    #[inline]
    pub(crate) fn get(&self, piece: Piece) -> &[u8] {
        let start = piece.start as usize;
        &self.buffers[piece.buffer as usize].bytes[start..start + piece.len as usize]
    }

    /// Takes a piece away.
    #[inline]
    pub(crate) fn release(&mut self, piece: Piece) {
        let buffer = &mut self.buffers[piece.buffer as usize];
        buffer.live -= piece.len as usize;
        if buffer.live == 0 {
            self.remove(piece.buffer);
        }
    }

    /// Memory that is held, which is more than the pieces where others of their buffers were released.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves all pieces into as few buffers as they need. `each` is to call its argument for every piece there is.
    pub(crate) fn compact(&mut self, each: impl FnOnce(&mut dyn FnMut(&mut Piece))) {
        let mut packed = Pool::new(0, Arc::clone(&self.spare));
        packed.shared_bytes = self.shared_bytes;
        each(&mut |piece| {
            let home = packed.add_copy(self.get(*piece));
            self.release(*piece);
            *piece = home.piece(0, piece.len as usize, piece.rows);
        });
        *self = packed;
    }

    fn add_copy(&mut self, bytes: &[u8]) -> Home {
        let room = |buffer: &Buffer| buffer.bytes.capacity() - buffer.bytes.len();
        let shared = self.shared.filter(|shared| room(&self.buffers[*shared as usize]) >= bytes.len());
        let at = shared.unwrap_or_else(|| {
            let size = self.shared_bytes.max(bytes.len());
            let bytes = if size == SHARED_BYTES { self.spare.take() } else { Vec::with_capacity(size) };
            let at = self.insert(Buffer { bytes, live: 0 });
            self.shared = Some(at);
            at
        });
        let buffer = &mut self.buffers[at as usize];
        let start = buffer.bytes.len() as u32;
        buffer.bytes.extend_from_slice(bytes);
        buffer.live += bytes.len();
        Home { buffer: at, start }
    }

    fn insert(&mut self, buffer: Buffer) -> u32 {
        self.held += buffer.bytes.capacity();
        match self.free.pop() {
            Some(at) => {
                self.buffers[at as usize] = buffer;
                at
            }
            None => {
                self.buffers.push(buffer);
                self.buffers.len() as u32 - 1
            }
        }
    }

    fn remove(&mut self, at: u32) {
        let Buffer { bytes, .. } = std::mem::take(&mut self.buffers[at as usize]);
        self.held -= bytes.capacity();
        self.spare.put(bytes);
        self.free.push(at);
        self.shared.take_if(|shared| *shared == at);
        if self.free.len() == self.buffers.len() {
            // Not even the list of a great number of them is kept.
            (self.buffers, self.free) = (Vec::new(), Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// The lengths of the pieces of a buffer.
        Add(Vec<usize>),
        Release(prop::sample::Index),
        Compact,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(prop_oneof![1usize..600, 1usize..30_000], 1..6).prop_map(Step::Add),
            8 => any::<prop::sample::Index>().prop_map(Step::Release),
            1 => Just(Step::Compact),
        ]
    }

    #[test]
    fn buffers_are_used_again_and_freed_when_they_are_not() {
        let spare = Spare::new(3 * SHARED_BYTES);
        let buffers: Vec<_> = (0..5).map(|_| spare.take()).collect();
        buffers.into_iter().for_each(|buffer| spare.put(buffer));
        spare.put(Vec::with_capacity(100));
        let kept = || spare.kept.lock().buffers.len();
        assert_eq!(kept(), 3);
        // All came after the last trim.
        spare.trim();
        assert_eq!(kept(), 3);
        let used = spare.take();
        spare.put(used);
        spare.trim();
        assert_eq!(kept(), 1);
        spare.trim();
        assert_eq!(kept(), 0);
    }

    proptest! {
        #[test]
        fn what_goes_in_is_there_until_it_is_released(most in prop_oneof![Just(1 << 20), Just(8 << 20)], steps in prop::collection::vec(step(), 1..80)) {
            let (mut pool, mut pieces) = (Pool::new(most, Arc::new(Spare::new(most))), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Add(lens) => {
                        let contents: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, len)| vec![(number * 7 + i) as u8; *len]).collect();
                        let home = pool.add(contents.concat());
                        let mut start = 0;
                        for content in contents {
                            pieces.push((home.piece(start, content.len(), number as u32), number as u32, content.clone()));
                            start += content.len();
                        }
                    }
                    Step::Release(which) if !pieces.is_empty() => {
                        let (piece, ..) = pieces.swap_remove(which.index(pieces.len()));
                        pool.release(piece);
                    }
                    Step::Release(_) => {}
                    Step::Compact => {
                        pool.compact(|each| pieces.iter_mut().for_each(|(piece, ..)| each(piece)));
                        let live: usize = pieces.iter().map(|(_, _, content)| content.len()).sum();
                        // At the end of each buffer less than a piece is unused.
                        prop_assert!(pool.held() <= 2 * live + SHARED_BYTES, "{} for {live}", pool.held());
                    }
                }
                for (piece, rows, content) in &pieces {
                    prop_assert_eq!(pool.get(*piece), &content[..]);
                    prop_assert_eq!(piece.rows, *rows);
                }
                prop_assert_eq!(pool.held(), pool.buffers.iter().map(|buffer| buffer.bytes.capacity()).sum::<usize>());
                prop_assert!(!pieces.is_empty() || pool.held() == 0);
            }
        }
    }
}

//! Snappy into a buffer that is used again: a fresh one would be zeroed to five quarters of the input for
//! every block.

use std::cell::RefCell;

/// An encoder with its output.
pub(crate) struct Squeezer {
    encoder: snap::raw::Encoder,
    out: Vec<u8>,
}

/// Largest buffer that is kept between uses.
const KEPT: usize = 256 << 10;

impl Squeezer {
    pub(crate) const fn buffer_len(raw: usize) -> usize {
        // As in the format's reference implementation: the worst case of incompressible input.
        32 + raw + raw / 6
    }

    pub(crate) fn new() -> Squeezer {
        Squeezer { encoder: snap::raw::Encoder::new(), out: Vec::new() }
    }

    /// The compressed form of `raw`, valid until the next call.
    pub(crate) fn compress(&mut self, raw: &[u8]) -> &[u8] {
        let len = Squeezer::buffer_len(raw.len());
        if self.out.len() < len || (self.out.len() > KEPT && len <= KEPT) {
            self.out = vec![0; len];
        }
        let written = self
            .encoder
            .compress(raw, &mut self.out)
            .expect("the output has the length snappy asks for, and inputs are far below its 4 GiB limit");
        &self.out[..written]
    }
}

thread_local! {
    static SQUEEZER: RefCell<Squeezer> = RefCell::new(Squeezer::new());
}

/// Lends this thread's squeezer.
pub(crate) fn with<T>(work: impl FnOnce(&mut Squeezer) -> T) -> T {
    SQUEEZER.with_borrow_mut(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_as_long_as_snappy_wants() {
        for len in [0, 1, 100, 65_535, 65_536, 1 << 20] {
            assert!(Squeezer::buffer_len(len) >= snap::raw::max_compress_len(len));
        }
        let mut squeezer = Squeezer::new();
        for len in [0usize, 10, 1 << 20, 5] {
            let raw: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
            let compressed = squeezer.compress(&raw).to_vec();
            assert_eq!(snap::raw::Decoder::new().decompress_vec(&compressed).unwrap(), raw);
        }
    }
}

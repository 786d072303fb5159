//! The documented segment format `ADXWAL`: blocks, file names, flake ids, verification.
//!
//! A file is an 8-byte header and blocks `{u32 BE length, u32 BE CRC-32 of the payload, S2 payload}`.
//! A payload decodes to `AA AA`, version 1, sample type, u32 BE rows, then CSV text.

mod block;
mod flake;
mod gather;
mod name;
mod verify;

pub(crate) use block::{BLOCK_HEADER, encode_block_parts, encode_block_with};
pub use block::{BlockMeta, BlockRef, Blocks, Damage, DamageKind, MAX_BLOCK_BYTES, Scratch, blocks, blocks_at, encode_block};
pub use flake::{FlakeIds, created_ms, created_ns};
pub use gather::{Gathered, gather};
pub use name::{FileName, NameError};
pub use verify::{Verified, is_segment, values, verify, verify_blocks};
pub(crate) use verify::{rows_of, scan};

/// First bytes of a segment file. Readers ignore the last two.
pub const HEADER: [u8; 8] = *b"ADXWAL\0\0";

/// Continues the digest of a segment with its next block (header and payload, as in the file).
/// A segment's digest starts at 0.
pub fn digest(previous: u64, block: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(block, previous)
}

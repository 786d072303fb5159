//! The body of `POST /transfer` between our own processes: many segments in one request.
//!
//! Media type `application/vnd.adx-mon.segments`. All integers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 7 | magic `ADXSEGS` |
//! | 1 | version, 1 |
//! | 4 | length of the directory, at most 4 MiB |
//! | 8 | XXH3-64 of the directory |
//! | … | the directory |
//! | … | the segment images, one after the other, in the order of the directory |
//!
//! The directory is the sender (16 bytes), the number of segments (u32), and for each segment:
//! length of its file name (u16), the name in the documented form `<db>_<table>[_<schema>]_<id>.wal`,
//! its number, its digest, the sender's floor in its database, the length of its image, its rows,
//! and XXH3-64 of its image as it left (six u64).
//!
//! The directory stands first so that a receiver can refuse before it reads, and knows which
//! segments it has already. The checksum of an image tells damage on the way (nothing is stored, the
//! sender repeats) from damage on the sender's disk (the good blocks are stored).
//!
//! An image is a file of the `ADXWAL` format: its 8-byte header and its blocks.

use xxhash_rust::xxh3::xxh3_64;

/// The newest version that is written and read.
pub const VERSION: u8 = 1;
/// Bytes before the directory.
pub const PREAMBLE: usize = 20;

const MAGIC: &[u8; 7] = b"ADXSEGS";
const MAX_DIRECTORY: usize = 4 << 20;
/// Fixed part of an entry.
const ENTRY: usize = 2 + 6 * 8;

/// What a request says about itself before its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Identity of the sender's store.
    pub sender: [u8; 16],
    /// The segments, in the order of their images.
    pub entries: Vec<Entry>,
}

/// One segment of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File name in the documented form; it names database, table and schema.
    pub file_name: String,
    /// Number per (sender, database).
    pub number: u64,
    /// Digest of its blocks, as the sender sealed them.
    pub digest: u64,
    /// The sender's lowest unsettled number in this database.
    pub floor: u64,
    /// Length of the image in bytes.
    pub length: u64,
    /// CSV records.
    pub rows: u64,
    /// XXH3-64 of the image.
    pub checksum: u64,
}

/// Why a body is not in this format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The first bytes are others.
    #[error("the body does not start with ADXSEGS: it is no body of segments")]
    Magic,
    /// Written by a newer sender.
    #[error("the body has version {0}, and 1 is the newest this receiver reads: upgrade it")]
    Version(u8),
    /// A length is outside its bounds.
    #[error("the directory of {0} bytes is larger than 4 MiB: send fewer segments at a time")]
    TooLong(usize),
    /// The directory and its checksum do not agree.
    #[error("the directory is damaged: {0}")]
    Damaged(&'static str),
}

impl Directory {
    /// The bytes before the images.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] when there are too many segments for one request.
    pub fn encode(&self) -> Result<Vec<u8>, BodyError> {
        let mut directory = Vec::with_capacity(20 + self.entries.len() * (ENTRY + 64));
        directory.extend_from_slice(&self.sender);
        directory.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for e in &self.entries {
            let name_len = u16::try_from(e.file_name.len()).map_err(|_| BodyError::TooLong(e.file_name.len()))?;
            directory.extend_from_slice(&name_len.to_le_bytes());
            directory.extend_from_slice(e.file_name.as_bytes());
            for number in [e.number, e.digest, e.floor, e.length, e.rows, e.checksum] {
                directory.extend_from_slice(&number.to_le_bytes());
            }
        }
        if directory.len() > MAX_DIRECTORY {
            return Err(BodyError::TooLong(directory.len()));
        }
        let mut out = Vec::with_capacity(PREAMBLE + directory.len());
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        out.extend_from_slice(&xxh3_64(&directory).to_le_bytes());
        out.extend_from_slice(&directory);
        Ok(out)
    }

    /// Reads a directory whose preamble said how long it is.
    ///
    /// # Errors
    /// [`BodyError::Damaged`] when checksum or contents do not hold.
    pub fn decode(preamble: &Preamble, directory: &[u8]) -> Result<Directory, BodyError> {
        if directory.len() != preamble.directory_len || xxh3_64(directory) != preamble.checksum {
            return Err(BodyError::Damaged("its checksum does not match"));
        }
        let mut read = Reader { rest: directory };
        let sender = read.array::<16>()?;
        let count = u32::from_le_bytes(read.array()?) as usize;
        if count > directory.len() / ENTRY {
            return Err(BodyError::Damaged("it names more segments than fit into it"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(read.entry()?);
        }
        if !read.rest.is_empty() {
            return Err(BodyError::Damaged("bytes follow its last segment"));
        }
        Ok(Directory { sender, entries })
    }

    /// Bytes of all images; saturates, so that absurd lengths are larger than any limit.
    pub fn images_len(&self) -> u64 {
        self.entries.iter().fold(0, |sum, e| sum.saturating_add(e.length))
    }
}

/// The first [`PREAMBLE`] bytes of a body, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Length of the directory that follows, at most 4 MiB.
    pub directory_len: usize,
    checksum: u64,
}

impl Preamble {
    /// Checks magic, version and length.
    ///
    /// # Errors
    /// What does not hold.
    pub fn decode(bytes: &[u8; PREAMBLE]) -> Result<Preamble, BodyError> {
        let mut read = Reader { rest: bytes };
        if &read.array::<7>()? != MAGIC {
            return Err(BodyError::Magic);
        }
        let [version] = read.array::<1>()?;
        if version != VERSION {
            return Err(BodyError::Version(version));
        }
        let directory_len = u32::from_le_bytes(read.array()?) as usize;
        if directory_len > MAX_DIRECTORY {
            return Err(BodyError::TooLong(directory_len));
        }
        Ok(Preamble { directory_len, checksum: read.u64()? })
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], BodyError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(BodyError::Damaged("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BodyError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u64(&mut self) -> Result<u64, BodyError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn entry(&mut self) -> Result<Entry, BodyError> {
        let name_len = u16::from_le_bytes(self.array()?) as usize;
        let file_name = std::str::from_utf8(self.take(name_len)?).map_err(|_| BodyError::Damaged("a file name is not UTF-8"))?.to_owned();
        Ok(Entry {
            file_name,
            number: self.u64()?,
            digest: self.u64()?,
            floor: self.u64()?,
            length: self.u64()?,
            rows: self.u64()?,
            checksum: self.u64()?,
        })
    }
}

/// The checksum of an image, as an [`Entry`] carries it.
pub fn image_checksum(image: &[u8]) -> u64 {
    xxh3_64(image)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        ("[a-zA-Z0-9_]{0,80}", any::<[u64; 6]>()).prop_map(|(file_name, n)| Entry {
            file_name,
            number: n[0],
            digest: n[1],
            floor: n[2],
            length: n[3],
            rows: n[4],
            checksum: n[5],
        })
    }

    fn split(bytes: &[u8]) -> Result<Directory, BodyError> {
        let Some(preamble) = bytes.first_chunk::<PREAMBLE>() else {
            return Err(BodyError::Damaged("short"));
        };
        Directory::decode(&Preamble::decode(preamble)?, &bytes[PREAMBLE..])
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sender in any::<[u8; 16]>(), entries in prop::collection::vec(entry(), 0..20)) {
            let directory = Directory { sender, entries };
            prop_assert_eq!(split(&directory.encode().unwrap()), Ok(directory));
        }

        #[test]
        fn one_flipped_bit_is_noticed(entries in prop::collection::vec(entry(), 0..5), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = Directory { sender: [7; 16], entries }.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(split(&bytes).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = split(&bytes);
            let mut known = b"ADXSEGS\x01".to_vec();
            known.extend_from_slice(&bytes);
            let _ = split(&known);
        }
    }

    #[test]
    fn the_layout_is_as_documented() {
        let directory = Directory {
            sender: [1; 16],
            entries: vec![Entry { file_name: "D_T_0.wal".into(), number: 2, digest: 3, floor: 4, length: 5, rows: 6, checksum: 7 }],
        };
        let bytes = directory.encode().unwrap();
        assert_eq!(&bytes[..8], b"ADXSEGS\x01");
        assert_eq!(bytes[8..12], (16u32 + 4 + 2 + 9 + 48).to_le_bytes());
        assert_eq!(bytes[20..36], [1; 16]);
        assert_eq!(bytes[36..40], 1u32.to_le_bytes());
        assert_eq!(&bytes[40..51], b"\x09\x00D_T_0.wal");
        assert_eq!(bytes[51..59], 2u64.to_le_bytes());
        assert_eq!(bytes[91..99], 7u64.to_le_bytes());
    }
}

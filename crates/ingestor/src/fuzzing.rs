//! What the fuzz targets call: readers of bytes from outside, with the properties that hold for any input.

use crate::upload::passage::Progress;

/// The detail of a batch's record: any bytes, no panic, and what is read is what would be written.
///
/// # Panics
/// When a property does not hold.
pub fn batch_record(bytes: &[u8]) {
    if let Ok(progress) = Progress::decode(bytes) {
        let again = Progress::decode(&progress.encode());
        assert_eq!(again.as_ref(), Ok(&progress));
    }
}

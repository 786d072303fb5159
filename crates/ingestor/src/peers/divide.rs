//! Which segments of a peer's table are worth passing to it: few, small and young ones. The reference's rule, as a function.

use wal::SegmentInfo;

/// From when on a segment is uploaded where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many segments of a table together are a batch of their own.
    pub max_segments: usize,
    /// So many bytes of a table together are.
    pub max_bytes: u64,
    /// A segment that is so old, in milliseconds, must not wait for others once more.
    pub max_age_ms: u64,
}

/// How many of a table's segments, from the first one on, are uploaded here; the others go to the table's owner. `segments`
/// are in the order of their file names.
///
/// The reference also makes an upload of its own of each aged segment, just when it is behind. Here they are uploaded
/// together, as the plan of uploads finds best.
pub fn uploaded_here(segments: &[SegmentInfo], limits: Limits, now_ms: u64) -> usize {
    let (mut uploaded, mut count, mut bytes) = (0, 0, 0u64);
    for (index, segment) in segments.iter().enumerate() {
        count += 1;
        bytes = bytes.saturating_add(segment.bytes);
        let aged = now_ms.saturating_sub(segment.created_ms) > limits.max_age_ms;
        if count >= limits.max_segments || bytes >= limits.max_bytes || aged {
            (uploaded, count, bytes) = (index + 1, 0, 0);
        }
    }
    uploaded
}

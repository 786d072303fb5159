//! Flake ids: 41 bits of milliseconds since 2014, 10 bits of host, 13 bits of sequence.
//!
//! Ids of one source increase always, also when the clock goes back, so names in order are times in order.

/// 2014-01-01T00:00:00Z in milliseconds since 1970.
const EPOCH_MS: u64 = 1_388_534_400_000;
const TIME_SHIFT: u32 = 23;
const SEQUENCE_BITS: u32 = 13;
const HOST_MASK: u64 = 0x3FF;

/// A source of increasing ids.
#[derive(Debug, Clone)]
pub struct FlakeIds {
    host: u64,
    last: u64,
}

impl FlakeIds {
    /// Ids of this host (only ten bits count), all above `last`.
    pub fn new(host: u16, last: u64) -> Self {
        FlakeIds { host: u64::from(host) & HOST_MASK, last }
    }

    /// The next id at `now_ms` since 1970, or just behind the last one when the clock stood or went back.
    pub fn next_id(&mut self, now_ms: u64) -> u64 {
        let time = now_ms.saturating_sub(EPOCH_MS) & ((1 << 40) - 1);
        let fresh = (time << TIME_SHIFT) | (self.host << SEQUENCE_BITS);
        let mut next = if fresh > self.last { fresh } else { self.last + 1 };
        // A sequence that runs over would change the host bits: begin the next millisecond instead.
        if next >> SEQUENCE_BITS & HOST_MASK != self.host {
            next = (((self.last >> TIME_SHIFT) + 1) << TIME_SHIFT) | (self.host << SEQUENCE_BITS);
        }
        self.last = next;
        next
    }

    /// The highest id given or seen.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Ids given from now on are above `id`.
    pub fn seen(&mut self, id: u64) {
        self.last = self.last.max(id);
    }
}

/// The time in an id of a file name, in milliseconds since 1970.
pub fn created_ms(epoch: &str) -> Option<u64> {
    u64::try_from(created_ns(epoch)? / 1_000_000).ok()
}

/// The time in an id of a file name, in nanoseconds since 1970. As the reference reads it: a signed
/// number, whose low 16 bits count as nanoseconds although three of them belong to the host.
pub fn created_ns(epoch: &str) -> Option<i128> {
    let id = i64::from_str_radix(epoch, 16).ok()?;
    let ms = i128::from(EPOCH_MS) + i128::from(id >> TIME_SHIFT);
    Some(ms * 1_000_000 + i128::from(id & 0xFFFF))
}

//! The kernel log: records of `/dev/kmsg`.
//!
//! A record is `priority,sequence,microseconds,flags[,key=value…];text`, then lines ` KEY=value`. Bytes that would
//! disturb the format are escaped as `\xNN`. The device gives one record for each read, from the oldest that the ring
//! still holds; a reader that was overtaken gets `EPIPE` once and goes on with the oldest.
//!
//! Sequence numbers start again with each boot, so a position names the boot too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use logs::{Destination, Record, Value};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Priority;

/// How often the device is asked when it had nothing. Waiting on its descriptor in the runtime would take `unsafe`.
const PAUSE: Duration = Duration::from_millis(250);

/// More than the kernel puts into one record.
const MAX_RECORD: usize = 64 * 1024;

/// One record of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How urgent.
    pub priority: Priority,
    /// Which part of the system, as syslog numbers them; 0 is the kernel.
    pub facility: u32,
    /// Counts the records since boot.
    pub sequence: u64,
    /// Microseconds since boot.
    pub since_boot_us: u64,
    /// The text, without escapes.
    pub text: String,
    /// What is known about the record's device: `SUBSYSTEM`, `DEVICE`.
    pub fields: BTreeMap<String, String>,
}

/// Why a record could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// There is no `;`.
    #[error("a record of the kernel log has a prefix that ends with ';'")]
    Prefix,
    /// There are fewer than three values before the `;`.
    #[error("the prefix of a record has at least priority, sequence and time, got {0} values")]
    Values(usize),
    /// A value before the `;` is no number.
    #[error("{0} of a record is not a number: {1:?}")]
    Number(&'static str, String),
}

impl Message {
    /// Reads a record.
    ///
    /// # Errors
    /// When it does not have the form that the kernel documents.
    pub fn parse(record: &[u8]) -> Result<Message, KernelError> {
        let end = record.iter().position(|byte| *byte == b';').ok_or(KernelError::Prefix)?;
        let prefix = String::from_utf8_lossy(&record[..end]);
        let values: Vec<&str> = prefix.split(',').collect();
        let [priority, sequence, since_boot_us, ..] = values[..] else { return Err(KernelError::Values(values.len())) };
        let priority: u32 = number("the priority", priority)?;
        let mut lines = record[end + 1..].split(|byte| *byte == b'\n');
        let text = unescape(lines.next().unwrap_or_default());
        let fields = lines.filter_map(|line| {
            let (key, value) = split_once(line.strip_prefix(b" ")?, b'=')?;
            Some((unescape(key), unescape(value)))
        });
        Ok(Message {
            priority: Priority::of_pri(priority),
            facility: priority >> 3,
            sequence: number("the sequence", sequence)?,
            since_boot_us: number("the time", since_boot_us)?,
            text,
            fields: fields.collect(),
        })
    }

    /// The record as a log record; `boot_ns` is when the system booted, in nanoseconds since 1970.
    fn into_record(self, boot_ns: u64, observed: u64, destination: &Destination) -> Record {
        let mut attributes = logs::Map::from([
            ("priority".to_owned(), Value::Int(self.priority.number().into())),
            ("facility".to_owned(), Value::Int(self.facility.into())),
        ]);
        attributes.extend(self.fields.into_iter().map(|(key, value)| (key, Value::String(value))));
        let mut record = Record {
            timestamp: boot_ns.saturating_add(self.since_boot_us.saturating_mul(1000)),
            observed,
            body: Record::message(self.text),
            attributes,
            destination: Some(destination.clone()),
            ..Record::default()
        };
        self.priority.apply(&mut record);
        record
    }
}

fn number<N: std::str::FromStr>(what: &'static str, text: &str) -> Result<N, KernelError> {
    text.parse().map_err(|_| KernelError::Number(what, text.to_owned()))
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The text without its escapes; what is no escape stays as it is.
fn unescape(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                rest = after;
            }
            (b'\\', [b'x', high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
                out.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Where a reader is: the boot, and the sequence number of its last record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    version: u8,
    boot: String,
    sequence: u64,
}

const POSITION_VERSION: u8 = 1;

/// What a reader reads, and where its records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Records that are less urgent are left out.
    pub threshold: Priority,
    /// Where the records go.
    pub destination: Destination,
}

/// Time, as far as a reader needs it.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970.
    fn now_ns(&self) -> u64;
    /// Nanoseconds since boot, as the kernel stamps its records.
    fn since_boot_ns(&self) -> u64;
}

/// The system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        nanoseconds(rustix::time::ClockId::Realtime)
    }

    fn since_boot_ns(&self) -> u64 {
        nanoseconds(rustix::time::ClockId::Monotonic)
    }
}

fn nanoseconds(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Records, and the reader's position behind them.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order of the log.
    pub records: Vec<Record>,
    /// To be stored with the records, and given to the next reader.
    pub position: Vec<u8>,
    /// Records that the kernel overwrote before they were read.
    pub lost: u64,
    /// Records that could not be understood.
    pub invalid: u64,
}

/// Follows a kernel log.
pub struct Reader<C> {
    device: File,
    target: Target,
    clock: C,
    boot: String,
    /// The last record that was read or, from a position, need not be read.
    last: Option<u64>,
    buffer: Vec<u8>,
}

impl Reader<SystemClock> {
    /// Opens `/dev/kmsg`, to go on behind `position`.
    ///
    /// # Errors
    /// When the device cannot be opened: it takes the capability `CAP_SYSLOG` where `kernel.dmesg_restrict` is set.
    pub fn open(target: Target, position: Option<&[u8]>) -> io::Result<Self> {
        let device = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open("/dev/kmsg")?;
        Ok(Reader::new(device.into(), target, SystemClock, &boot_id()?, position))
    }
}

/// The kernel's name of the present boot.
///
/// # Errors
/// When `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

impl<C: Clock> Reader<C> {
    /// A reader of a non-blocking descriptor that gives one record for each read.
    #[must_use]
    pub fn new(device: OwnedFd, target: Target, clock: C, boot: &str, position: Option<&[u8]>) -> Self {
        let last = position.and_then(|bytes| position_in(bytes, boot));
        Reader { device: device.into(), target, clock, boot: boot.to_owned(), last, buffer: vec![0; MAX_RECORD] }
    }

    /// The next records, at most `max` of those that are there; waits for the first. A batch may be without records for
    /// this target and still move the position.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub async fn read(&mut self, max: usize) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut seen = 0;
        while seen < max {
            match self.read_one() {
                Ok(Some(length)) => {
                    seen += 1;
                    self.take(length, &mut batch);
                }
                // What is read is given; an error comes with the next call.
                Ok(None) | Err(_) if seen > 0 => break,
                Ok(None) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        if let Some(sequence) = self.last {
            let position = Position { version: POSITION_VERSION, boot: self.boot.clone(), sequence };
            batch.position = serde_json::to_vec(&position).map_err(io::Error::other)?;
        }
        Ok(batch)
    }

    /// The length of one record in the buffer; None when there is none.
    fn read_one(&mut self) -> io::Result<Option<usize>> {
        loop {
            match self.device.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // Overtaken: the next read gives the oldest record, and the gap shows how many were lost.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PIPE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, length: usize, batch: &mut Batch) {
        let message = match Message::parse(&self.buffer[..length]) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "a record of the kernel log was left out");
                batch.invalid += 1;
                return;
            }
        };
        if let Some(last) = self.last {
            if message.sequence <= last {
                return;
            }
            batch.lost += message.sequence - last - 1;
        }
        self.last = Some(message.sequence);
        if message.priority <= self.target.threshold {
            let now = self.clock.now_ns();
            let boot_ns = now.saturating_sub(self.clock.since_boot_ns());
            batch.records.push(message.into_record(boot_ns, now, &self.target.destination));
        }
    }
}

/// The sequence number of a position, if it is one of this boot.
fn position_in(bytes: &[u8], boot: &str) -> Option<u64> {
    match serde_json::from_slice::<Position>(bytes) {
        Ok(position) if position.version == POSITION_VERSION => (position.boot == boot).then_some(position.sequence),
        Ok(position) => {
            tracing::warn!(version = position.version, "the position in the kernel log is of a newer version: reading from the start");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the position in the kernel log is not readable: reading from the start");
            None
        }
    }
}

/// A position of the reference's cursor file (eight bytes, little endian), which does not name its boot; it is of the
/// present one if the file was written since.
///
/// `dir` is the storage directory, `database` and `table` are the target's as the configuration has them.
#[must_use]
pub fn reference_position(dir: &Path, database: &str, table: &str, boot: &str, clock: &impl Clock) -> Option<Vec<u8>> {
    let file = dir.join(reference_cursor_name(database, table));
    let written = std::fs::metadata(&file).ok()?.modified().ok()?;
    let written_ns = written.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
    let booted_ns = clock.now_ns().saturating_sub(clock.since_boot_ns());
    if written_ns < booted_ns.into() {
        return None;
    }
    let bytes: [u8; 8] = std::fs::read(&file).ok()?.try_into().ok()?;
    let position = Position { version: POSITION_VERSION, boot: boot.to_owned(), sequence: u64::from_le_bytes(bytes) };
    serde_json::to_vec(&position).ok()
}

/// `kernel_`, and the first eight bytes of SHA-256 over `<database>_<table>`, in hexadecimal.
fn reference_cursor_name(database: &str, table: &str) -> String {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(format!("{database}_{table}"));
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("kernel_{hex}")
}

#[cfg(test)]
mod tests;

//! Syslog and the kernel log: no panic, bounds kept, and the same messages however a stream is cut into pieces.

use bytes::BytesMut;
use chrono::DateTime;
use host_logs::kernel::Message;
use host_logs::syslog::{Frame, Framing, FramingError, record};
use logs::{Destination, MESSAGE};
use tokio_util::codec::Decoder;

/// Small, so that inputs reach it.
const MAX_BYTES: usize = 64;

/// The first byte is the size of the pieces, the rest a stream.
pub(crate) fn syslog(bytes: &[u8]) {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    assert_eq!(frames(stream, usize::from(size).max(1)), whole, "pieces change messages");
    let destination = Destination::new("Logs", "Syslog").expect("a destination");
    let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
    for frame in whole.0 {
        assert!(frame.bytes.len() <= MAX_BYTES, "a message longer than allowed");
        let record = record(&frame.bytes, now, &destination);
        assert!(record.body.contains_key(MESSAGE), "a record without its text");
    }
}

/// The messages, and whether the stream could be read to its end.
fn frames(stream: &[u8], size: usize) -> (Vec<Frame>, bool) {
    let (mut framing, mut buffer, mut out) = (Framing::new(MAX_BYTES), BytesMut::new(), Vec::new());
    let mut read = |buffer: &mut BytesMut, decode: fn(&mut Framing, &mut BytesMut) -> Result<Option<Frame>, FramingError>| {
        loop {
            match decode(&mut framing, buffer) {
                Ok(Some(frame)) => out.push(frame),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    };
    for piece in stream.chunks(size) {
        buffer.extend_from_slice(piece);
        if !read(&mut buffer, Framing::decode) {
            return (out, false);
        }
    }
    let ended = read(&mut buffer, Framing::decode_eof);
    (out, ended)
}

/// A record of `/dev/kmsg`.
pub(crate) fn kernel_log(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        assert!(message.priority.number() < 8);
        assert!(message.text.len() <= 3 * bytes.len(), "a text longer than its record");
    }
}

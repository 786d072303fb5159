//! Header names and media types of the transfer protocol between our own processes.

/// Media type of a body with many segments ([`crate::body`]).
pub const CONTENT_TYPE_MANY: &str = "application/vnd.adx-mon.segments";

/// On every answer of our `/transfer`, `GET` included: the newest body version the receiver reads.
/// An ingestor whose answers lack it gets one segment a request, as the reference expects.
pub const HEADER_VERSION: &str = "x-adxmon-transfer";

/// On every answer of our `/transfer`: the identity of the receiver's store, 32 hex digits. Behind
/// one URL there may be several ingestors, and only the same one knows what it has stored.
pub const HEADER_RECEIVER: &str = "x-adxmon-receiver";

/// On a request: the receiver that it is meant for. Another one answers 421 and stores nothing.
pub const HEADER_EXPECT: &str = "x-adxmon-expect-receiver";

/// On a request of an ingestor to its peer: the name of the sender. What it brings is not passed on once more.
pub const HEADER_PEER: &str = "x-adxmon-peer";

/// On a 429 answer: the database whose quota is used up.
pub const HEADER_DATABASE: &str = "x-adxmon-database";

/// Identity of a store as text.
pub(crate) fn hex(id: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*id).simple().to_string()
}

/// The reverse of [`hex`].
pub(crate) fn unhex(text: &str) -> Option<[u8; 16]> {
    uuid::Uuid::try_parse(text).ok().map(uuid::Uuid::into_bytes)
}

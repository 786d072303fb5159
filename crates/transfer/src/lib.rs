//! Segments between our own processes: a collector's to an ingestor, an ingestor's to its peer.
//!
//! Delivery between our own is exactly once, or counted. A sealed segment has a number that
//! increases per (sender, database) and a digest, and never changes; the receiver makes numbers and
//! digests durable in the same frame as the rows, so a repeated segment is recognised however it is
//! grouped into requests. Where an answer was lost, the sender asks the same receiver again for ten
//! minutes before it counts a possible duplicate and goes elsewhere.
//!
//! - [`body`]: the request body that carries many segments.
//! - [`exchange`]: a request and what its answer means, without the network.
//! - [`machine`]: what to send next, to whom, and what an answer means; no I/O, no clock.
//! - [`Sender`]: the machine with a store and HTTP around it.
//! - [`Courier`]: one segment at a time, by hand.
//! - [`receiver`]: `POST /transfer`, for our senders and for the reference's.

pub mod body;
pub mod exchange;
pub mod machine;
mod names;
pub mod receiver;
mod sender;

pub use names::{CONTENT_TYPE_MANY, HEADER_DATABASE, HEADER_EXPECT, HEADER_PEER, HEADER_RECEIVER, HEADER_VERSION};
pub use sender::{Courier, Credentials, Delivery, DrainReport, Endpoints, Router, Sender, SenderOptions, SenderStatus, may_carry_token};

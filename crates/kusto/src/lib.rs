//! Client of Kusto's REST protocol, as Azure Data Explorer, its emulator and kustd speak it:
//! queries (`/v2/rest/query`), whole or row by row, management commands (`/v1/rest/mgmt`), streaming ingestion
//! (`/v1/rest/ingest`) and, through the service's storage, [`queued`] ingestion.
//!
//! What every call shares:
//! - one deadline, sent to the service as `servertimeout` and kept on this side too;
//! - retries with back-off and jitter of what is known to be safe to repeat, never past the
//!   deadline, and never sooner than the service's `Retry-After`;
//! - errors that say whether repeating can help and whether the request may have been carried out;
//! - to https endpoints of Azure, and others that are named as trusted, a current token of Azure or a bearer token; to http
//!   endpoints none;
//! - cancellation by dropping the future: the connection is closed, and nothing is sent any more.
//!
//! Text that goes into KQL is built with [`text`], so that no name or value can change a statement.

mod answer;
mod audience;
mod client;
mod credentials;
mod endpoint;
mod error;
pub mod queued;
mod refusal;
mod retry;
mod rows;
pub mod text;
mod trusted;

pub use answer::{Column, Dataset, Table};
pub use client::{BatchId, Client, ClientBuilder, Format, QueryOptions, StreamOptions};
pub use endpoint::Endpoint;
pub use error::{Delivery, Error, Kind, Position, with_causes};
pub use retry::RetryPolicy;
pub use rows::RowStream;
pub use trusted::TrustedHost;

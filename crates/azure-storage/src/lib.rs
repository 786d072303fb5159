//! The few operations on Azure Storage that queued ingestion needs, as REST requests to addresses that carry a shared access
//! signature (SAS):
//! - blobs: [`Storage::put_block`], [`Storage::put_block_list`], [`Storage::get_blob`], [`Storage::delete_blob`];
//! - queues: [`Storage::put_message`], [`Storage::get_messages`], [`Storage::delete_message`];
//! - tables: [`Storage::insert_entity`], [`Storage::merge_entity`], [`Storage::get_entity`];
//! - [`Account`] makes such addresses from an account's key, and the containers, queues and tables behind them.
//!
//! A [`Resource`] is one container, queue or table with its signature. The signature is shown by no `Debug`, `Display` or
//! error; who needs it asks for [`Resource::with_sas`].
//!
//! Requests that change nothing when repeated are repeated after transient failures, others only when they are known not
//! to have been carried out: see [`Retry`].

mod account;
mod blob;
mod client;
mod error;
mod queue;
mod resource;
mod table;

pub use account::{Account, Permissions};
pub use blob::Download;
pub use client::{Retry, Storage};
pub use error::{Delivery, Error};
pub use queue::{LONGEST_MESSAGE, Message};
pub use resource::Resource;

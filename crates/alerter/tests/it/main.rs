//! The alerter against the reference's recorded behaviour, and end to end with a scripted Kusto and receiver.
#![allow(clippy::unwrap_used)]

mod api_away;
mod bad_input;
mod end_to_end;
mod fake;
mod lint;
mod notifications;
mod process;
mod query;
mod retries;
mod statuses;
mod support;
mod takeover;
mod world;

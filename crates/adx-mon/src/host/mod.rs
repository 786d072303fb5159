//! What `adx-mon up` shows of the machine it runs on, so that there is something to see at once.
//!
//! [`metrics`] is a scrape target with CPU, memory, disk and network; [`logs`] follows the journal or the log files and
//! sends them to the collector as OTLP. Both go the way that anybody's telemetry goes.

pub(crate) mod logs;
pub(crate) mod metrics;

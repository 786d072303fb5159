//! The collector: the node agent that receives and scrapes telemetry, makes it durable and sends it
//! to an ingestor.
//!
//! [`Config::from_toml`] reads the configuration, [`start`] runs it until a token is cancelled and
//! then drains; a [`Reloader`] gives it another configuration meanwhile. The binary `collector` is a
//! thin shell around the two; `adx-mon up` is another.

mod authentication;
mod cluster;
pub mod config;
mod debug;
mod exporting;
mod identity;
mod limits;
mod listeners;
mod logs;
mod metrics;
mod node_labels;
mod otlp_logs;
mod pipeline;
mod pods;
mod reload;
mod run;
mod scrape;

pub use config::{Config, ConfigError, Warning};
pub use reload::{Reloaded, Reloader};
pub use run::{Running, start};

//! OTLP logs through transforms: requests become records, and records rows.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use logs::{Batch, Encoder, NoRow, Transforms, otlp_records};
use parking_lot::Mutex;
use server::receive::LogDecoder;
use telemetry::{Added, DecodeError, Encoding, Outcome, RowSet};

use crate::config::LogSource;
use crate::metrics::Metrics;

/// The source's name in metrics.
pub(crate) const OTLP_LOGS: &str = "otlp-logs";

/// Clones of the transforms that wait for a request.
const MAX_IDLE: usize = 16;

/// A source of OTLP logs that has transforms.
pub(crate) struct TransformedLogs {
    transforms: Transforms,
    /// Clones that no request uses: what they have learnt (routes, compiled patterns) serves the next one.
    idle: Mutex<Vec<Transforms>>,
    encoder: Encoder,
    default_database: Option<String>,
    default_table: Option<String>,
    metrics: Arc<Metrics>,
}

impl TransformedLogs {
    /// `added` are the attributes set on every resource.
    pub(crate) fn new(source: &LogSource, added: Added, metrics: Arc<Metrics>) -> Self {
        let options = source.options.clone();
        TransformedLogs {
            transforms: source.transforms.clone(),
            idle: Mutex::default(),
            encoder: Encoder::new(added, options.lift_resources),
            default_database: options.default_database,
            default_table: options.default_table,
            metrics,
        }
    }
}

impl LogDecoder for TransformedLogs {
    fn decode_logs(&self, body: &[u8], encoding: Encoding, rows: &mut RowSet) -> Result<Outcome, DecodeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let idle = self.idle.lock().pop();
        let mut transforms = idle.unwrap_or_else(|| self.transforms.clone());
        let mut batch = Batch::reusing(&self.encoder, std::mem::take(rows));
        let default = (self.default_database.as_deref(), self.default_table.as_deref());
        let decoded = otlp_records(body, encoding, now, default, |mut record, outcome| {
            if !transforms.apply(&mut record, now) {
                outcome.filtered += 1;
                return;
            }
            match batch.record(&record) {
                Ok(()) => outcome.accepted += 1,
                Err(why) => {
                    outcome.unrouted += u64::from(why == NoRow::Unrouted);
                    outcome.reject(1, || why.to_string());
                }
            }
        });
        (*rows, _) = batch.finish();
        self.metrics.transformed(OTLP_LOGS, &mut transforms);
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(transforms);
        }
        decoded
    }
}

//! Samples of a buffer as OTLP metrics.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use telemetry::export::SeriesKind;

use super::batch::PointId;
use super::{Batcher, Encoded, PushConfig, PushError, Pusher};
use crate::attempt::{Failure, Pushed};
use crate::exporter::{Added, Client, Origin};
use crate::samples::{Line, Samples};

/// Sends samples to an OTLP receiver.
#[derive(Debug)]
pub struct OtlpMetrics {
    pusher: Pusher,
    /// Whether totals are sums where the source says so; otherwise everything is a gauge, as the reference sends it.
    typed: bool,
    batcher: Batcher,
    ready: VecDeque<Encoded>,
    samples: Samples,
    /// The last point of each series in the batch that is being made, by a hash: exemplars may come behind it.
    points: HashMap<u64, PointId>,
    hash: RandomState,
}

impl OtlpMetrics {
    /// Checks the endpoint; nothing is sent yet.
    ///
    /// # Errors
    /// [`PushError::Endpoint`].
    pub fn new(config: PushConfig, typed: bool) -> Result<OtlpMetrics, PushError> {
        let pusher = Pusher::new(config)?;
        Ok(OtlpMetrics {
            batcher: pusher.batcher(),
            pusher,
            typed,
            ready: VecDeque::new(),
            samples: Samples::default(),
            points: HashMap::new(),
            hash: RandomState::new(),
        })
    }
}

impl Client for OtlpMetrics {
    fn add(&mut self, _: Origin<'_>, row: &[u8]) -> Added {
        let Some(Line { timestamp_ms, value, exemplars, text, series, .. }) = self.samples.read(row) else { return Added::Skipped };
        let hash = self.hash.hash_one(text);
        let Some(value) = value else {
            let point = self.points.get(&hash).copied();
            let taken = point.is_some_and(|point| self.batcher.add_exemplars(point, &exemplars));
            return if taken { Added::Taken } else { Added::Skipped };
        };
        let labels = series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let kind = if self.typed { series.kind } else { SeriesKind::Gauge };
        let time_ms = u64::try_from(timestamp_ms).unwrap_or_default();
        let full = self.batcher.add_to_metric((&series.metric, kind), labels, (time_ms, value), &exemplars);
        if full.is_some() {
            self.points.clear();
        }
        self.points.extend(self.batcher.last_point().map(|point| (hash, point)));
        match full {
            Some(batch) => {
                self.ready.push_back(self.pusher.encode(batch));
                Added::Ready
            }
            None => Added::Taken,
        }
    }

    fn finish(&mut self) {
        self.points.clear();
        self.ready.extend(self.batcher.take().map(|batch| self.pusher.encode(batch)));
    }

    fn ready(&self) -> u64 {
        self.ready.front().map_or(0, Encoded::points)
    }

    async fn send(&mut self) -> Result<Pushed, Failure> {
        let Some(encoded) = self.ready.front() else { return Ok(Pushed::default()) };
        let pushed = self.pusher.try_push(encoded).await?;
        self.ready.pop_front();
        Ok(pushed)
    }

    fn discard(&mut self) {
        self.ready.pop_front();
    }
}

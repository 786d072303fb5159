//! What one query may use: memory, time, and the size of its answer.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use kql::rows::Interrupted;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::error::EngineError;

/// Kusto's default limit on the rows of an answer.
const DEFAULT_ROWS: u64 = 500_000;
/// Kusto's default limit on the bytes of an answer.
const DEFAULT_BYTES: u64 = 64 << 20;
/// Kusto's default time limit.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(240);
const DEFAULT_MEMORY: usize = 1 << 30;

/// What an answer lacks, to be told with it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

/// Most warnings of one answer.
const MOST_WARNINGS: usize = 100;

impl Warnings {
    /// Adds one, unless it is there.
    pub fn add(&self, warning: String) {
        let mut all = self.0.lock();
        if all.len() < MOST_WARNINGS && !all.contains(&warning) {
            tracing::warn!(warning, "an answer is not complete");
            all.push(warning);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// Limits of one query.
#[derive(Debug, Clone)]
pub struct QueryLimits {
    /// Bytes that operators may hold at a time; sorts, joins and aggregations spill to disk beyond.
    pub memory: usize,
    /// Most rows of one result table; None: as many as there are (`notruncation`).
    pub max_rows: Option<u64>,
    /// Most bytes of one result table in memory; None: no limit.
    pub max_bytes: Option<u64>,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Cancels from outside; dropping the future of the run does the same.
    pub cancel: CancellationToken,
    /// The value of `now()`: ticks, one for the whole query.
    pub now: i64,
    /// What the answer lacks.
    pub warnings: Warnings,
    /// Clusters that the query has come through.
    pub hops: u32,
    /// Whether the query asks other clusters. Clones share it.
    pub reaches_out: Arc<AtomicBool>,
    /// Whether queries over a few constant rows may skip the plan and run row by row. On unless a test compares
    /// the two ways.
    pub row_shortcut: bool,
}

impl QueryLimits {
    /// Kusto's defaults: 500,000 rows, 64 MB, four minutes, and 1 GiB of memory.
    pub fn new(now: i64) -> Self {
        QueryLimits {
            memory: DEFAULT_MEMORY,
            max_rows: Some(DEFAULT_ROWS),
            max_bytes: Some(DEFAULT_BYTES),
            deadline: Some(Instant::now() + DEFAULT_TIMEOUT),
            cancel: CancellationToken::new(),
            now,
            warnings: Warnings::default(),
            hops: 0,
            reaches_out: Arc::default(),
            row_shortcut: true,
        }
    }

    /// The same without limits on the size of the answer (`set notruncation`).
    #[must_use]
    pub fn without_truncation(self) -> Self {
        QueryLimits { max_rows: None, max_bytes: None, ..self }
    }

    /// For work that does not wait for anything: whether it is to stop.
    pub(super) fn interruption(&self) -> Interrupted {
        let (deadline, cancel) = (self.deadline, self.cancel.clone());
        Box::new(move || cancel.is_cancelled() || deadline.is_some_and(|deadline| Instant::now() >= deadline))
    }

    /// The memory pool and scratch space of one query.
    pub(super) fn environment(&self) -> Result<Arc<RuntimeEnv>, EngineError> {
        // Names the largest consumers in the error, so that people see which operator to narrow.
        let top = const { NonZeroUsize::new(3).expect("three is not zero") };
        let pool: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(FairSpillPool::new(self.memory), top));
        Ok(RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?)
    }
}

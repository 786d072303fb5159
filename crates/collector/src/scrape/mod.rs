//! Scraping of static targets: each target on its own schedule, so that a slow one delays nobody.
//!
//! A scrape is one page at one instant. Its samples go to the store in batches, so that a page of
//! any size takes little memory. Each scrape also writes `up`, `scrape_duration_seconds` and
//! `scrape_samples_scraped`, as Prometheus does. While the store refuses data, scrapes are skipped
//! and counted: a page of now is of no use later.

mod fetch;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use server::Sink;
use telemetry::{MetricIntake, PageProgress, Reading, RowSet, ScrapedPage};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{ScrapeSettings, ScrapeTarget};
use crate::metrics::{Metrics, ScrapeResult};
use fetch::{Fetcher, Page};

/// The first scrape of a target comes within this time of the start.
const FIRST_SCRAPE_WITHIN: Duration = Duration::from_secs(5);

/// What the targets of one collector share.
pub(crate) struct Scraper {
    pub(crate) settings: ScrapeSettings,
    pub(crate) intake: MetricIntake,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Scrapes all targets until `stop`.
///
/// # Errors
/// When no HTTP client can be made (no trusted certificates on this system, say).
pub(crate) fn start(scraper: Scraper, stop: &CancellationToken) -> anyhow::Result<JoinSet<()>> {
    let scraper = Arc::new(scraper);
    let mut tasks = JoinSet::new();
    for target in scraper.settings.targets.clone() {
        let target = Target::new(target, scraper.settings.timeout)?;
        let (scraper, stop) = (Arc::clone(&scraper), stop.clone());
        tasks.spawn(async move { scraper.run(target, &stop).await });
    }
    Ok(tasks)
}

struct Target {
    url: String,
    fetcher: Fetcher,
    /// Labels of every scraped series.
    labels: Vec<(String, String)>,
    /// Labels of the series about the scrape.
    instance: String,
    job: String,
}

impl Target {
    fn new(target: ScrapeTarget, timeout: Duration) -> anyhow::Result<Target> {
        let fetcher = Fetcher::new(&target.url, timeout)?;
        let labels = [("namespace", &target.namespace), ("pod", &target.pod), ("container", &target.container)];
        Ok(Target {
            labels: labels.into_iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (format!("adxmon_{n}"), v.clone())).collect(),
            instance: fetcher.instance(),
            job: format!("{}/{}", target.namespace, target.container),
            url: target.url,
            fetcher,
        })
    }

    /// A fixed place between 0 and 1 in the interval, so that targets are spread.
    fn phase(&self) -> f64 {
        let hash = xxhash_rust::xxh64::xxh64(self.url.as_bytes(), std::process::id().into());
        (hash >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Scraper {
    async fn run(&self, target: Target, stop: &CancellationToken) {
        let first = self.settings.interval.min(FIRST_SCRAPE_WITHIN).mul_f64(target.phase());
        let mut schedule = tokio::time::interval_at(Instant::now() + first, self.settings.interval);
        // A scrape that took too long skips its successors rather than bunching them.
        schedule.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while stop.run_until_cancelled(schedule.tick()).await.is_some() {
            if stop.run_until_cancelled(self.scrape(&target)).await.is_none() {
                return;
            }
        }
    }

    async fn scrape(&self, target: &Target) {
        let result = match self.sink.ready() {
            Err(reason) => {
                tracing::warn!(url = target.url, reason, "scrape skipped");
                "skipped"
            }
            Ok(()) => self.scrape_now(target).await,
        };
        self.metrics.scrapes.get_or_create(&ScrapeResult { result }).inc();
    }

    async fn scrape_now(&self, target: &Target) -> &'static str {
        let (started, now_ms) = (Instant::now(), now_ms());
        let (result, scraped) = match target.fetcher.fetch().await {
            Ok(page) => self.store_page(target, &page, now_ms).await,
            Err(error) => {
                tracing::warn!(url = target.url, %error, "scrape failed");
                ("failed", None)
            }
        };
        let duration = started.elapsed();
        self.store_report(target, now_ms, duration, scraped).await;
        result
    }

    /// Stores a page batch by batch; gives the result and the number of samples, if all were stored.
    async fn store_page(&self, target: &Target, page: &Page, now_ms: i64) -> (&'static str, Option<u64>) {
        let page = ScrapedPage { body: &page.body, format: page.format, target_labels: &target.labels, now_ms };
        let mut progress = PageProgress::default();
        let mut samples = 0;
        let mut rejected = 0;
        while !progress.is_done() {
            let mut rows = RowSet::new();
            let batch = self.settings.batch_samples as u64;
            let outcome = server::receive::on_this_task(self.settings.batch_samples * 100, || {
                self.intake.scrape_part(&page, &mut progress, Reading::Samples, batch, &mut rows)
            });
            if let Some(reason) = &outcome.first_error
                && rejected == 0
            {
                tracing::warn!(url = target.url, reason, "a scraped line cannot be used");
            }
            samples += outcome.accepted + outcome.filtered;
            rejected += outcome.rejected;
            if let Err(error) = self.sink.commit(rows, outcome.filtered).await {
                tracing::warn!(url = target.url, %error, samples, "scraped samples were not stored");
                return ("refused", None);
            }
        }
        self.metrics.samples_rejected.inc_by(rejected);
        ("ok", Some(samples))
    }

    /// Writes `up` and its companions.
    async fn store_report(&self, target: &Target, now_ms: i64, duration: Duration, scraped: Option<u64>) {
        let mut labels: Vec<(&str, &str)> = target.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        labels.extend([("instance", target.instance.as_str()), ("job", target.job.as_str())]);
        let mut rows = RowSet::new();
        let mut put = |name, value| self.intake.sample(name, &labels, now_ms, value, &mut rows);
        put("up", f64::from(u8::from(scraped.is_some())));
        put("scrape_duration_seconds", duration.as_secs_f64());
        put("scrape_samples_scraped", scraped.unwrap_or(0) as f64);
        if let Err(error) = self.sink.commit(rows, 0).await {
            tracing::warn!(url = target.url, %error, "the result of a scrape was not stored");
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

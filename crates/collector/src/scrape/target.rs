//! One target: its scrapes, one after the other, and what is told of them.
//!
//! A page goes to the store in batches, so that one of any size takes little memory. Each scrape also writes `up`,
//! `scrape_duration_seconds`, `scrape_samples_scraped` and `scrape_samples_post_metric_relabeling` as Prometheus does, past
//! the drop and keep filters: whoever drops metrics does not mean to lose sight of the target.
//!
//! Series that were on the last page and are not on this one have ended, as all have when the scrape fails or the target is
//! gone. Exporters are told by stale markers, whose labels come from the last page: it is kept, compressed, where somebody
//! wants markers, and nowhere else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use server::Refused;
use telemetry::{ExpositionFormat, PageProgress, Reading, RowSet, STALE, ScrapedPage, SeriesSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::board::{Health, Last, Status};
use super::fetch::Page;
use super::{Scraper, now_ms, schedule};
use crate::config::{ScrapeTarget, settings};

/// Larger pages are not kept, and what has ended on them is not told.
const MAX_KEPT_PAGE: usize = 32 << 20;

/// Before rows that the store refused are offered again, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A target and what was last seen of it.
pub(super) struct Target {
    pub(super) target: ScrapeTarget,
    pub(super) status: Arc<Status>,
    interval: Duration,
    timeout: Duration,
    /// Labels of every scraped series.
    labels: Vec<(String, String)>,
    /// Labels of the series about the scrape.
    own_labels: Vec<(String, String)>,
    last_page: Option<LastPage>,
    /// Whether `up` was written.
    reported: bool,
}

/// The page before, for the labels of what has ended.
struct LastPage {
    compressed: Vec<u8>,
    format: ExpositionFormat,
    series: SeriesSet,
}

/// What a scrape gave.
#[derive(Debug, Default)]
struct Scraped {
    samples: u64,
    /// Those that the filters left.
    stored: u64,
    bad_lines: u64,
    bad_line: Option<String>,
}

/// Why a scrape gave nothing.
enum Failed {
    /// The target is down.
    Down(String),
    /// The store took nothing.
    Refused(String),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Failed::Refused(refused.to_string())
    }
}

impl Target {
    pub(super) fn new(target: ScrapeTarget, status: Arc<Status>, scraper: &Scraper) -> Target {
        let interval = target.interval.unwrap_or(scraper.settings.interval);
        let named = [("namespace", &target.namespace), ("pod", &target.pod), ("container", &target.container)];
        let labels: Vec<_> = named.into_iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (format!("adxmon_{n}"), v.clone())).collect();
        let mut own_labels = labels.clone();
        own_labels.extend(instance_and_job(&target));
        let timeout = scraper.settings.timeout.min(interval);
        Target { target, status, interval, timeout, labels, own_labels, last_page: None, reported: false }
    }

    /// Scrapes until the target is `gone`, which ends its series, or until `stop`, which does not.
    pub(super) async fn run(mut self, scraper: &Scraper, gone: &CancellationToken, stop: &CancellationToken) {
        let first = Instant::now() + schedule::delay(&self.target.url, &scraper.node, self.interval, now_ms());
        let mut ticks = tokio::time::interval_at(first, self.interval);
        // A scrape that took too long skips its successors rather than bunching them.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let scraped = async {
                ticks.tick().await;
                self.scrape(scraper).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = gone.cancelled() => break,
                () = scraped => {}
            }
        }
        self.ended(scraper).await;
    }

    async fn scrape(&mut self, scraper: &Scraper) {
        self.status.update(|last| last.next = Some(SystemTime::now() + self.interval));
        let Ok(Ok(_slot)) = tokio::time::timeout(self.interval, scraper.slots.acquire()).await else {
            return self.skipped(scraper, "too many other targets are being scraped".to_owned());
        };
        match scraper.sink.ready() {
            Err(reason) => self.skipped(scraper, reason),
            Ok(()) => self.scrape_now(scraper).await,
        }
    }

    pub(super) async fn scrape_now(&mut self, scraper: &Scraper) {
        let (started, now_ms) = (Instant::now(), now_ms());
        let scraped = match scraper.fetcher.fetch(&self.target, self.timeout).await {
            Ok(page) => self.store_page(scraper, page, now_ms, started + self.interval).await,
            Err(error) => Err(Failed::Down(error.to_string())),
        };
        if let Err(Failed::Down(_)) = &scraped {
            self.end_series(scraper, &SeriesSet::default(), now_ms).await;
            self.last_page = None;
        }
        let duration = started.elapsed();
        self.report(scraper, now_ms, duration, scraped.as_ref().ok()).await;
        self.show(scraper, duration, scraped);
    }

    /// Stores a page batch by batch; what the store has no room for is offered again until the next scrape is due.
    async fn store_page(&mut self, scraper: &Scraper, page: Page, now_ms: i64, due: Instant) -> Result<Scraped, Failed> {
        check_samples(&page, scraper.settings.max_samples)?;
        let mut series = scraper.intake.wants_stale_markers().then(SeriesSet::default);
        let honor_labels = scraper.settings.honor_labels;
        let scraped_page = ScrapedPage { body: &page.body, format: page.format, target_labels: &self.labels, honor_labels, now_ms };
        let mut progress = PageProgress::default();
        let mut scraped = Scraped::default();
        while !progress.is_done() {
            let before = progress.clone();
            let mut rows = RowSet::new();
            let batch = scraper.settings.batch_samples;
            // A sample takes some 100 bytes of a page.
            let outcome = server::receive::on_this_task(batch * 100, || {
                let reading = series.as_mut().map_or(Reading::Samples, Reading::Noting);
                scraper.intake.scrape_part(&scraped_page, &mut progress, reading, batch as u64, &mut rows)
            });
            match scraper.sink.commit(rows, outcome.filtered).await {
                Ok(()) => {
                    scraped.samples += outcome.accepted + outcome.filtered;
                    scraped.stored += outcome.accepted;
                    scraped.bad_lines += outcome.rejected;
                    scraped.bad_line = scraped.bad_line.or(outcome.first_error);
                }
                // The page is still here: what was refused is read from it once more.
                Err(Refused::Overloaded { retry_after, .. }) if Instant::now() < due => {
                    tokio::time::sleep(retry_after.min(LONGEST_PAUSE)).await;
                    progress = before;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        if let Some(mut series) = series {
            series.finish();
            if self.last_page.as_ref().is_some_and(|last| last.series.lost_any(&series)) {
                self.end_series(scraper, &series, now_ms).await;
            }
            self.last_page = self.keep(&page, series);
        }
        Ok(scraped)
    }

    /// The page for the next time, unless it is too large.
    fn keep(&self, page: &Page, series: SeriesSet) -> Option<LastPage> {
        if page.body.len() > MAX_KEPT_PAGE || series.is_overflowed() {
            tracing::debug!(url = self.target.url, bytes = page.body.len(), "the page is too large to tell which of its series end");
            return None;
        }
        let compressed = snap::raw::Encoder::new().compress_vec(&page.body).ok()?;
        Some(LastPage { compressed, format: page.format, series })
    }

    /// Writes stale markers for the series of the last page that are not `alive`.
    async fn end_series(&self, scraper: &Scraper, alive: &SeriesSet, now_ms: i64) {
        let Some(last) = &self.last_page else { return };
        let Ok(body) = snap::raw::Decoder::new().decompress_vec(&last.compressed) else { return };
        let honor_labels = scraper.settings.honor_labels;
        let page = ScrapedPage { body: &body, format: last.format, target_labels: &self.labels, honor_labels, now_ms };
        let mut progress = PageProgress::default();
        while !progress.is_done() {
            let mut rows = RowSet::new();
            let batch = scraper.settings.batch_samples as u64;
            let outcome = scraper.intake.scrape_part(&page, &mut progress, Reading::Ended(alive), batch, &mut rows);
            if let Err(error) = scraper.sink.commit(rows, outcome.filtered).await {
                tracing::warn!(url = self.target.url, %error, "the end of series was not stored");
                return;
            }
        }
    }

    /// The target is gone, and with it all its series.
    async fn ended(&self, scraper: &Scraper) {
        let now_ms = now_ms();
        self.end_series(scraper, &SeriesSet::default(), now_ms).await;
        if self.reported && scraper.intake.wants_stale_markers() {
            self.write_report(scraper, now_ms, [STALE; 4]).await;
        }
    }

    async fn report(&mut self, scraper: &Scraper, now_ms: i64, duration: Duration, scraped: Option<&Scraped>) {
        let up = f64::from(u8::from(scraped.is_some()));
        let (samples, stored) = scraped.map_or((0, 0), |scraped| (scraped.samples, scraped.stored));
        self.write_report(scraper, now_ms, [up, duration.as_secs_f64(), samples as f64, stored as f64]).await;
        self.reported = true;
    }

    async fn write_report(&self, scraper: &Scraper, now_ms: i64, values: [f64; 4]) {
        const NAMES: [&str; 4] = ["up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling"];
        let labels: Vec<(&str, &str)> = self.own_labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut rows = RowSet::new();
        for (name, value) in NAMES.into_iter().zip(values) {
            scraper.intake.sample(name, &labels, now_ms, value, &mut rows);
        }
        if let Err(error) = scraper.sink.commit(rows, 0).await {
            tracing::warn!(url = self.target.url, %error, "the result of a scrape was not stored");
        }
    }

    fn skipped(&self, scraper: &Scraper, reason: String) {
        scraper.count("skipped");
        self.tell(|last| last.error = Some(format!("skipped: {reason}")));
    }

    /// Counts, and shows how the target is.
    fn show(&self, scraper: &Scraper, duration: Duration, scraped: Result<Scraped, Failed>) {
        scraper.count(match &scraped {
            Ok(_) => "ok",
            Err(Failed::Down(_)) => "failed",
            Err(Failed::Refused(_)) => "refused",
        });
        if let Ok(Scraped { bad_lines, .. }) = &scraped {
            scraper.metrics.samples_rejected.inc_by(*bad_lines);
            if *bad_lines > 0 {
                scraper.count_bad_lines(&self.target, *bad_lines);
            }
        }
        self.tell(|last| {
            (last.at, last.duration) = (Some(SystemTime::now()), duration);
            match scraped {
                Ok(Scraped { samples, bad_lines, bad_line, .. }) => {
                    (last.health, last.error) = (Health::Up, None);
                    (last.samples, last.bad_lines, last.bad_line) = (samples, bad_lines, bad_line);
                }
                Err(Failed::Down(error)) => (last.health, last.error, last.samples) = (Health::Down, Some(error), 0),
                Err(Failed::Refused(error)) => last.error = Some(format!("the samples were not stored: {error}")),
            }
        });
    }

    /// Changes the status; what is different then from before goes to the log, and only that.
    fn tell(&self, change: impl FnOnce(&mut Last)) {
        let (before, after) = self.status.update(|last| {
            let before = last.clone();
            change(last);
            (before, last.clone())
        });
        let ScrapeTarget { url, namespace, pod, .. } = &self.target;
        match (&before.error, &after.error) {
            (None, Some(error)) => tracing::warn!(url, namespace, pod, error, "a target cannot be scraped"),
            (Some(_), None) => tracing::info!(url, namespace, pod, "a target can be scraped again"),
            _ => {}
        }
        match (before.bad_lines, after.bad_lines, &after.bad_line) {
            (0, lines @ 1.., Some(reason)) => tracing::warn!(url, namespace, pod, lines, reason, "scraped lines cannot be used"),
            (1.., 0, _) => tracing::info!(url, namespace, pod, "all scraped lines can be used again"),
            _ => {}
        }
    }
}

/// `instance` and `job`, as Prometheus names them.
pub(super) fn instance_and_job(target: &ScrapeTarget) -> [(String, String); 2] {
    let instance = settings::http_url(&target.url).as_ref().map(instance).unwrap_or_default();
    [("instance".to_owned(), instance), ("job".to_owned(), format!("{}/{}", target.namespace, target.container))]
}

/// Host and port.
fn instance(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Refuses a page of too many samples before anything of it is stored.
fn check_samples(page: &Page, max: u64) -> Result<(), Failed> {
    if max == 0 {
        return Ok(());
    }
    let samples = page.format.count_samples(&page.body);
    if samples > max {
        return Err(Failed::Down(format!("the page has {samples} samples, sample-limit is {max}")));
    }
    Ok(())
}

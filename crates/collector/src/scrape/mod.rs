//! Scraping: targets of annotated pods and Services of this node, and static ones.
//!
//! Each target has its own place in time ([`schedule`]) and its own task ([`target`]), so that a slow one delays nobody. The
//! targets follow the pods: one that is no longer annotated, has completed or is being deleted is scraped no more. While
//! the store refuses data, scrapes are skipped and counted: a page of now is of no use later.

mod board;
mod fetch;
mod page;
mod schedule;
mod target;
mod targets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use server::Sink;
use telemetry::MetricIntake;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::kubernetes::SERVICE_ACCOUNT;
use crate::config::{ScrapeSettings, ScrapeTarget};
use crate::metrics::{Metrics, ScrapeResult, TargetUrl};
use crate::pods::{Pods, Services};
use fetch::Fetcher;
use target::Target;
use targets::{Dropped, Found};

pub(crate) use board::Board;
pub(crate) use page::router;

/// Scrapes at a time. A node has some 250 pods, so this is reached only when very many targets hang.
const MAX_CONCURRENT: usize = 256;

/// What the targets of one collector share.
pub(crate) struct Scraper {
    settings: ScrapeSettings,
    node: String,
    intake: MetricIntake,
    sink: Arc<dyn Sink>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    fetcher: Fetcher,
    slots: Semaphore,
}

/// What is discovered; none of what is not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Discovered {
    pub(crate) pods: Option<watch::Receiver<Pods>>,
    pub(crate) services: Option<watch::Receiver<Services>>,
}

impl Scraper {
    pub(crate) fn new(settings: ScrapeSettings, node: String, intake: MetricIntake, sink: Arc<dyn Sink>, metrics: Arc<Metrics>) -> Self {
        let fetcher = Fetcher::new(settings.max_page_bytes, settings.protobuf, Path::new(SERVICE_ACCOUNT));
        let intake = intake.store_stale_markers(settings.store_stale_markers);
        Scraper { settings, node, intake, sink, metrics, board: Arc::default(), fetcher, slots: Semaphore::new(MAX_CONCURRENT) }
    }

    /// The state of the targets.
    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    fn count(&self, result: &'static str) {
        self.metrics.scrapes.get_or_create(&ScrapeResult { result }).inc();
    }

    fn count_bad_lines(&self, target: &ScrapeTarget, lines: u64) {
        self.metrics.bad_lines.get_or_create(&TargetUrl { url: target.url.clone() }).inc_by(lines);
    }

    /// All targets of now, and what is not scraped.
    fn wanted(&self, pods: &Pods, services: &Services) -> Found {
        let mut all = Found { targets: self.settings.targets.clone(), dropped: Vec::new() };
        let mut urls: HashSet<String> = all.targets.iter().map(|target| target.url.clone()).collect();
        let mut add = |found: Found| {
            // A page is scraped once, whoever asks for it.
            all.targets.extend(found.targets.into_iter().filter(|target| urls.insert(target.url.clone())));
            all.dropped.extend(found.dropped);
        };
        pods.by_uid.values().for_each(|pod| add(targets::of_pod(pod)));
        for service in services.values() {
            add(targets::of_service(service, pods.by_uid.values().map(|pod| &**pod)));
        }
        all
    }
}

/// Scrapes until `stop`.
pub(crate) fn start(scraper: Scraper, discovered: Discovered, stop: &CancellationToken) -> JoinSet<()> {
    let mut sources = JoinSet::new();
    sources.spawn(follow(Arc::new(scraper), discovered, stop.clone()));
    sources
}

/// Starts and ends targets as they come and go.
async fn follow(scraper: Arc<Scraper>, mut discovered: Discovered, stop: CancellationToken) {
    let mut running: BTreeMap<ScrapeTarget, CancellationToken> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let pods = discovered.pods.as_mut().map(|pods| pods.borrow_and_update().clone()).unwrap_or_default();
        let services = discovered.services.as_mut().map(|services| services.borrow_and_update().clone()).unwrap_or_default();
        let found = scraper.wanted(&pods, &services);
        tell_dropped(&scraper.board.dropped(), &found.dropped);
        scraper.metrics.scrape_targets.set(i64::try_from(found.targets.len()).unwrap_or(i64::MAX));
        scraper.metrics.scrape_targets_dropped.set(i64::try_from(found.dropped.len()).unwrap_or(i64::MAX));
        scraper.board.drop_these(found.dropped);
        running.retain(|target, gone| {
            let stays = found.targets.contains(target);
            if !stays {
                tracing::info!(url = target.url, namespace = target.namespace, pod = target.pod, "a target is scraped no more");
                gone.cancel();
                scraper.board.remove(target);
                scraper.metrics.bad_lines.remove(&TargetUrl { url: target.url.clone() });
            }
            stays
        });
        for target in found.targets {
            if !running.contains_key(&target) {
                tracing::info!(url = target.url, namespace = target.namespace, pod = target.pod, "a target is scraped from now on");
                let gone = CancellationToken::new();
                running.insert(target.clone(), gone.clone());
                let target = show(&scraper, target);
                let (scraper, stop) = (Arc::clone(&scraper), stop.clone());
                tasks.spawn(async move { target.run(&scraper, &gone, &stop).await });
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = changed(&mut discovered.pods) => {}
            () = changed(&mut discovered.services) => {}
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

/// Puts a target on the board.
fn show(scraper: &Scraper, target: ScrapeTarget) -> Target {
    let interval = target.interval.unwrap_or(scraper.settings.interval);
    let next = SystemTime::now() + schedule::delay(&target.url, &scraper.node, interval, now_ms());
    let status = scraper.board.add(&target, next);
    Target::new(target, status, scraper)
}

/// Waits for a change; for ever where there is nothing to change.
async fn changed<T>(receiver: &mut Option<watch::Receiver<T>>) {
    match receiver {
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

/// Says once of what is asked for and is not scraped.
fn tell_dropped(before: &[Dropped], now: &[Dropped]) {
    for dropped in now.iter().filter(|dropped| !before.contains(dropped)) {
        let Dropped { kind, namespace, name, reason } = dropped;
        tracing::warn!(kind, namespace, name, reason, "annotations ask for a target that is not scraped");
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

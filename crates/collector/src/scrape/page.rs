//! `/targets`: how each target is and why it is down, as a page and as JSON; `/api/v1/targets` in the shape of Prometheus.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::board::{Board, Health, Last};
use super::target::instance_and_job;
use crate::config::{ScrapeSettings, ScrapeTarget};

/// What the pages show.
#[derive(Clone)]
struct Shown {
    board: Arc<Board>,
    interval: Duration,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Wish {
    format: Option<String>,
}

/// The pages of the targets of `settings`.
pub(crate) fn router(board: Arc<Board>, settings: &ScrapeSettings) -> Router {
    let shown = Shown { board, interval: settings.interval, timeout: settings.timeout };
    let json = |State(shown): State<Shown>| async move { Json(document(&shown)) };
    Router::new().route("/targets", get(targets)).route("/api/v1/targets", get(json)).with_state(shown)
}

async fn targets(State(shown): State<Shown>, Query(wish): Query<Wish>, headers: HeaderMap) -> Response {
    let accepts_json =
        headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.starts_with("application/json"));
    match wish.format.as_deref() {
        Some("json") => Json(document(&shown)).into_response(),
        None if accepts_json => Json(document(&shown)).into_response(),
        _ => Html(page(&shown)).into_response(),
    }
}

/// The answer of Prometheus' `/api/v1/targets`, with a few members more.
fn document(shown: &Shown) -> Value {
    let active: Vec<Value> = shown.board.active().iter().map(|(target, last)| active(shown, target, last)).collect();
    let dropped: Vec<Value> = shown
        .board
        .dropped()
        .iter()
        .map(|dropped| json!({"discoveredLabels": {"kind": dropped.kind, "namespace": dropped.namespace, "name": dropped.name}, "reason": dropped.reason}))
        .collect();
    json!({"status": "success", "data": {"activeTargets": active, "droppedTargets": dropped}})
}

fn active(shown: &Shown, target: &ScrapeTarget, last: &Last) -> Value {
    let interval = target.interval.unwrap_or(shown.interval);
    let mut labels = serde_json::Map::new();
    for (name, value) in [("namespace", &target.namespace), ("pod", &target.pod), ("container", &target.container)] {
        labels.insert(name.to_owned(), json!(value));
    }
    for (name, value) in instance_and_job(target) {
        labels.insert(name, json!(value));
    }
    json!({
        "labels": labels,
        "discoveredLabels": {"__address__": labels["instance"]},
        "scrapePool": labels["job"],
        "scrapeUrl": target.url,
        "globalUrl": target.url,
        "health": last.health.name(),
        "lastError": last.error.as_deref().unwrap_or_default(),
        "lastScrape": last.at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339),
        "lastScrapeDuration": last.duration.as_secs_f64(),
        "scrapeInterval": format!("{}s", interval.as_secs()),
        "scrapeTimeout": format!("{}s", shown.timeout.min(interval).as_secs()),
        "samples": last.samples,
        "badLines": last.bad_lines,
        "badLine": last.bad_line.as_deref().unwrap_or_default(),
        "nextScrape": last.next.map_or_else(String::new, rfc3339),
    })
}

fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Targets</title><style>\n\
body{font-family:sans-serif;margin:1.5em}table{border-collapse:collapse}th,td{text-align:left;padding:.3em .8em;border-bottom:1px solid #ccc;vertical-align:top}\n\
.up{color:#070}.down{color:#a00}.unknown{color:#666}\n</style></head><body>\n";

fn page(shown: &Shown) -> String {
    let mut page = HEAD.to_owned();
    // Writing to a String does not fail.
    let _ = active_table(&mut page, shown);
    let _ = dropped_table(&mut page, shown);
    page.push_str("<p>As JSON: <a href=\"/targets?format=json\">/targets?format=json</a></p>\n</body></html>\n");
    page
}

fn active_table(page: &mut String, shown: &Shown) -> std::fmt::Result {
    let active = shown.board.active();
    let up = active.iter().filter(|(_, last)| last.health == Health::Up).count();
    writeln!(page, "<h1>Targets: {up} of {} up</h1>\n<table>", active.len())?;
    page.push_str(
        "<tr><th>Target</th><th>State</th><th>Of</th><th>Last scrape</th><th>Took</th><th>Samples</th><th>Next</th><th>Why</th></tr>\n",
    );
    for (target, last) in active {
        let ScrapeTarget { url, namespace, pod, container, .. } = &target;
        let state = last.health.name();
        let (url, of) = (escaped(url), escaped(&format!("{namespace}/{pod}/{container}")));
        let time = |at: Option<SystemTime>| at.map(rfc3339).unwrap_or_default();
        let (at, next) = (time(last.at), time(last.next));
        let why = escaped(&why(&last));
        let (took, samples) = (last.duration.as_secs_f64(), last.samples);
        writeln!(
            page,
            "<tr><td>{url}</td><td class=\"{state}\">{state}</td><td>{of}</td><td>{at}</td><td>{took:.3} s</td><td>{samples}</td><td>{next}</td><td>{why}</td></tr>"
        )?;
    }
    page.push_str("</table>\n");
    Ok(())
}

fn why(last: &Last) -> String {
    let bad = last.bad_line.as_ref().filter(|_| last.bad_lines > 0);
    let bad = bad.map(|reason| format!("{} lines cannot be used, the first: {reason}", last.bad_lines));
    last.error.iter().cloned().chain(bad).collect::<Vec<_>>().join("; ")
}

fn dropped_table(page: &mut String, shown: &Shown) -> std::fmt::Result {
    let dropped = shown.board.dropped();
    if dropped.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Annotated and not scraped</h2>\n<table>\n<tr><th>What</th><th>Why</th></tr>\n");
    for dropped in dropped {
        let what = escaped(&format!("{} {}/{}", dropped.kind, dropped.namespace, dropped.name));
        writeln!(page, "<tr><td>{what}</td><td>{}</td></tr>", escaped(&dropped.reason))?;
    }
    page.push_str("</table>\n");
    Ok(())
}

/// Text that stays text in HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

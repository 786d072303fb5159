//! Targets that come and go with the pods, and the pages that show them.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::pods::{Container, Map, Phase, Pod, Port, PortRef, Service, ServicePort};

const PATIENCE: Duration = Duration::from_secs(30);

fn pods(pods: &[(&str, u16, bool)]) -> Pods {
    let pod = |(name, port, annotated): &(&str, u16, bool)| {
        let mut annotations = Map::from([("adx-mon/path".into(), "/m".into())]);
        if *annotated {
            annotations.insert("adx-mon/scrape".into(), "true".into());
        }
        let ports = vec![Port { name: "".into(), number: *port }];
        let pod = Pod {
            uid: (*name).into(),
            namespace: "ns".into(),
            name: (*name).into(),
            ip: Some(IpAddr::from([127, 0, 0, 1])),
            phase: Phase::Running,
            annotations,
            containers: vec![Container { name: "c".into(), ports, ..Container::default() }],
            ..Pod::default()
        };
        ((*name).into(), Arc::new(pod))
    };
    Pods { known: true, by_uid: Arc::new(pods.iter().map(pod).collect()) }
}

async fn json(router: &Router, path: &str) -> Value {
    serde_json::from_str(&text(router, path).await).unwrap()
}

async fn text(router: &Router, path: &str) -> String {
    let request = axum::extract::Request::get(path).body(axum::body::Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    String::from_utf8(axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_follow_the_pods_and_show_how_they_are() {
    let hits = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let answer = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready("a{x=\"1\"} 1\n<bad> {\n")
    };
    let (url, stop_server) = serve(Router::new().route("/m", get(answer))).await;
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let sink = Arc::new(Recorder::default());
    let scraper = scraper(settings(), &sink, true);
    let (metrics, router) = (Arc::clone(&scraper.metrics), router(scraper.board(), &settings()));
    let (publisher, receiver) = watch::channel(pods(&[("a", port, true), ("b", 1, true), ("quiet", port, false)]));
    let stop = CancellationToken::new();
    let mut running = start(scraper, Discovered { pods: Some(receiver), services: None }, &stop);

    let states = async || -> Vec<(String, String)> {
        let document = json(&router, "/targets?format=json").await;
        let active = document["data"]["activeTargets"].as_array().unwrap().clone();
        active.iter().map(|t| (t["labels"]["pod"].as_str().unwrap().to_owned(), t["health"].as_str().unwrap().to_owned())).collect()
    };
    let wanted = |states: &[(&str, &str)]| -> Vec<_> { states.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect() };
    // In the order of their URLs: port 1 first.
    until("a is up, b is down", async || states().await == wanted(&[("b", "down"), ("a", "up")])).await;
    let document = json(&router, "/api/v1/targets").await;
    assert_eq!(document["status"], "success");
    let [b, a] = &document["data"]["activeTargets"].as_array().unwrap()[..] else { panic!("{document}") };
    assert!(b["lastError"].as_str().unwrap().contains("onnection refused"), "{b}");
    assert_eq!(a["labels"]["instance"], format!("127.0.0.1:{port}"));
    assert_eq!((&a["lastError"], &a["samples"], &a["badLines"], &a["scrapeInterval"]), (&"".into(), &1.into(), &1.into(), &"1s".into()));
    assert_eq!(a["badLine"], "line 2: no closing brace");
    let page = text(&router, "/targets").await;
    assert!(page.contains("Targets: 1 of 2 up") && page.contains("onnection refused") && !page.contains("<bad>"), "{page}");
    assert_eq!((metrics.scrape_targets.get(), metrics.scrape_targets_dropped.get()), (2, 0));
    let bad_lines = metrics.bad_lines.get(&TargetUrl { url: format!("{url}/m") }).unwrap().get();
    assert!(bad_lines >= 1);

    // No longer annotated: not scraped any more, and its series end.
    publisher.send_replace(pods(&[("a", port, false), ("late", 0, true)]));
    until("both are gone", async || states().await == wanted(&[("late", "down")]) || states().await == wanted(&[("late", "unknown")]))
        .await;
    until("the end of a is told", async || sink.told.lock().unwrap().contains(&"up{}=stale".to_owned())).await;
    assert!(sink.told().contains(&"a{x=1}=stale".to_owned()));
    let after = hits.load(Ordering::SeqCst);
    assert!(metrics.bad_lines.get(&TargetUrl { url: format!("{url}/m") }).is_none(), "metrics of targets that are gone go");
    publisher.send_replace(pods(&[("a", port, true)]));
    until("a is back", async || hits.load(Ordering::SeqCst) > after).await;
    stop.cancel();
    while running.join_next().await.is_some() {}
    let at_the_end = hits.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(hits.load(Ordering::SeqCst), at_the_end, "scraping has ended");
    stop_server.cancel();
}

/// However many ask for a page, it is scraped once; what the configuration says of it counts first.
#[test]
fn a_page_is_scraped_once() {
    let target = |pod: &str| ScrapeTarget { pod: pod.to_owned(), ..static_target("http://127.0.0.1:1/m".to_owned()) };
    let service = |name: &str| {
        let service = Service {
            namespace: "ns".into(),
            name: name.into(),
            annotations: Map::from([("adx-mon/scrape".into(), "true".into()), ("adx-mon/path".into(), "/m".into())]),
            selector: Map::from([("app".into(), "a".into())]),
            ports: [1, 2].map(|number| ServicePort { name: "".into(), number, target: PortRef::Number(number) }).to_vec(),
        };
        (name.into(), Arc::new(service))
    };
    let mut pods = pods(&[("a", 1, false)]);
    let map = Arc::make_mut(&mut pods.by_uid);
    Arc::make_mut(map.get_mut("a").unwrap()).labels.insert("app".into(), "a".into());
    let services: Services = Arc::new([service("one"), service("two")].into());
    let found = |targets: Vec<ScrapeTarget>| {
        let scraper = scraper(ScrapeSettings { targets, ..settings() }, &Arc::default(), false);
        let found = scraper.wanted(&pods, &services).targets;
        found.into_iter().map(|target| (target.url, target.pod)).collect::<Vec<_>>()
    };
    let at = |port: u16, pod: &str| (format!("http://127.0.0.1:{port}/m"), pod.to_owned());
    assert_eq!(found(vec![]), [at(1, "a"), at(2, "a")]);
    assert_eq!(found(vec![target("static")]), [at(1, "static"), at(2, "a")]);
}

#[tokio::test]
async fn what_is_dropped_is_shown_with_its_reason() {
    let sink = Arc::new(Recorder::default());
    let scraper = scraper(settings(), &sink, false);
    let router = router(scraper.board(), &settings());
    let mut broken = pods(&[("<b>", 1, true)]);
    let map = Arc::make_mut(&mut broken.by_uid);
    Arc::make_mut(map.get_mut("<b>").unwrap()).annotations.insert("adx-mon/scheme".into(), "<script>".into());
    let (_publisher, receiver) = watch::channel(broken);
    let stop = CancellationToken::new();
    let _running = start(scraper, Discovered { pods: Some(receiver), services: None }, &stop);
    until("it is shown", async || !json(&router, "/targets?format=json").await["data"]["droppedTargets"].as_array().unwrap().is_empty())
        .await;
    let dropped = json(&router, "/targets?format=json").await["data"]["droppedTargets"][0].clone();
    assert_eq!(dropped["discoveredLabels"], serde_json::json!({"kind": "pod", "namespace": "ns", "name": "<b>"}));
    let page = text(&router, "/targets").await;
    assert!(page.contains("pod ns/&lt;b&gt;") && page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
    stop.cancel();
}

/// Many that hang do not delay one that answers, and while the store refuses nothing is fetched.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_target_delays_nobody() {
    let hits = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let answer = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready("a 1\n")
    };
    let (url, stop_server) = serve(Router::new().route("/m", get(answer)).route("/hang/{n}", get(std::future::pending::<()>))).await;
    let sink = Arc::new(Recorder::default());
    let targets = (0..100).map(|n| static_target(format!("{url}/hang/{n}"))).chain([static_target(format!("{url}/m"))]).collect();
    let scraper = scraper(ScrapeSettings { targets, ..settings() }, &sink, false);
    let metrics = Arc::clone(&scraper.metrics);
    let stop = CancellationToken::new();
    let _running = start(scraper, Discovered::default(), &stop);
    until("two scrapes", async || hits.load(Ordering::SeqCst) >= 2).await;
    sink.refuses.store(true, Ordering::SeqCst);
    let skipped = || metrics.scrapes.get_or_create(&ScrapeResult { result: "skipped" }).get();
    until("all are skipped", async || skipped() >= 101).await;
    let fetched = hits.load(Ordering::SeqCst);
    let all_again = skipped() + 101;
    until("skipped again", async || skipped() >= all_again).await;
    assert_eq!(hits.load(Ordering::SeqCst), fetched, "nothing is fetched");
    stop.cancel();
    stop_server.cancel();
}

//! The examples of docs/scraping.md: each pod gives the targets that stand below it, each configuration is one.

use serde_json::Value;

use crate::Config;
use crate::pods::read_pod;
use crate::scrape::targets::of_pod;

const DOCUMENT: &str = include_str!("../../../../../docs/scraping.md");

/// Kind and text of each block, in order.
fn blocks() -> Vec<(&'static str, &'static str)> {
    DOCUMENT.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap()).collect()
}

#[test]
fn its_pods_have_its_targets() {
    let blocks = blocks();
    let mut checked = 0;
    for pair in blocks.windows(2).filter(|pair| pair[0].0 == "yaml") {
        let [(_, pod), (kind, targets)] = pair else { unreachable!() };
        assert_eq!(*kind, "targets");
        let wire: Value = serde_saphyr::from_str(pod).unwrap();
        let found = of_pod(&read_pod(wire, "node-1").unwrap());
        assert_eq!(found.targets.iter().map(|target| target.url.as_str()).collect::<Vec<_>>(), targets.lines().collect::<Vec<_>>());
        assert_eq!(found.dropped, []);
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn its_configurations_are_valid() {
    let mut checked = 0;
    for (_, text) in blocks().into_iter().filter(|(kind, _)| *kind == "toml") {
        let whole = format!("storage-dir = '/x'\nendpoint = 'http://i'\n{text}");
        let (config, warnings) = Config::from_toml(&whole, "node-1").unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!((config.scrape.unwrap().targets.len(), warnings), (1, vec![]));
        checked += 1;
    }
    assert_eq!(checked, 1);
}

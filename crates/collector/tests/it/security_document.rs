//! docs/security.md: its commands make certificates, and a collector and an ingestor's intake run with its configurations.

use std::process::Command;

use crate::secure::{Certificates, ingestor, until};
use crate::support::{Collector, one_sample};

const PAGE: &str = include_str!("../../../../docs/security.md");

/// The blocks of code of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fenced = PAGE.split("\n```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// What the commands of the page leave in a folder of the test's.
fn certificates() -> Certificates {
    let certificates = Certificates::empty();
    let [commands] = blocks("sh")[..] else { panic!("another number of commands than one") };
    let output = Command::new("sh").args(["-ec", commands]).current_dir(certificates.file("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    certificates
}

#[test]
fn the_configurations_are_valid() {
    let configurations = blocks("toml");
    assert_eq!(configurations.len(), 3);
    for configuration in configurations {
        let read = collector::Config::from_toml(&format!("storage-dir = '/x'\n{configuration}"), "node-1");
        read.unwrap_or_else(|error| panic!("{error}\n{configuration}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sends_and_receives_with_what_the_page_makes() {
    let certificates = certificates();
    let folder = certificates.file("");
    let here = |configuration: &str| configuration.replace("/etc/adx-mon/", &format!("{}/", folder.display()).replace("//", "/"));
    let ingestor = ingestor(&certificates, ("ingestor", "token")).await;
    let [to_ingestor, from_applications, ..] = blocks("toml")[..] else { panic!("there are no configurations") };
    let to_ingestor = here(to_ingestor).replace("https://ingestor.adx-mon.svc.cluster.local:9090", &ingestor.url);
    assert!(to_ingestor.contains(&ingestor.url), "{to_ingestor}");
    let settings = format!("max-segment-age-seconds = 1\n{to_ingestor}");
    let collector = Collector::start(&settings, &here(from_applications)).await;

    let file = |name: &str| std::fs::read(certificates.file(name)).unwrap();
    let send = async |identity: bool, token: bool| {
        let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([reqwest::Certificate::from_pem(&file("ca.crt")).unwrap()]);
        if identity {
            let pem = [file("collector.crt"), file("collector.key")].concat();
            client = client.identity(reqwest::Identity::from_pem(&pem).unwrap());
        }
        let port = collector.running().addr.port();
        let mut request = client.build().unwrap().post(format!("https://localhost:{port}/remote_write")).body(one_sample("up", 1.0));
        if token {
            request = request.bearer_auth(String::from_utf8(file("token")).unwrap().trim());
        }
        request.send().await.map(|response| response.status().as_u16())
    };
    assert!(send(false, true).await.is_err(), "a stranger is let in");
    assert_eq!(send(true, false).await.unwrap(), 401);
    assert_eq!(send(true, true).await.unwrap(), 202);
    until("the row arrives", || ingestor.store.ledger().total().accepted == 1).await;
    collector.stop().await;
}

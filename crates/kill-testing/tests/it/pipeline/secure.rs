//! Ingestors that let in whoever shows a certificate of their authority and a token, and show both to each other.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::check::check;
use super::senders::Senders;
use super::world::{World, eventually};

const TOKEN: &str = "between-us";

#[tokio::test(flavor = "multi_thread")]
async fn peers_know_each_other_by_certificate_and_token() {
    let Some(mut world) = World::start(4).await else { return };
    let folder = world.folder.path().to_owned();
    write_credentials(&folder);
    let file = |name: &str| folder.join(name).display().to_string();
    let flags = format!(
        "--ca-cert {cert} --key {key} --client-ca {ca} --auth-token-file {token} --peer-ca {ca}",
        cert = file("tls.crt"),
        key = file("tls.key"),
        ca = file("ca.crt"),
        token = file("token")
    );
    let flags: Vec<&str> = flags.split_whitespace().collect();
    world.add_ingestors_with(2, "https://localhost", &flags);
    world.show_token(TOKEN);
    let credentials = format!(
        "transfer-ca-file = '{}'\ntransfer-token-file = '{}'\ntransfer-client-cert-file = '{}'\ntransfer-client-key-file = '{}'",
        file("ca.crt"),
        file("token"),
        file("tls.crt"),
        file("tls.key")
    );
    for at in 0..2 {
        world.add_collector(&[at], &credentials, "");
    }
    world.ready().await;
    let senders = Senders::start(&world);
    for node in &world.ingestors {
        let passed_on = async || {
            let report: serde_json::Value = serde_json::from_str(&world.get(node, "/debug/ledger?format=json").await?).unwrap();
            match report["total"]["forwarded"].as_u64() {
                Some(0) | None => Err(format!("{} has passed nothing on: {}", node.name, report["total"])),
                Some(_) => Ok(()),
            }
        };
        eventually(passed_on).await;
    }
    let sent = senders.stop().await;
    let figures = check(&world, &sent).await;
    assert_eq!((figures.doubled, figures.maybe_duplicate), (0, 0), "{figures}");
    strangers_are_kept_out(&world, &folder).await;
}

/// An authority, a certificate of it for who serves as `localhost` and for its clients, and the token.
fn write_credentials(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.crt"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("token"), TOKEN).unwrap();
}

/// With a certificate and no token, and with the token and no certificate.
async fn strangers_are_kept_out(world: &World, folder: &Path) {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let client = |identity: bool| {
        let mut builder = reqwest::Client::builder().no_proxy().tls_certs_only([reqwest::Certificate::from_pem(&read("ca.crt")).unwrap()]);
        if identity {
            let pem = [read("tls.crt"), read("tls.key")].concat();
            builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
        }
        builder.build().unwrap()
    };
    for node in &world.ingestors {
        let url = format!("{}/transfer", node.transfer);
        assert_eq!(client(true).get(&url).send().await.unwrap().status(), 401, "{}", node.name);
        assert!(client(false).get(&url).bearer_auth(TOKEN).send().await.is_err(), "{}", node.name);
    }
}

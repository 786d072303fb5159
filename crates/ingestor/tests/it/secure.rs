//! Who may send to an ingestor.

use clap::Parser as _;
use ingestor::{Config, Flags};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use transfer::{Courier, Credentials, Delivery};

use crate::support::{NARROW, client, image, start};

/// The part of a configuration that these flags say.
fn secured(config: &mut Config, flags: &[String]) {
    let all = ["ingestor".to_owned(), "--storage-dir=/unused".to_owned()].into_iter().chain(flags.iter().cloned());
    let read = Flags::try_parse_from(all).unwrap().config().unwrap();
    config.certificate = read.certificate;
    config.client_ca = read.client_ca;
    config.authentication = read.authentication;
    config.listen_tls = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_want_a_token_and_the_one_with_tls_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap().pem();
    let contents =
        [("ca.crt", &authority_pem), ("tls.crt", &certificate), ("tls.key", &key.serialize_pem()), ("tokens", &"good".to_owned())];
    for (name, content) in contents {
        std::fs::write(file(name), content).unwrap();
    }
    let flag = |name: &str, value: &str| format!("--{name}={}", file(value).display());
    let flags = [flag("ca-cert", "tls.crt"), flag("key", "tls.key"), flag("client-ca", "ca.crt"), flag("auth-token-file", "tokens")];
    let ingestor = start(&dir.path().join("data"), &[], |config| secured(config, &flags)).await;

    let plain = async |path: &str, token: Option<&str>| {
        let mut request = client().get(format!("{}{path}", ingestor.plain));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    };
    for (path, without, with) in [
        ("/metrics", 200, 200),
        ("/healthz", 200, 200),
        ("/debug/pprof/", 401, 404),
        ("/debug/store", 401, 200),
        ("/transfer", 401, 204),
        ("/receive", 401, 405),
    ] {
        assert_eq!((plain(path, None).await, plain(path, Some("bad")).await), (without, without), "{path}");
        assert_eq!(plain(path, Some("good")).await, with, "{path}");
    }

    let url = format!("https://localhost:{}/transfer", ingestor.running.tls.unwrap().port());
    let secure = |identity: bool| {
        let mut builder = reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(authority_pem.as_bytes()).unwrap()]);
        if identity {
            let pem = format!("{certificate}{}", key.serialize_pem());
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        builder.no_proxy().build().unwrap()
    };
    assert!(secure(false).get(&url).bearer_auth("good").send().await.is_err(), "without a certificate");
    assert_eq!(secure(true).get(&url).send().await.unwrap().status(), 401);
    assert_eq!(secure(true).get(&url).bearer_auth("good").send().await.unwrap().status(), 204);
    ingestor.until("/metrics", |text| text.contains("adxmon_listener_failed_handshakes_total 1")).await;

    // As `adx-mon wal replay` sends.
    let endpoint = format!("https://localhost:{}", ingestor.running.tls.unwrap().port());
    let whole = Credentials {
        token_file: Some(file("tokens")),
        client_certificate: Some((file("tls.crt"), file("tls.key"))),
        server_ca: Some(file("ca.crt")),
    };
    let sent = async |credentials: Credentials| {
        let courier = Courier::new(&endpoint, credentials, false).unwrap();
        courier.send("FakeMetrics_Cpu_aaa_2f5d0c3e517e4000.wal", &image(NARROW, "t1,1\n"), async |_| {}).await.unwrap()
    };
    for (missing, why) in [
        (Credentials { token_file: None, ..whole.clone() }, "401 Unauthorized"),
        (Credentials { client_certificate: None, ..whole.clone() }, ""),
        (Credentials { server_ca: None, ..whole.clone() }, "certificate"),
    ] {
        let delivery = sent(missing.clone()).await;
        let said = matches!(&delivery, Delivery::Refused(said) | Delivery::Unknown(said) if said.contains(why));
        assert!(said, "{delivery:?} with {missing:?}");
    }
    assert_eq!(sent(whole.clone()).await, Delivery::Stored);
    assert_eq!(sent(whole).await, Delivery::Known);
    ingestor.finish().await;
}

//! What Azure and what is before it may answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_arm::{Arm, ClusterWrite, Kind, PUBLIC_CLOUD, Progress, Sku, Transport, TransportError};
use azure_testing::resource_manager::Fault;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::way::{Tokens, id, near, with_cluster};

#[tokio::test(start_paused = true)]
async fn failures_are_told_apart() {
    let manager = with_cluster();
    let arm = near(&manager);
    for (fault, kind, status) in [
        (Fault::Throttled(42), Kind::Throttled, Some(429)),
        (Fault::Refused(403, "AuthorizationFailed"), Kind::Forbidden, Some(403)),
        (Fault::Refused(409, "ServiceIsInMaintenance"), Kind::Conflict, Some(409)),
        (Fault::Refused(400, "InvalidSku"), Kind::Refused, Some(400)),
        (Fault::Refused(404, "SubscriptionNotFound"), Kind::NotFound, Some(404)),
        (Fault::Refused(503, "ServerBusy"), Kind::Transient, Some(503)),
        (Fault::Proxy(502), Kind::Transient, Some(502)),
        (Fault::Proxy(200), Kind::Transient, None),
        (Fault::Proxy(302), Kind::Refused, Some(302)),
        (Fault::LostBefore, Kind::Transient, None),
        (Fault::SilenceAfter, Kind::Transient, None),
    ] {
        manager.next(fault.clone());
        let started = Instant::now();
        let error = arm.cluster(&id()).await.unwrap_err();
        assert_eq!((error.kind, error.status), (kind, status), "{fault:?}");
        assert!(error.to_string().starts_with("reading cluster kustocluster of resource group kustorptest: "), "{error}");
        let wait = if kind == Kind::Throttled { Some(Duration::from_secs(42)) } else { None };
        assert_eq!(error.retry_after, wait);
        let deadline = if fault == Fault::SilenceAfter { 20 } else { 0 };
        assert_eq!(started.elapsed().as_secs(), deadline, "{fault:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_says_why_it_failed() {
    let manager = with_cluster();
    let (arm, id) = (near(&manager), id());
    let sku = Sku { name: "Standard_L16as_v3".to_owned(), tier: "Standard".to_owned(), capacity: None };
    let change = ClusterWrite { sku: Some(sku), ..ClusterWrite::default() };
    let mut seen = Vec::new();
    // Told of by status, by location, and not at all.
    for _ in 0..12 {
        let before = arm.cluster(&id).await.unwrap().unwrap();
        manager.next(Fault::OperationFails("QuotaExceeded", "No cores of this family are left."));
        let operation = arm.update_cluster(&id, &before.etag, &change).await.unwrap();
        let end = match &operation {
            None => "none".to_owned(),
            Some(operation) => {
                assert_eq!(operation.retry_after, Duration::from_secs(15));
                let mut pause = operation.retry_after;
                loop {
                    tokio::time::sleep(pause).await;
                    match arm.progress(operation).await.unwrap() {
                        Progress::Running(again) => pause = again,
                        Progress::Succeeded => break "over".to_owned(),
                        Progress::Failed(error) => {
                            assert_eq!(error.kind, Kind::Quota);
                            break error.to_string();
                        }
                    }
                }
            }
        };
        seen.push(end);
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    seen.sort();
    seen.dedup();
    let failure = "changing cluster kustocluster of resource group kustorptest: QuotaExceeded: No cores of this family are left.";
    assert_eq!(seen, [failure, "none", "over"]);
    assert_eq!(manager.violations(), Vec::<String>::new());
}

/// Answers with headers.
#[derive(Debug)]
struct Canned(&'static [(&'static str, &'static str)]);

#[async_trait]
impl Transport for Canned {
    async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let mut response = http::Response::new(Bytes::from_static(b"{}"));
        for (name, value) in self.0 {
            response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
        }
        Ok(response)
    }
}

#[tokio::test]
async fn tokens_do_not_follow_an_operation_to_another_host() {
    for (headers, followed) in [
        (&[("azure-asyncoperation", "https://management.azure.com/o/1"), ("location", "https://evil.example/")][..], true),
        (&[("azure-asyncoperation", "https://management.azure.com.evil.example/o/1")], false),
        (&[("azure-asyncoperation", "http://management.azure.com/o/1")], false),
        (&[("location", "https://evil.example/")], false),
        (&[("location", "/relative")], false),
    ] {
        let arm = Arm::with_transport(PUBLIC_CLOUD, Arc::new(Tokens::default()), Arc::new(Canned(headers))).unwrap();
        let operation = arm.create_cluster(&id(), &ClusterWrite::default()).await.unwrap();
        assert_eq!(operation.is_some(), followed, "{headers:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n").await.unwrap();
        let chunk = vec![b' '; 1 << 20];
        let mut sent = 0;
        while stream.write_all(&chunk).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let arm = Arm::new(&address, azure::fixed_token("GOOD").unwrap(), "test/1").unwrap();
    let error = arm.cluster(&id()).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Transient, "the answer is longer than 8388608 bytes"));
    // What is on its way in the kernel's buffers comes on top.
    assert!(server.await.unwrap() < 32);
}

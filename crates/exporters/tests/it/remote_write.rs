//! Remote write out of a buffer, against receivers that take, refuse, stumble, hang and tear.

use std::time::Duration;

use exporters::remote_write::{RemoteWrite, RemoteWriteConfig};
use prost::Message;

use crate::receivers::{Got, Receiver, Reply, status};
use crate::support::{Rig, sample, series};

/// The messages of the remote-write 1.0 specification, for prost: not our encoder.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

fn read(got: &Got) -> Vec<TimeSeries> {
    let plain = snap::raw::Decoder::new().decompress_vec(&got.body).unwrap();
    WriteRequest::decode(plain.as_slice()).unwrap().timeseries
}

/// Values of all samples in the order in which they came.
fn values(got: &[Got]) -> Vec<f64> {
    got.iter().flat_map(read).flat_map(|series| series.samples).map(|sample| sample.value).collect()
}

fn client(receiver: &Receiver) -> RemoteWrite {
    RemoteWrite::new(RemoteWriteConfig::new(&receiver.url)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_those_of_the_specification() {
    let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
    let _exporter = rig.start(client(&receiver));
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    rig.keep(&[series(&[("__name__", "up"), ("adxmon_pod", "p"), ("job", "j"), ("Zone", "1")], &[(1, 1.5), (2, stale)])]).await;
    let got = receiver.until_taken(1).await;
    for line in [
        "content-encoding: snappy\r\n",
        "content-type: application/x-protobuf\r\n",
        "x-prometheus-remote-write-version: 0.1.0\r\n",
        "user-agent: adx-mon/",
    ] {
        assert!(got[0].head.contains(line), "{line} is not in {}", got[0].head);
    }
    let [one] = read(&got[0]).try_into().unwrap();
    let labels: Vec<_> = one.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
    assert_eq!(labels, [("Zone", "1"), ("__name__", "up"), ("job", "j")]);
    let samples: Vec<_> = one.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
    assert_eq!(samples, [(1, 1.5f64.to_bits()), (2, stale.to_bits())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_are_sent_with_their_series() {
    let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
    rig.keep_exemplars().await;
    let _exporter = rig.start(client(&receiver));
    let got = receiver.until_taken(1).await;
    let fact = |exemplar: &Exemplar| (exemplar.timestamp, exemplar.value);
    let facts: Vec<_> = read(&got[0])
        .iter()
        .map(|series| (series.labels[1].value.clone(), series.samples.len(), series.exemplars.iter().map(fact).collect::<Vec<_>>()))
        .collect();
    let n = |n: &str| n.to_owned();
    let expected = [(n("1"), 1, vec![(1, 0.5)]), (n("2"), 1, vec![]), (n("1"), 0, vec![(2, 0.25)]), (n("3"), 0, vec![(3, 0.75)])];
    assert_eq!(facts, expected);
    let labels: Vec<_> = read(&got[0])[0].exemplars[0].labels.iter().map(|label| label.name.clone()).collect();
    assert_eq!(labels, ["trace_id", "http_user"]);
    rig.until("the count", |rig| rig.sent() == 4.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stumbles_are_repeated_until_the_receiver_takes_it() {
    let replies = [status(500), Reply::Answer(429, "retry-after: 0\r\n", Vec::new()), status(503), Reply::Tear, Reply::Hang];
    let (rig, receiver) = (Rig::new(), Receiver::start(replies).await);
    rig.keep(&[sample(1), sample(2)]).await;
    let _exporter = rig.start_with(client(&receiver), Duration::from_millis(300));
    let got = receiver.until_taken(1).await;
    assert_eq!((values(&got), receiver.tries()), (vec![1.0, 2.0], 6));
    rig.until_empty().await;
    assert_eq!((rig.sent(), rig.failed(), rig.metric("retries_total{name=\"ex\"}")), (2.0, 0.0, 5.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_counted_and_does_not_hold_up_the_rest() {
    for code in [400, 404, 413, 422] {
        let (rig, receiver) = (Rig::new(), Receiver::start([status(code)]).await);
        let _exporter = rig.start(client(&receiver));
        rig.keep(&[sample(1)]).await;
        receiver.until_tries(1).await;
        rig.keep(&[sample(2)]).await;
        assert_eq!(values(&receiver.until_taken(1).await), [2.0], "{code}");
        assert_eq!((receiver.tries(), rig.failed()), (2, 1.0), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_says_when_to_come_back() {
    let (rig, receiver) = (Rig::new(), Receiver::start([Reply::Answer(503, "retry-after: 3600\r\n", Vec::new())]).await);
    let exporter = rig.start(client(&receiver));
    rig.keep(&[sample(1)]).await;
    receiver.until_tries(1).await;
    rig.until("the failure", |_| exporter.status().failing.is_some()).await;
    // Pauses without it end within 20 ms.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.tries(), 1);
    assert!(exporter.status().failing.unwrap().contains("status 503"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_bounded() {
    let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
    let config = RemoteWriteConfig { max_samples: 10, ..RemoteWriteConfig::new(&receiver.url) };
    rig.keep(&(0..25).map(sample).collect::<Vec<_>>()).await;
    let _exporter = rig.start(RemoteWrite::new(config).unwrap());
    let got = receiver.until_taken(3).await;
    assert_eq!(got.iter().map(|got| read(got).len()).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(values(&got), (0..25).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn endpoints_that_cannot_be_used_are_named_without_their_password() {
    for url in ["", "prometheus:9090", "ftp://prometheus/write"] {
        let error = RemoteWrite::new(RemoteWriteConfig::new(url)).unwrap_err();
        assert!(error.to_string().contains("give a full URL"), "{error}");
    }
    let error = RemoteWrite::new(RemoteWriteConfig::new("ftp://me:secret@host/")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
}

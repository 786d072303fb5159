use std::os::unix::net::UnixDatagram;

use super::*;

struct Fixed;

/// Booted at 1,000 s, and now it is 1,500 s.
impl Clock for Fixed {
    fn now_ns(&self) -> u64 {
        1_500_000_000_000
    }

    fn since_boot_ns(&self) -> u64 {
        500_000_000_000
    }
}

fn target(threshold: &str) -> Target {
    Target { threshold: Priority::from_name(threshold).unwrap(), destination: Destination::new("Logs", "Kernel").unwrap() }
}

/// A log that gives one record for each read, as `/dev/kmsg` does, and its reader.
fn log(threshold: &str, boot: &str, position: Option<&[u8]>) -> (UnixDatagram, Reader<Fixed>) {
    let (kernel, device) = UnixDatagram::pair().unwrap();
    device.set_nonblocking(true).unwrap();
    let reader = Reader::new(device.into(), target(threshold), Fixed, boot, position);
    (kernel, reader)
}

fn messages(batch: &Batch) -> Vec<&str> {
    batch.records.iter().map(|record| record.body[logs::MESSAGE].as_str().unwrap()).collect()
}

/// The reference keeps the final newline and the lines ` KEY=value` in the message, and takes the backslash out of what
/// is no escape; here they are fields, and the text stays as it is.
#[test]
fn records_of_the_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/collector/kmsg.json");
    let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let boot: chrono::DateTime<chrono::Utc> = cases["boot_time"].as_str().unwrap().parse().unwrap();
    let boot_ns = boot.timestamp_nanos_opt().unwrap() as u64;
    for case in cases["lines"].as_array().unwrap() {
        let line = case["line"].as_str().unwrap();
        let parsed = Message::parse(line.as_bytes());
        if case["error"].is_string() {
            assert!(parsed.is_err(), "{line:?}: {parsed:?}");
            continue;
        }
        let message = parsed.unwrap();
        assert_eq!(u64::from(message.priority.number()), case["priority"].as_u64().unwrap(), "{line:?}");
        assert_eq!(u64::from(message.facility), case["facility"].as_u64().unwrap(), "{line:?}");
        assert_eq!(message.sequence, case["sequence"].as_u64().unwrap(), "{line:?}");
        let expected = match case["message"].as_str().unwrap() {
            "tab\there \\ back Z bad" => "tab\there \\ back \\xZZ bad",
            text => text.split('\n').next().unwrap(),
        };
        assert_eq!(message.text, expected, "{line:?}");
        let time: chrono::DateTime<chrono::Utc> = case["timestamp"].as_str().unwrap().parse().unwrap();
        let record = message.into_record(boot_ns, 0, &Destination::new("d", "t").unwrap());
        assert_eq!(record.timestamp, time.timestamp_nanos_opt().unwrap() as u64, "{line:?}");
    }
}

#[test]
fn a_record_has_its_fields_and_severity() {
    let message = Message::parse(b"3,9,2,c;cont\n SUBSYSTEM=usb\n DEVICE=+usb:1-1\n").unwrap();
    let record = message.into_record(0, 7, &Destination::new("d", "t").unwrap());
    assert_eq!(record.attributes["SUBSYSTEM"], Value::from("usb"));
    assert_eq!(record.attributes["DEVICE"], Value::from("+usb:1-1"));
    assert_eq!(record.attributes["priority"], Value::Int(3));
    assert_eq!((record.severity_text.as_str(), record.severity_number, record.observed), ("ERROR", 17, 7));
}

#[tokio::test]
async fn records_up_to_the_threshold_come_in_batches() {
    let (kernel, mut reader) = log("warning", "b", None);
    for record in ["6,1,1000,-;info", "4,2,2000000,-;warn", "28,3,3000000,-;daemon warns", "nonsense", "0,4,4000000,-;emerg"] {
        kernel.send(record.as_bytes()).unwrap();
    }
    let batch = reader.read(100).await.unwrap();
    assert_eq!(messages(&batch), ["warn", "daemon warns", "emerg"]);
    assert_eq!((batch.lost, batch.invalid), (0, 1));
    assert_eq!(batch.records[0].timestamp, 1_002_000_000_000);
    assert_eq!(batch.records[0].observed, 1_500_000_000_000);
}

#[tokio::test]
async fn a_batch_has_at_most_as_many_as_asked_for() {
    let (kernel, mut reader) = log("debug", "b", None);
    for i in 0..5 {
        kernel.send(format!("6,{i},0,-;m{i}").as_bytes()).unwrap();
    }
    assert_eq!(messages(&reader.read(3).await.unwrap()), ["m0", "m1", "m2"]);
    assert_eq!(messages(&reader.read(3).await.unwrap()), ["m3", "m4"]);
}

#[tokio::test]
async fn the_next_reader_goes_on_behind_the_position() {
    let (kernel, mut reader) = log("err", "b", None);
    kernel.send(b"3,7,0,-;old").unwrap();
    kernel.send(b"6,8,0,-;not urgent").unwrap();
    let position = reader.read(10).await.unwrap().position;
    let (kernel, mut reader) = log("err", "b", Some(&position));
    for record in ["3,7,0,-;old", "6,8,0,-;not urgent", "3,9,0,-;new"] {
        kernel.send(record.as_bytes()).unwrap();
    }
    let batch = reader.read(10).await.unwrap();
    assert_eq!((messages(&batch), batch.lost), (vec!["new"], 0));
}

/// The reference's cursor keeps the records of the next boot from being read until there are as many as before.
#[tokio::test]
async fn after_a_reboot_all_is_new() {
    let (kernel, mut reader) = log("debug", "first boot", None);
    kernel.send(b"6,4000,0,-;before").unwrap();
    let position = reader.read(10).await.unwrap().position;
    let (kernel, mut reader) = log("debug", "second boot", Some(&position));
    kernel.send(b"6,0,0,-;after").unwrap();
    let batch = reader.read(10).await.unwrap();
    assert_eq!((messages(&batch), batch.lost), (vec!["after"], 0));
}

#[tokio::test]
async fn overwritten_records_are_counted() {
    let (kernel, mut reader) = log("debug", "b", None);
    kernel.send(b"6,10,0,-;a").unwrap();
    kernel.send(b"6,15,0,-;b").unwrap();
    assert_eq!(reader.read(10).await.unwrap().lost, 4);
}

/// An empty datagram reads as an end, which the device never has: what came before it is given first.
#[tokio::test]
async fn an_error_loses_nothing_that_was_read() {
    let (kernel, mut reader) = log("debug", "b", None);
    kernel.send(b"6,10,0,-;last").unwrap();
    kernel.send(b"").unwrap();
    kernel.send(b"").unwrap();
    assert_eq!(messages(&reader.read(10).await.unwrap()), ["last"]);
    assert!(reader.read(10).await.is_err());
}

#[tokio::test]
async fn a_position_that_is_not_readable_means_the_start() {
    for position in ["", "{}", "\"x\"", r#"{"version":9,"boot":"b","sequence":5}"#] {
        let (kernel, mut reader) = log("debug", "b", Some(position.as_bytes()));
        kernel.send(b"6,1,0,-;m").unwrap();
        assert_eq!(messages(&reader.read(1).await.unwrap()), ["m"], "{position}");
    }
}

/// Names and bytes are those of the vectors.
#[tokio::test]
async fn the_references_cursor_is_taken_over_if_it_is_of_this_boot() {
    assert_eq!(reference_cursor_name("Logs", "Kernel"), "kernel_9181e871b6d013be");
    assert_eq!(reference_cursor_name("A", "B"), "kernel_6c1908f93f8dee44");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kernel_9181e871b6d013be");
    std::fs::write(&file, 41u64.to_le_bytes()).unwrap();
    let set = |seconds| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    };
    set(999);
    assert_eq!(reference_position(dir.path(), "Logs", "Kernel", "b", &Fixed), None);
    set(1001);
    let position = reference_position(dir.path(), "Logs", "Kernel", "b", &Fixed).unwrap();
    let (kernel, mut reader) = log("debug", "b", Some(&position));
    kernel.send(b"6,41,0,-;known").unwrap();
    kernel.send(b"6,42,0,-;new").unwrap();
    assert_eq!(messages(&reader.read(10).await.unwrap()), ["new"]);
    assert_eq!(reference_position(dir.path(), "Other", "Kernel", "b", &Fixed), None);
}

proptest::proptest! {
    /// Any bytes are read or refused.
    #[test]
    fn any_record_is_read_or_refused(record in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = Message::parse(&record);
    }
}

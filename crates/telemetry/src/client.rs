//! Encoders for senders and tests: the other direction of the wire decoders.

use crate::export::ExportExemplar;

/// One series to send by remote write.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name and value of each label, `__name__` included, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Timestamp in milliseconds since 1970 and value of each sample.
    pub samples: Vec<(i64, f64)>,
}

/// The body of a remote-write 1.0 request before Snappy: a `prometheus.WriteRequest`.
pub fn remote_write_body(series: &[Series]) -> Vec<u8> {
    let mut body = Vec::new();
    series.iter().for_each(|one| add_series(&mut body, one, &[]));
    body
}

/// Appends a series, with exemplars, to the body of a remote-write 1.0 request.
pub fn add_series(body: &mut Vec<u8>, series: &Series, exemplars: &[ExportExemplar]) {
    let mut message = Vec::new();
    put_labels(&mut message, &series.labels);
    for &(timestamp, value) in &series.samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        put_varint(&mut sample, timestamp.cast_unsigned());
        put_bytes(&mut message, 2, &sample);
    }
    for exemplar in exemplars {
        let mut sent = Vec::new();
        put_labels(&mut sent, &exemplar.labels);
        sent.push(0x11);
        sent.extend_from_slice(&exemplar.value.to_le_bytes());
        sent.push(0x18);
        put_varint(&mut sent, exemplar.timestamp_ms.unwrap_or_default().cast_unsigned());
        put_bytes(&mut message, 3, &sent);
    }
    put_bytes(body, 1, &message);
}

fn put_labels(out: &mut Vec<u8>, labels: &[(String, String)]) {
    for (name, value) in labels {
        let mut label = Vec::new();
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(out, 1, &label);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

//! Valid inputs from which the fuzzer starts, made by the formats' own encoders.

use std::path::Path;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use telemetry::client::{Series, add_series, remote_write_body};
use telemetry::export::ExportExemplar;
use wal::disk::sim::SimDisk;
use wal::{Outcome, Request, Section, SectionBody, Settlement, Store, TableKey};

use crate::storage::{JOURNAL_FILE, NOW_MS, options};

/// Seeds of a target, by its name.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "criteria" => CRITERIA.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "exposition" => EXPOSITION.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "exposition_protobuf" => families(),
        "kql" => KQL.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "log_lines" => chosen(&[0, 1, 2, 3, 11], LOG_LINES),
        "log_multi_line" => chosen(&[0, 1, 2, 3, 4, 5, 28], LOG_TRACES),
        "log_parsers" => LOG_MESSAGES.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "kernel_log" => KERNEL_LOG.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "syslog" => SYSLOG.iter().flat_map(|stream| chosen(&[1, 7, 255], stream)).collect(),
        "otlp_json" => [logs(), metrics(), traces()].map(|request| request.to_string().into_bytes()).to_vec(),
        "otlp_logs" | "otlp_log_rows" => vec![encoded::<ExportLogsServiceRequest>(logs())],
        "otlp_metrics" => vec![encoded::<ExportMetricsServiceRequest>(metrics())],
        "otlp_traces" => vec![encoded::<ExportTraceServiceRequest>(traces())],
        "remote_write" => vec![remote_write()],
        "remote_write_2" => vec![remote_write_2()],
        "journal" | "segment" => stored(target == "journal"),
        _ => Vec::new(),
    }
}

const KERNEL_LOG: &[&str] = &[
    "6,1234,5678900,-;usb 1-1: new device\n",
    "3,9,2,c,caller=T100;cont\n SUBSYSTEM=usb\n DEVICE=+usb:1-1\n",
    "30,10,3,-;tab\\x09here \\\\ back",
];

const SYSLOG: &[&str] = &[
    "<34>1 2003-10-11T22:14:15.003Z host su 7 ID47 [a@1 b=\"c\\\"d\"] text\n<34>Oct 11 22:14:15 host su[12]: failed\n",
    "11 <13>1 - a b12 <13>1 - a bc",
    "100 <13>this one is much longer than what is kept of it, and so it is cut at sixty-four bytes, is it not? <13>x\n",
];

const CRITERIA: &[&str] = &[
    "region in ['eastus', \"westus\"] && !Cloud.Name.startsWith('gov') || int == ''",
    "['a', r'b\\d'].exists(x, x == region) ? [1, 2].map(x, x > 1, x * 2) == [4] : {'k': 1u}.k == 1u // comment",
    "timestamp('2024-02-03T04:05:06Z').getHours('+02:00') - -1 > 3 && duration('1h30m') < duration('2h') && type(1.5e3) == double",
    "size(region + '-' + string(1)) % 2 == 0 && region.matches('^e.*s$') && b'\\x61' != bytes(dyn('a')) && has({'a': null}.a)",
];

const LOG_LINES: &str = "2024-05-01T12:00:00.5Z stdout F hello\r\n2024-05-01T12:00:01+02:00 stderr P:x a \n{\"log\":\"x\\n\",\"stream\":\"stdout\",\
    \"time\":\"2024-05-01T12:00:00Z\"}\n\n2024-05-01T12:00:02Z stderr F b\nbad line\n{\"log\":\"part\",\"stream\":\"stderr\"}\n{\"log\":\"\\n\",\"stream\":\"stderr\"}";

const LOG_TRACES: &str = "java.lang.Error: x\n\tat a.b(C.java:1)\nCaused by: y.Exception\n\t... 3 more\nTraceback (most recent call last):\n  File \"a\"\n    x\n\
    KeyError: 1\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"b\"\nE: 2\n\
    panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:1\nexit status 2\n/a.js:1\nthrow x\n^\n\nTypeError: z\n    at f (a.js:1:1) {\n  code: 1\n}\nend";

const LOG_MESSAGES: &[&str] = &[
    "{\"a\":9007199254740993,\"b\":[1.5,null,true,\"\\u00e9\"],\"c\":{\"level\":\"warn\"},\"level\":\"error\"}",
    "level=info msg=\"a \\\"b\\\" c\" n=1 f=.5 t=true 'x y'=z flag",
    "E0102 15:04:05.678901 1 a.go:9] \"msg \\x41\\u00e9\\n\" k=\"v w\" obj={A:1 B:2}",
    "I0102 15:04:05 1 f.go:1] prefix \"m\" a=b",
];

/// A text after each of some first bytes.
fn chosen(choices: &[u8], text: &str) -> Vec<Vec<u8>> {
    choices.iter().map(|choice| [&[*choice], text.as_bytes()].concat()).collect()
}

const EXPOSITION: &[&str] = &[
    "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
     http_requests_total{method=\"post\",path=\"/a\\\"b\\\\c\\n\"} 1027 1395066363000\nup 1\n",
    "# TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 0.5\nh_count 3\nq{quantile=\"0.5\"} NaN\nw -Inf\n",
    "# TYPE r counter\n# UNIT r seconds\nr_seconds_total{a=\"b\"} 1.5e3 1.7e9 # {trace_id=\"ab\"} 0.5 1.7e9\n# EOF\n",
    "{\"a.name\",l=\"v\"} 0x1p-2\n",
];

const KQL: &[&str] = &[
    "let t = datatable(a:long, s:string, d:dynamic) [1, 'x', dynamic({\"k\": [1, 2]}), 2, \"y\", dynamic(null)];\nt | where a > 1 and s has 'y' | extend v = d.k[0] | project-away d",
    "T | summarize count(), avg(x) by bin(Timestamp, 5m), tostring(Labels.pod) | order by Timestamp desc | take 10",
    "range x from 1 to 10 step 1 | extend y = x * 2 | join kind=leftouter (print x = 3, z = 'a') on x | mv-expand q = pack_array(x, y) to typeof(long)",
    "T | make-series c = count() default=0 on Timestamp from ago(1d) to now() step 1h by Host | render timechart",
    "declare query_parameters(p:string = 'a'); union withsource=src (T), (U | where a in ('b', p)) | parse kind=regex s with * 'a' n:long ';' rest",
    "print a = case(1 < 2, 'x', 'z'), t = 1d + 02:30:00.5, g = guid(74be27de-1e4e-49d9-b579-fe0b331d3642), h = @'\\d', r = real(nan)",
    "let f = (a:long, b:string = 'x') { a + strlen(b) }; T | invoke g() | partition by h (top 1 by f(x)) | scan declare (s:long) with (step q: true => s = s + 1;)",
    ".show tables | where TableName startswith 'A'",
];

/// Pages of the protobuf exposition: a counter, a gauge and a summary; a histogram with classic and one with native buckets.
fn families() -> Vec<Vec<u8>> {
    let label = [bytes(1, b"path"), bytes(2, b"/a\"b")].concat();
    let exemplar = [bytes(1, &label), double(2, 0.5)].concat();
    let metric = |field: u8, value: &[u8]| bytes(4, &[bytes(1, &label), bytes(field, value), varint(6, 1_700_000_000_000)].concat());
    let family = |name: &str, kind: u64, metrics: &[u8]| {
        let family = [bytes(1, name.as_bytes()), bytes(2, b"help"), varint(3, kind), metrics.to_vec()].concat();
        bytes(1, &family)[1..].to_vec()
    };
    let quantile = [double(1, 0.99), double(2, f64::NAN)].concat();
    let bucket = [varint(1, 3), double(2, 1e6), bytes(3, &exemplar)].concat();
    let span = [varint(1, 2), varint(2, 2)].concat();
    let native = [
        [varint(1, 6), double(2, 18.5), varint(5, 1), double(6, 0.125), varint(7, 1)].concat(),
        [bytes(9, &span), varint(10, 2), varint(10, 1), bytes(12, &span), bytes(13, &[2, 1])].concat(),
    ];
    let floats = [varint(5, 4), bytes(12, &span), double(14, 1.0), double(14, 2.0), double(4, 3.5), double(8, 0.5)].concat();
    let number = [double(1, 17.0), bytes(2, &exemplar)].concat();
    vec![
        [
            family("requests_total", 0, &[metric(3, &number), metric(3, &number)].concat()),
            family("temperature", 1, &metric(2, &double(1, -1.5))),
            family("odd", 3, &metric(5, &double(1, f64::INFINITY))),
            family("rpc_seconds", 2, &metric(4, &[varint(1, 4), double(2, 1.5), bytes(3, &quantile)].concat())),
        ]
        .concat(),
        family("size_bytes", 4, &metric(7, &[varint(1, 4), double(2, 12.5), bytes(3, &bucket)].concat())),
        [family("native", 4, &metric(7, &native.concat())), family("floats", 5, &metric(7, &floats))].concat(),
    ]
}

/// Fields of a protobuf message, for numbers of fields below 16.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    prost::encoding::encode_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

fn varint(field: u8, value: u64) -> Vec<u8> {
    let mut out = vec![field << 3];
    prost::encoding::encode_varint(value, &mut out);
    out
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [&[field << 3 | 1], &value.to_le_bytes()[..]].concat()
}

fn remote_write() -> Vec<u8> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let series = |name: &str, value: f64| Series {
        labels: vec![label("__name__", name), label("adxmon_database", "Other"), label("host", "a,\"b\"\n")],
        samples: vec![(1_700_000_000_000, value), (-1, f64::NAN)],
    };
    let mut body = remote_write_body(&[series("http_requests_total", 1.5), series("up", 0.0)]);
    let exemplar =
        ExportExemplar { timestamp_ms: Some(1), value: 0.5, labels: vec![label("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736")] };
    add_series(&mut body, &series("with", 1.0), std::slice::from_ref(&exemplar));
    add_series(&mut body, &Series { samples: Vec::new(), ..series("alone", 1.0) }, &[exemplar]);
    body
}

/// Series of `up{host="a"}` with their symbols, with a sample, with a native histogram and with one of custom buckets; written
/// by hand, field by field of `types.proto`.
fn remote_write_2() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let mut body: Vec<u8> = ["", "__name__", "up", "host", "a"].iter().flat_map(|symbol| field(4, symbol.as_bytes())).collect();
    let refs = field(1, &[1, 2, 3, 4]);
    let sample = [&[1 << 3 | 1][..], &1.5f64.to_le_bytes(), &[2 << 3, 0x80, 0x90, 0x4c]].concat();
    let exemplar = field(4, &field(1, &[3, 4]));
    body.extend(field(5, &[refs.clone(), field(2, &sample), exemplar, field(5, &[1 << 3, 1])].concat()));
    let histogram =
        [&[1 << 3, 6, 3 << 3 | 1][..], &8.0f64.to_le_bytes(), &[4 << 3, 0, 6 << 3, 1], &field(11, &[2 << 3, 2]), &field(12, &[4, 2])];
    body.extend(field(5, &[refs.clone(), field(3, &histogram.concat())].concat()));
    let bounds = [[0x82, 0x01, 16].as_slice(), &0.5f64.to_le_bytes(), &1.0f64.to_le_bytes()].concat();
    let custom = [&[1 << 3, 6, 4 << 3, 105][..], &field(11, &[2 << 3, 3]), &field(12, &[2, 2, 2]), &bounds];
    body.extend(field(5, &[refs, field(3, &custom.concat())].concat()));
    body
}

/// From the JSON form, through the published message types, to protobuf.
fn encoded<T: Message + serde::de::DeserializeOwned>(request: Value) -> Vec<u8> {
    serde_json::from_value::<T>(request).map(|request| request.encode_to_vec()).unwrap_or_default()
}

fn attributes() -> Value {
    json!([
        { "key": "kusto.table", "value": { "stringValue": "App" } },
        { "key": "n", "value": { "intValue": "42" } },
        { "key": "b", "value": { "boolValue": true } },
        { "key": "d", "value": { "doubleValue": 1.5 } },
        { "key": "list", "value": { "arrayValue": { "values": [{ "stringValue": "x,\"y\"\n" }, { "intValue": "1" }] } } },
        { "key": "map", "value": { "kvlistValue": { "values": [{ "key": "k", "value": { "stringValue": "v" } }] } } },
    ])
}

fn resource() -> Value {
    json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "shop" } }], "droppedAttributesCount": 0 })
}

fn scope() -> Value {
    json!({ "name": "lib", "version": "1", "attributes": [], "droppedAttributesCount": 0 })
}

fn logs() -> Value {
    let record = json!({
        "timeUnixNano": "1700000000123456789", "observedTimeUnixNano": "1700000000123456789", "severityNumber": 9,
        "severityText": "INFO", "body": { "stringValue": "hello, \"world\"\n" }, "attributes": attributes(), "droppedAttributesCount": 0,
        "flags": 1, "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "eventName": "",
    });
    json!({ "resourceLogs": [{ "resource": resource(), "scopeLogs": [{ "scope": scope(), "logRecords": [record], "schemaUrl": "" }], "schemaUrl": "" }] })
}

fn traces() -> Value {
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "parentSpanId": "eee19b7ec3c1b173", "traceState": "",
        "flags": 1, "name": "GET /", "kind": 2, "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000",
        "attributes": attributes(), "droppedAttributesCount": 0, "droppedEventsCount": 0, "droppedLinksCount": 0,
        "events": [{ "timeUnixNano": "1700000000000000001", "name": "e", "attributes": [], "droppedAttributesCount": 0 }],
        "links": [{ "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "traceState": "", "attributes": [],
                    "droppedAttributesCount": 0, "flags": 0 }],
        "status": { "message": "bad", "code": 2 },
    });
    json!({ "resourceSpans": [{ "resource": resource(), "scopeSpans": [{ "scope": scope(), "spans": [span], "schemaUrl": "" }], "schemaUrl": "" }] })
}

fn metrics() -> Value {
    let point = |value: Value| {
        let mut point = json!({ "attributes": attributes(), "startTimeUnixNano": "1700000000000000000", "timeUnixNano": "1700000001000000000",
                                "flags": 0, "exemplars": [] });
        if let (Value::Object(point), Value::Object(value)) = (&mut point, value) {
            point.extend(value);
        }
        point
    };
    let metric = |name: &str, kind: &str, data: Value| json!({ "name": name, "description": "", "unit": "s", "metadata": [], kind: data });
    let buckets = json!({ "offset": 1, "bucketCounts": ["1", "2"] });
    let metrics = json!([
        metric("g", "gauge", json!({ "dataPoints": [point(json!({ "asDouble": 1.5 }))] })),
        metric("c", "sum", json!({ "dataPoints": [point(json!({ "asInt": "7" }))], "aggregationTemporality": 1, "isMonotonic": true })),
        metric(
            "h",
            "histogram",
            json!({ "aggregationTemporality": 2, "dataPoints": [point(
            json!({ "count": "3", "sum": 4.5, "bucketCounts": ["1", "2", "0"], "explicitBounds": [0.5, 1.0], "min": 0.1, "max": 1.0 }))] })
        ),
        metric(
            "e",
            "exponentialHistogram",
            json!({ "aggregationTemporality": 2, "dataPoints": [point(
            json!({ "count": "7", "sum": 4.5, "scale": 1, "zeroCount": "1", "positive": buckets, "negative": buckets, "zeroThreshold": 0.0,
                    "min": -1.0, "max": 1.0 }))] })
        ),
        metric(
            "s",
            "summary",
            json!({ "dataPoints": [point(
            json!({ "count": "3", "sum": 4.5, "quantileValues": [{ "quantile": 0.5, "value": 1.0 }] }))] })
        ),
    ]);
    json!({ "resourceMetrics": [{ "resource": resource(), "scopeMetrics": [{ "scope": scope(), "metrics": metrics, "schemaUrl": "" }], "schemaUrl": "" }] })
}

/// The journal or the segments of a small store with rows, a sealed and a settled segment, a sender and a mark.
fn stored(journal: bool) -> Vec<Vec<u8>> {
    let disk = SimDisk::new(1);
    let Ok((store, _)) = Store::open(options(), disk.disk(), NOW_MS) else { return Vec::new() };
    for number in 0..4 {
        let sections = ["A", "B"].map(|table| Section {
            table: TableKey::new("Db", table, "abc"),
            header: Arc::from(&b"Timestamp:datetime,Value:string\n"[..]),
            sample_type: 1,
            rows: 2,
            body: SectionBody::Rows(format!("t,{number}\nt,\"x\ny\"\n").into_bytes()),
        });
        let _ = store.commit_wait(Request { sections: sections.into(), marks: vec![(b"k".to_vec(), b"v".to_vec())], ..Request::default() });
        let _ = if number == 1 { store.seal_all() } else { Ok(()) };
    }
    let images = store.sealed().iter().filter_map(|info| store.read_segment(info.id).ok()).collect();
    let settled = |info: &wal::SegmentInfo| Settlement {
        segment: info.id,
        outcome: Outcome::Forwarded,
        reason: String::new(),
        maybe_duplicate: false,
    };
    let _ = store.settle_wait(store.sealed().iter().take(1).map(settled).collect());
    store.close();
    if !journal {
        return images;
    }
    let mut files: Vec<Vec<u8>> =
        disk.files().into_iter().filter(|(path, _)| path == Path::new(JOURNAL_FILE)).map(|(_, bytes)| bytes).collect();
    for bytes in &mut files {
        // Without the zeros that were allocated ahead.
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    files
}

//! OTLP metrics in protobuf: any bytes, no panic, whole rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{Encoding, MetricIntake, RowSet};

fuzz_target!(|bytes: &[u8]| {
    let Ok(rules) = MetricRules::compile(&MetricRulesConfig::default()) else { return };
    let intake = MetricIntake::new("Metrics", rules, Vec::new());
    let mut rows = RowSet::new();
    let _ = intake.otlp(bytes, Encoding::Protobuf, &mut rows);
    for table in rows.tables() {
        assert!(table.bytes.ends_with(b"\n"));
    }
});

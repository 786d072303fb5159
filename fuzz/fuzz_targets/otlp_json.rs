//! OTLP in JSON, all three signals: any bytes, no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{Encoding, LogIntake, LogOptions, MetricIntake, RowSet, TraceIntake, TraceOptions};

fuzz_target!(|bytes: &[u8]| {
    let Ok(rules) = MetricRules::compile(&MetricRulesConfig::default()) else { return };
    let mut rows = RowSet::new();
    let _ = MetricIntake::new("Metrics", rules, Vec::new()).otlp(bytes, Encoding::Json, &mut rows);
    let _ = LogIntake::new(LogOptions { default_database: Some("L".into()), default_table: Some("T".into()), ..Default::default() })
        .otlp(bytes, Encoding::Json, &mut rows);
    let _ = TraceIntake::new(TraceOptions { default_database: Some("L".into()), ..Default::default() }).otlp(bytes, Encoding::Json, &mut rows);
});

//! The scrape parser, both formats: any bytes, no panic, whole rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{ExpositionFormat, MetricIntake, RowSet};

fuzz_target!(|bytes: &[u8]| {
    let Ok(rules) = MetricRules::compile(&MetricRulesConfig::default()) else { return };
    let intake = MetricIntake::new("Metrics", rules, Vec::new());
    let mut rows = RowSet::new();
    for format in [ExpositionFormat::PrometheusText, ExpositionFormat::OpenMetrics] {
        intake.scrape(bytes, format, &[("pod".into(), "p".into())], 1_700_000_000_000, &mut rows);
    }
    for table in rows.tables() {
        assert!(table.bytes.ends_with(b"\n"));
    }
});

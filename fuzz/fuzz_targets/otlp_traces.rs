//! OTLP traces in protobuf: any bytes, no panic, whole rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use telemetry::{Encoding, TraceIntake, TraceOptions, RowSet};

fuzz_target!(|bytes: &[u8]| {
    let intake = TraceIntake::new(TraceOptions { default_database: Some("Logs".into()), default_table: Some("T".into()), ..Default::default() });
    let mut rows = RowSet::new();
    let _ = intake.otlp(bytes, Encoding::Protobuf, &mut rows);
    for table in rows.tables() {
        assert!(table.bytes.ends_with(b"\n"));
    }
});

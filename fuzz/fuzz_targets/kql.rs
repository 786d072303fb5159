//! KQL: any text parses or is refused, is bound or is refused; and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = kql::parse(text);
    let _ = kql::bind(text, &kql::EmptyCatalog, &kql::BindOptions::default());
});

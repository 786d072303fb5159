//! Criteria expressions of custom resources.

use crds::CriteriaMap;
use crds::criteria::{Class, Criteria, Labels};

/// Any text is true, false or an error of its own; never one that caught a panic.
pub(crate) fn criteria(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let labels: Labels = [("region", "eastus"), ("Cloud.Name", "public"), ("int", "")].into_iter().collect();
    if let Err(error) = Criteria::new(&CriteriaMap::new(), text).evaluate(&labels) {
        let caught = error.class == Class::Program && error.message.contains("cannot be evaluated");
        assert!(!caught && !error.message.is_empty(), "{error}");
    }
}

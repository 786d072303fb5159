//! Settings that are checked but whose function this version does not have. Each is named when the
//! collector starts: nothing is ignored in silence.

use super::Warning;
use super::file::File;

/// One warning per setting that has no effect.
pub(super) fn warnings(file: &File) -> Vec<Warning> {
    let mut absent: Vec<(String, &str)> = Vec::new();
    let mut note = |set: bool, name: &str, why: &'static str| {
        if set {
            absent.push((name.to_owned(), why));
        }
    };
    note(!file.lift_attributes.is_empty(), "lift-attributes", LIFT_ATTRIBUTES);
    if let Some(log) = &file.otel_log {
        note(!log.lift_attributes.is_empty(), "otel-log.lift-attributes", LIFT_ATTRIBUTES);
    }
    let parsers = file.host_log.iter().any(|log| !log.parsers.is_empty());
    note(parsers, "host-log.parsers", "each target has its own: parsers of the target, or the pod's annotation adx-mon/log-parsers");
    absent.into_iter().map(|(name, why)| Warning(format!("{name} has no effect: {why}"))).collect()
}

const LIFT_ATTRIBUTES: &str = "attributes stay in the Attributes column; use lift-resources for columns of their own";

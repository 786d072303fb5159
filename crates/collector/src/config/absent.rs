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
    for (i, log) in file.host_log.iter().enumerate() {
        let name = |target: &str| format!("host-log[{i}].{target}");
        note(!log.file_target.is_empty(), &name("file-target"), HOST_LOG);
        note(!log.disable_kube_discovery || !log.static_pod_target.is_empty(), &name("pod discovery"), HOST_LOG);
        note(!log.transforms.is_empty(), &name("transforms"), HOST_LOG);
    }
    absent.into_iter().map(|(name, why)| Warning(format!("{name} has no effect: {why}"))).collect()
}

const HOST_LOG: &str = "logs of the host are not collected by this version";
const LIFT_ATTRIBUTES: &str = "attributes stay in the Attributes column; use lift-resources for columns of their own";

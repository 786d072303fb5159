//! A rule as the engine runs it: checked once, when it changes.

use std::time::Duration;

use crds::{AlertRule, AlertRuleSpec, SpecError};
use kube::ResourceExt as _;
use rules::store::Key;

use crate::delivery::alertmanager;
use crate::query::management;

/// No rule runs more often than this, whatever its interval says.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// A rule that can run.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// `namespace/name`.
    pub(crate) source: String,
    /// What it says.
    pub(crate) spec: AlertRuleSpec,
    /// How often it runs.
    pub(crate) interval: Duration,
    /// How long an alert of it lasts in Alertmanager.
    pub(crate) lasts: Duration,
    /// Whether its query may run twice: a command may change something.
    pub(crate) repeatable: bool,
}

impl Rule {
    /// Checks the rule.
    pub(crate) fn new(key: &Key, object: &AlertRule) -> Result<Rule, SpecError> {
        let spec = object.spec.clone();
        spec.validate()?;
        let interval = spec.interval()?.max(SHORTEST_INTERVAL);
        let lasts = alertmanager::lasts(interval, spec.auto_mitigate_after()?);
        let repeatable = management(&spec.query).is_none_or(|command| command.starts_with(".show"));
        Ok(Rule { source: key.to_string(), spec, interval, lasts, repeatable })
    }

    /// `autoMitigateAfter` as it stands there; nothing for zero.
    pub(crate) fn auto_mitigate_after(&self) -> Option<String> {
        let after = self.spec.auto_mitigate_after().unwrap_or_default();
        (!after.is_zero()).then(|| self.spec.auto_mitigate_after.as_str().to_owned())
    }
}

/// Whether two versions of an object ask for the same.
pub(crate) fn same_spec(a: &AlertRule, b: &AlertRule) -> bool {
    a.uid() == b.uid() && a.spec == b.spec
}

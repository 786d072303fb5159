//! `multi-line` of a configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Language, MultiLine};

/// How lines of one event are recognised, as a configuration says it: either `first-line` or `presets`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case", default)]
pub struct MultiLineSettings {
    /// A regular expression; every line that matches begins an event.
    #[schemars(example = &r"^\d{4}-")]
    pub first_line: Option<String>,
    /// Languages whose stack traces are events: 'java', 'python', 'go', 'node'.
    #[schemars(example = ["java"])]
    pub presets: Vec<String>,
    /// Most lines of an event.
    #[schemars(extend("default" = MultiLine::DEFAULT_MAX_LINES))]
    pub max_lines: Option<i64>,
    /// Seconds that an event waits for its next line.
    #[schemars(extend("default" = MultiLine::DEFAULT_MAX_WAIT.as_secs()))]
    pub max_wait_seconds: Option<f64>,
}

impl MultiLineSettings {
    /// Longest wait, in seconds.
    const MAX_WAIT: f64 = 3600.0;

    /// The rule that they describe.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn rule(&self) -> Result<MultiLine, (&'static str, String)> {
        let rule = match (&self.first_line, &self.presets[..]) {
            (Some(pattern), []) => MultiLine::first_line(pattern).map_err(|error| ("first-line", error.to_string()))?,
            (None, []) => {
                return Err(("first-line", "multi-line needs first-line = '<regular expression>' or presets = ['java']".to_owned()));
            }
            (None, names) => {
                let languages: Result<Vec<Language>, String> = names.iter().map(|name| name.parse()).collect();
                MultiLine::traces(&languages.map_err(|why| ("presets", why))?)
            }
            (Some(_), _) => return Err(("presets", "multi-line takes either first-line or presets, not both".to_owned())),
        };
        let lines = self.max_lines.map_or(Ok(MultiLine::DEFAULT_MAX_LINES), |lines| usize::try_from(lines).map_err(drop));
        let lines = lines.ok().filter(|lines| *lines > 0).ok_or_else(|| ("max-lines", "must be at least 1".to_owned()))?;
        let wait = match self.max_wait_seconds {
            None => MultiLine::DEFAULT_MAX_WAIT,
            Some(seconds) if (0.0..=Self::MAX_WAIT).contains(&seconds) => Duration::from_secs_f64(seconds),
            Some(seconds) => return Err(("max-wait-seconds", format!("is {seconds} and must be from 0 to {}", Self::MAX_WAIT))),
        };
        Ok(rule.bounded(lines, wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let with = |change: fn(&mut MultiLineSettings)| {
            let mut settings = MultiLineSettings { first_line: Some("^a".into()), ..MultiLineSettings::default() };
            change(&mut settings);
            settings.rule().map(|rule| (rule.max_lines, rule.max_wait.as_millis())).map_err(|(key, _)| key)
        };
        assert_eq!(with(|_| ()), Ok((1000, 1000)));
        assert_eq!(with(|s| (s.max_lines, s.max_wait_seconds) = (Some(2), Some(0.25))), Ok((2, 250)));
        assert_eq!(with(|s| s.first_line = Some("(".into())), Err("first-line"));
        assert_eq!(with(|s| s.first_line = None), Err("first-line"));
        assert_eq!(with(|s| s.presets = vec!["java".into()]), Err("presets"));
        assert_eq!(with(|s| (s.first_line, s.presets) = (None, vec!["jvaa".into()])), Err("presets"));
        assert_eq!(with(|s| s.max_lines = Some(0)), Err("max-lines"));
        assert_eq!(with(|s| s.max_wait_seconds = Some(f64::NAN)), Err("max-wait-seconds"));
        assert_eq!(with(|s| s.max_wait_seconds = Some(1e9)), Err("max-wait-seconds"));
    }
}

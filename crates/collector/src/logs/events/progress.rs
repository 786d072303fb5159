//! Which events are stored.
//!
//! Every change of an event gives it a larger `resourceVersion`, an integer that the API server counts up
//! (KEP-5504 promises to clients that versions of one resource can be compared as integers). A watch tells changes in the
//! order of their versions, so that one number says what of a watch is stored. A list comes in the order of namespace and
//! name (its continue token is where the next page starts), so that what is stored of a list that has not ended is the
//! part up to a key, as it was up to a version.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// Lists in a row that were each cut short before where the one before was; what is stored of further ones is not noted
/// before they have come further.
const MAX_PARTS: usize = 16;

/// Which events are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u8,
    /// Every change up to this resourceVersion.
    all: u64,
    /// What is stored of lists that have not ended, the longest part first.
    parts: Vec<Part>,
    /// The largest resourceVersion of the present list; 0 before its first event.
    #[serde(skip)]
    in_list: u64,
    /// As `all`, before the last list.
    #[serde(skip)]
    before_list: u64,
}

/// Every event up to a key, as it was at a resourceVersion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    key: String,
    upto: u64,
}

impl Progress {
    /// What [`Self::bytes`] wrote. Nothing is known to be stored if it is of another version.
    pub(super) fn read(bytes: &[u8]) -> Progress {
        match serde_json::from_slice(bytes) {
            Ok(progress @ Progress { version: VERSION, .. }) => progress,
            _ => {
                tracing::error!("the position in the events cannot be read; all events that the API server has are stored again");
                Progress::default()
            }
        }
    }

    /// The resourceVersion up to which every change is stored.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    /// Another one has stored every change up to a resourceVersion.
    pub(super) fn stored_by_another(&mut self, all: u64) {
        if all > self.all {
            *self = Progress { all, ..Progress::default() };
        }
    }

    /// To be stored with the events.
    pub(super) fn bytes(&self) -> Vec<u8> {
        // Numbers and texts always become JSON.
        serde_json::to_vec(&Progress { version: VERSION, ..self.clone() }).unwrap_or_default()
    }

    /// A list begins.
    pub(super) fn list(&mut self) {
        (self.in_list, self.before_list) = (0, self.all);
    }

    /// The next event of a list; whether it has to be stored.
    pub(super) fn listed(&mut self, event: &ObjectMeta) -> bool {
        let Some(version) = version(event.resource_version.as_deref()) else { return true };
        let key = format!("{}/{}", event.namespace.as_deref().unwrap_or_default(), event.name.as_deref().unwrap_or_default());
        let new = version > self.all && !self.parts.iter().any(|part| key <= part.key && version <= part.upto);
        self.in_list = self.in_list.max(version);
        // Versions of earlier lists are not above that of this one.
        let upto = self.parts.iter().map(|part| part.upto).fold(self.in_list, u64::max);
        self.parts.retain(|part| part.key > key);
        if self.parts.len() < MAX_PARTS {
            self.parts.push(Part { key, upto });
        }
        new
    }

    /// All of a list was told.
    pub(super) fn list_ended(&mut self) {
        self.all = self.parts.drain(..).map(|part| part.upto).fold(self.all.max(self.in_list), u64::max);
    }

    /// The next event of a watch; whether it has to be stored.
    pub(super) fn watched(&mut self, event: &ObjectMeta) -> bool {
        let Some(version) = version(event.resource_version.as_deref()) else { return true };
        let new = version > self.all;
        self.all = self.all.max(version);
        new
    }

    /// Whether the list that has ended had nothing as new as what was stored before: the events have expired, or the server
    /// is another.
    pub(super) fn is_ahead_of_list(&self) -> bool {
        self.before_list > self.in_list
    }

    /// Whether more is stored than a server has that is at that resourceVersion.
    pub(super) fn is_ahead_of(&self, server: Option<&str>) -> bool {
        version(server).is_some_and(|server| server < self.all)
    }
}

fn version(resource_version: Option<&str>) -> Option<u64> {
    resource_version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, version: u64) -> ObjectMeta {
        let namespace = Some("n".to_owned());
        ObjectMeta { namespace, name: Some(name.to_owned()), resource_version: Some(version.to_string()), ..ObjectMeta::default() }
    }

    /// What is stored of a list.
    fn list(progress: &mut Progress, events: &[(&'static str, u64)]) -> Vec<&'static str> {
        events.iter().filter(|(name, version)| progress.listed(&event(name, *version))).map(|(name, _)| *name).collect()
    }

    fn restarted(progress: &Progress) -> Progress {
        Progress::read(&progress.bytes())
    }

    #[test]
    fn a_watch_goes_on_after_a_restart() {
        let mut progress = Progress::default();
        progress.list();
        assert_eq!(list(&mut progress, &[("a", 5), ("b", 3)]), ["a", "b"]);
        progress.list_ended();
        assert!(progress.watched(&event("b", 7)));
        let mut progress = restarted(&progress);
        progress.list();
        assert_eq!(list(&mut progress, &[("a", 5), ("b", 7), ("c", 8)]), ["c"]);
        progress.list_ended();
        assert!(!progress.is_ahead_of_list());
        assert!(!progress.watched(&event("c", 8)) && progress.watched(&event("a", 9)));
    }

    #[test]
    fn lists_that_were_cut_short_are_not_stored_again() {
        let mut progress = Progress::default();
        progress.list();
        assert_eq!(list(&mut progress, &[("a", 1), ("b", 9), ("c", 2)]), ["a", "b", "c"]);
        // b has changed, d is smaller than what was seen, and the second list ends before the first.
        let mut progress = restarted(&progress);
        progress.list();
        assert_eq!(list(&mut progress, &[("a", 1), ("b", 12)]), ["b"]);
        let mut progress = restarted(&progress);
        progress.list();
        assert_eq!(list(&mut progress, &[("a", 14), ("b", 12), ("c", 2), ("d", 4)]), ["a", "d"]);
        // The list failed; it begins again within the same process.
        progress.list();
        assert_eq!(list(&mut progress, &[("a", 14), ("b", 12), ("c", 15), ("d", 4), ("e", 6)]), ["c", "e"]);
        progress.list_ended();
        assert_eq!((progress.all, progress.parts.len()), (15, 0));
        assert!(!progress.watched(&event("a", 14)) && progress.watched(&event("f", 16)));
    }

    #[test]
    fn a_server_that_is_behind_is_another() {
        let mut progress = Progress::default();
        progress.list();
        progress.list_ended();
        assert!(!progress.is_ahead_of_list());
        assert!(progress.watched(&event("a", 100)));
        progress.list();
        assert!(list(&mut progress, &[("a", 20)]).is_empty());
        progress.list_ended();
        assert!(progress.is_ahead_of_list());
        assert!(progress.is_ahead_of(Some("99")) && !progress.is_ahead_of(Some("100")) && !progress.is_ahead_of(None));
    }

    #[test]
    fn what_another_has_stored_is_not_stored_again() {
        let mut progress = Progress::default();
        assert!(progress.watched(&event("a", 5)));
        progress.stored_by_another(8);
        progress.list();
        assert_eq!(list(&mut progress, &[("a", 5), ("b", 8), ("c", 9)]), ["c"]);
        progress.list_ended();
        // What is known already is not forgotten for less.
        progress.stored_by_another(3);
        assert_eq!(restarted(&progress).all(), 9);
    }

    #[test]
    fn a_damaged_position_is_none() {
        assert_eq!(Progress::read(b"nonsense"), Progress::default());
        assert_eq!(Progress::read(br#"{"version":9,"all":7,"parts":[]}"#), Progress::default());
    }

    #[test]
    fn what_is_noted_of_lists_is_bounded() {
        let mut progress = Progress::default();
        for last in (0..100).rev() {
            progress.list();
            for i in 0..=last {
                progress.listed(&event(&format!("{i:03}"), 1 + i));
            }
        }
        assert_eq!(progress.parts.len(), MAX_PARTS);
    }
}

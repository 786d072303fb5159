//! Labels and attributes that are added to everything an intake takes in.

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names and values to add: fixed ones, and under them ones that may change while the intake runs, as the labels of a
/// node do. Clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct Added {
    fixed: Arc<BTreeMap<String, String>>,
    all: Arc<RwLock<Arc<BTreeMap<String, String>>>>,
}

impl Added {
    /// Only fixed ones as yet.
    pub fn new(fixed: BTreeMap<String, String>) -> Self {
        let fixed = Arc::new(fixed);
        Self { all: Arc::new(RwLock::new(fixed.clone())), fixed }
    }

    /// Replaces those that may change. A fixed one of the same name wins.
    pub fn set(&self, changing: BTreeMap<String, String>) {
        let mut all = changing;
        all.extend(self.fixed.iter().map(|(name, value)| (name.clone(), value.clone())));
        *self.all.write() = Arc::new(all);
    }

    /// All at this moment.
    pub fn get(&self) -> Arc<BTreeMap<String, String>> {
        self.all.read().clone()
    }
}

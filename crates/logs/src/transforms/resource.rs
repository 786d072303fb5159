//! Changes to resources, which many records share: each is made once and then remembered.

use std::sync::Arc;

use crate::value::Map;

/// The last change made. The maps are held, so that an equal address is the same map.
#[derive(Clone, Debug, Default)]
pub(super) struct ResourceChange {
    last: Option<(Arc<Map>, Arc<Map>)>,
}

impl ResourceChange {
    /// Changes a resource as `change` does, which must do the same to equal maps.
    pub(super) fn apply(&mut self, resource: &mut Arc<Map>, change: impl FnOnce(&mut Map)) {
        if let Some((from, to)) = &self.last
            && Arc::ptr_eq(from, resource)
        {
            *resource = Arc::clone(to);
            return;
        }
        let from = Arc::clone(resource);
        change(Arc::make_mut(resource));
        self.last = Some((from, Arc::clone(resource)));
    }
}

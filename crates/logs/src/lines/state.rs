//! What a reader holds as bytes, for cursors. JSON with a version; nothing held is no bytes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::join::{Joiner, MAX_STREAMS, Partial};
use crate::multi_line::{Group, Groups};

const VERSION: u32 = 1;

/// Why a saved reader cannot be restored.
#[derive(Debug, Error)]
pub enum StateError {
    /// The bytes are damaged.
    #[error("the unfinished lines kept with the cursor cannot be read, so that the beginning of a message may be missing: {0}")]
    Damaged(#[from] serde_json::Error),
    /// A newer version wrote them.
    #[error(
        "the unfinished lines kept with the cursor are of version {0}, which a newer collector wrote; this one reads version {VERSION}"
    )]
    Version(u32),
}

#[derive(Serialize)]
struct Saved<'s> {
    version: u32,
    partials: &'s [Partial],
    groups: &'s [Group],
}

#[derive(Deserialize)]
struct Restored {
    version: u32,
    partials: Vec<Partial>,
    groups: Vec<Group>,
}

pub(super) fn save(joiner: &Joiner, groups: &Groups) -> Vec<u8> {
    if joiner.open.is_empty() && groups.open.is_empty() {
        return Vec::new();
    }
    // Maps with keys of text are all that JSON asks for, so there is no error.
    serde_json::to_vec(&Saved { version: VERSION, partials: &joiner.open, groups: &groups.open }).unwrap_or_default()
}

pub(super) fn restore(saved: &[u8], max_bytes: usize) -> Result<(Joiner, Groups), StateError> {
    if saved.is_empty() {
        return Ok((Joiner::default(), Groups::default()));
    }
    let Restored { version, mut partials, mut groups } = serde_json::from_slice(saved)?;
    if version != VERSION {
        return Err(StateError::Version(version));
    }
    partials.truncate(MAX_STREAMS);
    groups.truncate(MAX_STREAMS);
    for (text, cut) in partials.iter_mut().map(|p| (&mut p.text, &mut p.cut)).chain(groups.iter_mut().map(|g| (&mut g.text, &mut g.cut))) {
        let fits = text.floor_char_boundary(max_bytes);
        *cut += (text.len() - fits) as u64;
        text.truncate(fits);
    }
    Ok((Joiner { open: partials }, Groups { open: groups }))
}

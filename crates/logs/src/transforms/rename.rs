//! `rename`: moves keys within and between body, attributes and resource.

use std::sync::Arc;

use serde::Deserialize;

use super::config::{self, PathStep, TransformError};
use super::field::{self, Field, Scope, lookup};
use super::resource::ResourceChange;
use crate::record::Record;

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    fields: toml::Table,
}

#[derive(Clone, Debug)]
pub(super) struct Rename {
    moves: Arc<[Move]>,
    /// Moves within the resource, while nothing else touches it.
    resource: Option<ResourceChange>,
}

#[derive(Debug)]
struct Move {
    from: (Scope, String),
    to: (Scope, String),
}

impl Rename {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let Settings { fields } = config::read(config, &["fields"])?;
        let (mut moves, mut errors) = (Vec::new(), Vec::new());
        for (from, to) in &fields {
            let to = to.as_str().ok_or_else(|| "must be the new place, such as \"Attributes.pod\"".to_owned());
            match (place(from), to.and_then(place)) {
                (Ok(from), Ok(to)) => moves.push(Move { from, to }),
                (Err(why), _) | (_, Err(why)) => {
                    let mut error = TransformError::at_key("fields", why);
                    error.path.push(PathStep::Key(from.clone()));
                    errors.push(error);
                }
            }
        }
        if fields.is_empty() {
            errors.push(TransformError::at_config("rename needs fields = { \"Body.old\" = \"Body.new\" }"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let only_resource = moves.iter().all(|m| m.from.0 == Scope::Resource && m.to.0 == Scope::Resource);
        Ok(Self { moves: moves.into(), resource: only_resource.then(ResourceChange::default) })
    }

    pub(super) fn apply(&mut self, record: &mut Record) {
        let moves = Arc::clone(&self.moves);
        if let Some(change) = &mut self.resource {
            change.apply(&mut record.resource, |resource| {
                for Move { from, to } in &*moves {
                    if let Some(value) = field::remove(resource, &from.1) {
                        field::insert(resource, &to.1, value);
                    }
                }
            });
            return;
        }
        for Move { from, to } in &*moves {
            // A resource is copied only for a key that it has.
            if lookup(record.map(from.0), &from.1).is_none() {
                continue;
            }
            if let Some(value) = field::remove(record.map_mut(from.0), &from.1) {
                field::insert(record.map_mut(to.0), &to.1, value);
            }
        }
    }
}

fn place(text: &str) -> Result<(Scope, String), String> {
    match Field::parse(text) {
        Ok(Field::Key(scope, key)) => Ok((scope, key)),
        _ => Err(format!("{text} is not a key of {}; write it as Body.<key>", Scope::NAMES)),
    }
}

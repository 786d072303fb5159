//! Entity groups: the databases, here and elsewhere, that `macro-expand` runs a sub-query for.

use kql::binder::EntityReference;

use super::syntax::DefineGroup;
use super::{Outcome, show};
use crate::catalog::Edit;
use crate::error::KustoError;
use crate::service::Kustd;

/// Most entities of a group.
const MOST_ENTITIES: usize = 1_000;

pub(super) fn define(
    edit: &mut Edit<'_>,
    database: &str,
    how: DefineGroup,
    name: &str,
    mut entities: Vec<EntityReference>,
) -> Result<(), KustoError> {
    let known = edit.image().database(database).and_then(|db| db.entity_groups.get(name)).cloned();
    match (known, how) {
        (Some(_), DefineGroup::CreateIfNotExists) => return Ok(()),
        (Some(_), DefineGroup::Create) => return Err(KustoError::exists("EntityGroup", name)),
        (None, DefineGroup::Alter | DefineGroup::AlterMerge) => return Err(KustoError::not_found("EntityGroup", name)),
        (Some(known), DefineGroup::AlterMerge) => entities.splice(..0, known).for_each(std::mem::drop),
        // a repeated definition costs no transaction
        (Some(known), _) if known == entities => return Ok(()),
        _ => {}
    }
    let mut seen = std::collections::HashSet::new();
    entities.retain(|entity| seen.insert(entity.text.clone()));
    if entities.is_empty() || entities.len() > MOST_ENTITIES {
        return Err(KustoError::bad_request(format!("the entity group '{name}' has to have from 1 to {MOST_ENTITIES} entities")));
    }
    Ok(edit.put_entity_group(database, name, entities)?)
}

pub(super) fn drop(edit: &mut Edit<'_>, database: &str, name: &str, if_exists: bool) -> Result<(), KustoError> {
    match (edit.image().database(database).is_some_and(|db| db.entity_groups.contains_key(name)), if_exists) {
        (true, _) => Ok(edit.drop_entity_group(database, name)?),
        (false, true) => Ok(()),
        (false, false) => Err(KustoError::not_found("EntityGroup", name)),
    }
}

/// One group, or all that are left.
pub(super) fn shown(kustd: &Kustd, database: &str, name: Option<&str>) -> Outcome {
    let image = kustd.storage.catalog().image();
    show::entity_groups(image.database(database).ok_or_else(|| KustoError::not_found("Database", database))?, name)
}

//! References to parts of a record, as configurations name them: `Body.level`, `Attributes.http.status`, `TraceId`.

use std::borrow::Cow;
use std::sync::Arc;

use crate::record::Record;
use crate::value::{Map, Value};

/// A part of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Field {
    /// A key of the body, the attributes or the resource.
    Key(Scope, String),
    SeverityText,
    SeverityNumber,
    TraceId,
    SpanId,
    Database,
    Table,
}

/// One of the maps of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    Body,
    Attributes,
    Resource,
}

impl Scope {
    pub(super) const NAMES: &'static str = "Body, Attributes, Resource";

    /// Case does not matter.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let known = [("body", Self::Body), ("attributes", Self::Attributes), ("resource", Self::Resource)];
        known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, scope)| scope)
    }
}

impl Field {
    /// Reads a reference; names of columns are matched without regard to case.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some((scope, key)) = text.split_once('.')
            && let Some(scope) = Scope::from_name(scope)
            && !key.is_empty()
        {
            return Ok(Self::Key(scope, key.to_owned()));
        }
        let columns = [
            ("SeverityText", Self::SeverityText),
            ("SeverityNumber", Self::SeverityNumber),
            ("TraceId", Self::TraceId),
            ("SpanId", Self::SpanId),
            ("Database", Self::Database),
            ("Table", Self::Table),
        ];
        let column = columns.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        column.map(|(_, field)| field).ok_or_else(|| {
            format!(
                "{text} is not a field of a record; use Body.<key>, Attributes.<key>, Resource.<key>, \
                 SeverityText, SeverityNumber, TraceId, SpanId, Database or Table"
            )
        })
    }

    /// Its value; `None` when the record has none. Columns that are empty count as none.
    pub(super) fn get<'r>(&self, record: &'r Record) -> Option<Cow<'r, Value>> {
        let text = |text: &str| (!text.is_empty()).then(|| Cow::Owned(Value::from(text)));
        match self {
            Self::Key(scope, key) => lookup(record.map(*scope), key).map(Cow::Borrowed),
            Self::SeverityText => text(&record.severity_text),
            Self::SeverityNumber => (record.severity_number != 0).then(|| Cow::Owned(Value::Int(record.severity_number.into()))),
            Self::TraceId => text(&record.trace_id),
            Self::SpanId => text(&record.span_id),
            Self::Database => text(record.destination.as_ref()?.database()),
            Self::Table => text(record.destination.as_ref()?.table()),
        }
    }
}

impl Record {
    pub(super) fn map(&self, scope: Scope) -> &Map {
        match scope {
            Scope::Body => &self.body,
            Scope::Attributes => &self.attributes,
            Scope::Resource => &self.resource,
        }
    }

    /// A map to be changed. A resource that others share is copied.
    pub(super) fn map_mut(&mut self, scope: Scope) -> &mut Map {
        match scope {
            Scope::Body => &mut self.body,
            Scope::Attributes => &mut self.attributes,
            Scope::Resource => Arc::make_mut(&mut self.resource),
        }
    }
}

/// The value of a key, or of the path that its dots make.
pub(super) fn lookup<'m>(map: &'m Map, key: &str) -> Option<&'m Value> {
    map.get(key).or_else(|| {
        key.match_indices('.').find_map(|(dot, _)| match map.get(&key[..dot]) {
            Some(Value::Map(inner)) => lookup(inner, &key[dot + 1..]),
            _ => None,
        })
    })
}

/// Takes out what [`lookup`] finds.
pub(super) fn remove(map: &mut Map, key: &str) -> Option<Value> {
    if let Some(value) = map.remove(key) {
        return Some(value);
    }
    let dots: Vec<usize> = key.match_indices('.').map(|(dot, _)| dot).collect();
    dots.into_iter().find_map(|dot| match map.get_mut(&key[..dot]) {
        Some(Value::Map(inner)) => remove(inner, &key[dot + 1..]),
        _ => None,
    })
}

/// Sets a key; one with dots is set inside of a map where there is such a map, and is one key where there is none.
pub(super) fn insert(map: &mut Map, key: &str, value: Value) {
    if !map.contains_key(key)
        && let Some((dot, _)) = key.match_indices('.').find(|(dot, _)| matches!(map.get(&key[..*dot]), Some(Value::Map(_))))
        && let Some(Value::Map(inner)) = map.get_mut(&key[..dot])
    {
        return insert(inner, &key[dot + 1..], value);
    }
    map.insert(key.to_owned(), value);
}

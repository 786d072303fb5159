//! Reading JSON text without building values: visitors skip everything but what is wanted.

use std::borrow::Cow;
use std::fmt;

use kql::Dynamic;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The JSON text of the value behind the keys; None when there is none, or null.
pub(crate) fn lookup<'a>(document: &'a str, keys: &[String]) -> Option<&'a str> {
    let mut json = document;
    for key in keys {
        // A document without the key's text has no such key, unless escapes hide it.
        if !json.contains(key.as_str()) && !json.contains('\\') {
            return None;
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        let found = Find { key }.deserialize(&mut reader).ok()??;
        reader.end().ok()?;
        json = found.get();
    }
    (json != "null").then_some(json)
}

/// What `tostring` makes of a JSON value.
pub(crate) fn text_of(json: &str) -> Cow<'_, str> {
    if let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        && !inner.contains('\\')
    {
        return Cow::Borrowed(inner);
    }
    Dynamic::parse_json(json).map_or(Cow::Borrowed(json), |value| Cow::Owned(value.to_text()))
}

/// Finds the value of one key in an object; the last one, if the key repeats.
struct Find<'k> {
    key: &'k str,
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(matches) = map.next_key_seed(IsKey(self.key))? {
            if matches {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without copying it.
struct IsKey<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// The members of an object, in order: `class` says which keys are wanted and as what, `found` takes those with their
/// JSON text. False, with members perhaps found already, when the document is not an object and nothing else.
pub(crate) fn members<'a>(document: &'a str, class: impl FnMut(&str) -> Option<usize>, found: impl FnMut(usize, &'a str)) -> bool {
    if !document.trim_start().starts_with('{') {
        return false;
    }
    let mut reader = serde_json::Deserializer::from_str(document);
    reader.deserialize_map(Members { class, found }).is_ok() && reader.end().is_ok()
}

struct Members<C, F> {
    class: C,
    found: F,
}

impl<'de, C: FnMut(&str) -> Option<usize>, F: FnMut(usize, &'de str)> Visitor<'de> for Members<C, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(class) = map.next_key_seed(Classify(&mut self.class))? {
            match class {
                Some(class) => (self.found)(class, map.next_value::<&RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Classify<'c, C>(&'c mut C);

impl<'de, C: FnMut(&str) -> Option<usize>> DeserializeSeed<'de> for Classify<'_, C> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<C: FnMut(&str) -> Option<usize>> Visitor<'_> for Classify<'_, C> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok((self.0)(key))
    }
}

//! Which entries of a journal are taken, in `journalctl`'s way of saying it: matches of one field are alternatives,
//! different fields must all match, and `+` joins two such sets as alternatives.

use sdjournal::JournalQuery;

/// Sets of fields with their allowed values; an entry must match one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches(Vec<Vec<(String, Vec<String>)>>);

/// What is wrong with a list of matches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// Neither `FIELD=value` nor `+`.
    #[error("match {0:?} must be in the format FIELD=value")]
    Form(String),
    /// There is no match before the first `+`.
    #[error("matches must not start with +")]
    Plus,
}

impl Matches {
    /// Reads matches: `FIELD=value`, whose value may contain `=`, or `+`.
    ///
    /// # Errors
    /// The first text that is none.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Matches, MatchError> {
        let mut sets = vec![Vec::<(String, Vec<String>)>::new()];
        for text in texts.iter().map(AsRef::as_ref) {
            if text == "+" {
                if sets == [vec![]] {
                    return Err(MatchError::Plus);
                }
                sets.push(Vec::new());
                continue;
            }
            let Some(set) = sets.last_mut() else { continue };
            let (field, value) = text
                .split_once('=')
                .filter(|(field, value)| !field.is_empty() && !value.is_empty())
                .ok_or_else(|| MatchError::Form(text.to_owned()))?;
            match set.iter_mut().find(|(known, _)| known == field) {
                Some((_, values)) => values.push(value.to_owned()),
                None => set.push((field.to_owned(), vec![value.to_owned()])),
            }
        }
        sets.retain(|set| !set.is_empty());
        Ok(Matches(sets))
    }

    /// Whether an entry whose fields have these values is taken.
    pub(super) fn accept<'a>(&self, values: impl Fn(&str) -> Vec<&'a [u8]>) -> bool {
        let field = |(name, allowed): &(String, Vec<String>)| {
            let values = values(name);
            allowed.iter().any(|allowed| values.contains(&allowed.as_bytes()))
        };
        self.0.is_empty() || self.0.iter().any(|set| set.iter().all(field))
    }

    /// Lets the journal's index leave out entries, where a field has one value in all sets.
    pub(super) fn narrow(&self, query: &mut JournalQuery) {
        if let [set] = self.0.as_slice() {
            for (field, values) in set {
                if let [value] = values.as_slice() {
                    query.match_exact(field, value.as_bytes());
                }
            }
        }
    }
}

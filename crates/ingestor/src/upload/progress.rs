//! What is known of a batch besides its state, as its record keeps it: JSON with a version, without secrets.
//!
//! | version | form |
//! |---|---|
//! | – | no bytes at all: batches were streamed, and nothing else was known |
//! | – | an object without `version`, but with `way` |
//! | 1 | the same with `version` |
//!
//! What reads as none of these is no streamed batch: nobody knows where its rows are, and whoever reads it counts them.

use serde::Deserialize;
use serde_json::{Value, json};

/// What [`Progress::encode`] writes. A reader that knows less cannot read what is newer.
const VERSION: u64 = 1;

/// How rows get into a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// In requests to the engine, or inline where it does not stream.
    #[default]
    Streaming,
    /// As a blob and a message.
    Queued,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Streaming => "streaming",
            Way::Queued => "queued",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// How its rows are sent.
    pub way: Way,
    /// The blob, once it is complete.
    #[serde(default)]
    pub blob: Option<Value>,
    /// By what its status is found.
    #[serde(default)]
    pub receipt: Option<Value>,
    /// Length of its CSV.
    #[serde(default)]
    pub csv_bytes: u64,
    /// Kusto ingests it once, however often it is told.
    #[serde(default)]
    pub tagged: bool,
    /// When it got this far.
    #[serde(default)]
    pub at_ms: u64,
    /// How often it failed or was sent again.
    #[serde(default)]
    pub failures: u32,
    /// Its rows may be there more than once.
    #[serde(default)]
    pub maybe_duplicate: bool,
}

/// Why the detail of a record says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Somebody newer wrote it.
    #[error("it was written by a newer version (format {0}): run that version until its batches have ended")]
    Newer(u64),
    /// It is nothing that was ever written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl Progress {
    /// As a batch's record keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let Progress { way, blob, receipt, csv_bytes, tagged, at_ms, failures, maybe_duplicate } = self;
        let written = json!({
            "version": VERSION,
            "way": way.name(),
            "blob": blob,
            "receipt": receipt,
            "csv_bytes": csv_bytes,
            "tagged": tagged,
            "at_ms": at_ms,
            "failures": failures,
            "maybe_duplicate": maybe_duplicate,
        });
        written.to_string().into_bytes()
    }

    /// From a record.
    ///
    /// # Errors
    /// When it is of none of the forms that are known.
    pub fn decode(detail: &[u8]) -> Result<Progress, Unreadable> {
        if detail.is_empty() {
            return Ok(Progress::default());
        }
        let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
        let mut written: Value = serde_json::from_slice(detail).map_err(damaged)?;
        match written.as_object_mut().and_then(|object| object.remove("version")) {
            None => {}
            Some(version) if version == VERSION => {}
            Some(version) => {
                let newer = version.as_u64().filter(|version| *version > VERSION);
                return Err(newer.map_or_else(|| Unreadable::Damaged(format!("its version is {version}")), Unreadable::Newer));
            }
        }
        serde_json::from_value(written).map_err(damaged)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn progress() -> impl Strategy<Value = Progress> {
        let value = || proptest::option::of(prop_oneof![any::<u64>().prop_map(|n| json!(n)), ".*".prop_map(|text| json!({ "a": text }))]);
        let way = prop_oneof![Just(Way::Streaming), Just(Way::Queued)];
        let rest = (any::<u64>(), any::<bool>(), any::<u64>(), any::<u32>(), any::<bool>());
        (way, value(), value(), rest).prop_map(|(way, blob, receipt, (csv_bytes, tagged, at_ms, failures, maybe_duplicate))| Progress {
            way,
            blob,
            receipt,
            csv_bytes,
            tagged,
            at_ms,
            failures,
            maybe_duplicate,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(progress in progress()) {
            prop_assert_eq!(Progress::decode(&progress.encode()), Ok(progress));
        }

        #[test]
        fn a_record_that_is_cut_short_is_damaged(progress in progress(), cut in any::<proptest::sample::Index>()) {
            let written = progress.encode();
            let cut = 1 + cut.index(written.len() - 1);
            prop_assert!(matches!(Progress::decode(&written[..cut]), Err(Unreadable::Damaged(_))));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Progress::decode(&bytes);
        }
    }

    /// Written down by hand from the code before there was a version.
    #[test]
    fn the_forms_without_a_version_are_read() {
        assert_eq!(Progress::decode(b""), Ok(Progress::default()));
        let streamed = br#"{"way":"streaming","blob":null,"receipt":null,"csv_bytes":0,"tagged":false,"at_ms":1760000000000,"failures":2,"maybe_duplicate":false}"#;
        assert_eq!(Progress::decode(streamed), Ok(Progress { at_ms: 1_760_000_000_000, failures: 2, ..Progress::default() }));
        let queued = br#"{"way":"queued","blob":{"uri":"https://a/b"},"receipt":{"id":7},"csv_bytes":100000000,"tagged":true,"at_ms":5,"failures":0,"maybe_duplicate":true}"#;
        let expected = Progress {
            way: Way::Queued,
            blob: Some(json!({ "uri": "https://a/b" })),
            receipt: Some(json!({ "id": 7 })),
            csv_bytes: 100_000_000,
            tagged: true,
            at_ms: 5,
            failures: 0,
            maybe_duplicate: true,
        };
        assert_eq!(Progress::decode(queued), Ok(expected));
    }

    #[test]
    fn the_form_with_a_version() {
        let written = br#"{"version":1,"way":"queued","csv_bytes":9}"#;
        assert_eq!(Progress::decode(written), Ok(Progress { way: Way::Queued, csv_bytes: 9, ..Progress::default() }));
        let text = String::from_utf8(Progress::default().encode()).unwrap();
        assert!(text.contains(r#""version":1"#), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_no_streamed_batch() {
        assert_eq!(Progress::decode(br#"{"version":2,"way":"queued"}"#), Err(Unreadable::Newer(2)));
        for damaged in [&b"{"[..], b"{}", b"null", b"7", b"[]", br#"{"version":"1","way":"queued"}"#, br#"{"version":0,"way":"queued"}"#]
            .into_iter()
            .chain([&br#"{"way":"by post"}"#[..], br#"{"csv_bytes":9}"#, b"\0\0\0", br#"{"way":"queued"} "#.split_at(5).0])
        {
            let read = Progress::decode(damaged);
            assert!(matches!(read, Err(Unreadable::Damaged(_))), "{read:?} of {}", String::from_utf8_lossy(damaged));
        }
    }
}

//! Expressions over one dictionary column: computed once per distinct value, then gathered.
//!
//! A reader hands out many batches that share one dictionary, whose values may outnumber the rows of a batch. The
//! first batch computes only the values that it uses; from the second on, the results for the whole dictionary are
//! kept.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, new_null_array};
use datafusion::arrow::compute::{concat, take};
use datafusion::arrow::datatypes::Int32Type;
use parking_lot::Mutex;

use crate::engine::error::EngineError;

/// Dictionaries remembered: partitions read at the same time, each with its own.
const REMEMBERED: usize = 16;

/// Results by dictionary.
#[derive(Debug, Default)]
pub(super) struct Dictionaries {
    known: Mutex<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    /// Held, so that its address stays its identity.
    values: ArrayRef,
    /// For each value, and at the end for null; None: seen once.
    results: Option<ArrayRef>,
}

impl Dictionaries {
    /// The results for the rows of `dictionary`; `compute` evaluates values.
    pub(super) fn evaluate(
        &self,
        dictionary: &DictionaryArray<Int32Type>,
        compute: impl Fn(&ArrayRef) -> Result<ArrayRef, EngineError>,
    ) -> Result<ArrayRef, EngineError> {
        let (values, keys) = (dictionary.values(), dictionary.keys());
        match self.look_up(values) {
            Lookup::Known(results) => gather(&results, keys, values.len()),
            Lookup::New if values.len() > keys.len() => {
                let (used, keys) = used_values(values, keys)?;
                let count = used.len();
                gather(&compute(&with_null(&used)?)?, &keys, count)
            }
            Lookup::New | Lookup::Again => {
                let results = compute(&with_null(values)?)?;
                self.remember(values, &results);
                gather(&results, keys, values.len())
            }
        }
    }

    fn look_up(&self, values: &ArrayRef) -> Lookup {
        let mut known = self.known.lock();
        let Some(found) = known.iter().find(|known| same(&known.values, values)) else {
            if known.len() == REMEMBERED {
                known.remove(0);
            }
            known.push(Known { values: Arc::clone(values), results: None });
            return Lookup::New;
        };
        found.results.clone().map_or(Lookup::Again, Lookup::Known)
    }

    fn remember(&self, values: &ArrayRef, results: &ArrayRef) {
        let mut known = self.known.lock();
        if let Some(found) = known.iter_mut().find(|known| same(&known.values, values)) {
            found.results = Some(Arc::clone(results));
        }
    }
}

enum Lookup {
    Known(ArrayRef),
    Again,
    New,
}

/// Whether two arrays are the same memory.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    let (Some(a), Some(b)) = (a.as_string_opt::<i32>(), b.as_string_opt::<i32>()) else { return false };
    a.len() == b.len() && a.values().as_ptr() == b.values().as_ptr() && a.offsets().as_ptr() == b.offsets().as_ptr()
}

fn with_null(values: &ArrayRef) -> Result<ArrayRef, EngineError> {
    let null = new_null_array(values.data_type(), 1);
    Ok(concat(&[values.as_ref(), null.as_ref()])?)
}

/// The values that occur, and the keys renumbered for them.
fn used_values(values: &ArrayRef, keys: &Int32Array) -> Result<(ArrayRef, Int32Array), EngineError> {
    let mut renumbered = vec![-1_i32; values.len()];
    let mut used = Vec::new();
    let keys: Int32Array = keys
        .iter()
        .map(|key| {
            key.map(|key| {
                let slot = &mut renumbered[key as usize];
                if *slot < 0 {
                    *slot = used.len() as i32;
                    used.push(key);
                }
                *slot
            })
        })
        .collect();
    Ok((take(values, &Int32Array::from(used), None)?, keys))
}

/// Results by key; a null key takes the result behind the `count` values.
fn gather(results: &ArrayRef, keys: &Int32Array, count: usize) -> Result<ArrayRef, EngineError> {
    if keys.null_count() == 0 {
        return Ok(take(results, keys, None)?);
    }
    let keys: Int32Array = keys.iter().map(|key| Some(key.unwrap_or(count as i32))).collect();
    Ok(take(results, &keys, None)?)
}

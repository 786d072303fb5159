//! Distinct counts: exact for small groups, HyperLogLog above; `count_distinct` always exact.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xxhash_rust::xxh3::Xxh3;

use super::basic::conditional;
use super::{Accumulator, AggregateFunction};
use crate::functions::signature::{Arg, BOOL, LONG, Param, Resolved, fixed, optional};
use crate::types::Type;
use crate::value::{Dynamic, Key, Value};

/// Distinct values that are counted exactly before the sketch takes over.
const EXACT: usize = 16_384;
/// Bits of the hash that pick a register: 2^14 registers, a standard error of 0.8 %.
const PRECISION: u32 = 14;

pub(super) static AGGREGATES: &[AggregateFunction] = &[
    AggregateFunction::new("dcount", |a| optional(a, &[Param::Any, LONG], 1, Type::Long), |_| Box::new(Distinct::default())),
    AggregateFunction::new(
        "dcountif",
        |a| optional(a, &[Param::Any, BOOL, LONG], 2, Type::Long),
        |_| Box::new(DistinctIf(Distinct::default())),
    ),
    AggregateFunction::new("count_distinct", one, |_| Box::new(Exact::default())),
    AggregateFunction::new("count_distinctif", |a| fixed(a, &[Param::Any, BOOL], Type::Long), |_| conditional(Box::new(Exact::default()))),
];

fn one(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[Param::Any], Type::Long)
}

pub(super) fn hash(key: &Key) -> u64 {
    let mut hasher = Xxh3::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Hashes of the values while there are few, registers of a HyperLogLog afterwards.
#[derive(Default)]
pub(crate) struct Distinct {
    hashes: HashSet<u64>,
    registers: Vec<u8>,
}

impl Distinct {
    pub(super) fn insert(&mut self, hash: u64) {
        if !self.registers.is_empty() {
            return register(&mut self.registers, hash);
        }
        self.hashes.insert(hash);
        if self.hashes.len() > EXACT {
            self.registers = vec![0; 1 << PRECISION];
            for hash in std::mem::take(&mut self.hashes) {
                register(&mut self.registers, hash);
            }
        }
    }

    /// Takes in what another has counted.
    pub(crate) fn merge(&mut self, other: &Distinct) {
        other.hashes.iter().for_each(|hash| self.insert(*hash));
        if other.registers.is_empty() {
            return;
        }
        if self.registers.is_empty() {
            self.registers = vec![0; other.registers.len()];
            for hash in std::mem::take(&mut self.hashes) {
                register(&mut self.registers, hash);
            }
        }
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// The state as a value: the hashes as an array, or the registers as text.
    pub(crate) fn to_dynamic(&self) -> Dynamic {
        if self.registers.is_empty() {
            let mut hashes: Vec<i64> = self.hashes.iter().map(|hash| *hash as i64).collect();
            hashes.sort_unstable();
            return Dynamic::array(hashes.into_iter().map(Dynamic::Long).collect());
        }
        Dynamic::string(STANDARD.encode(&self.registers))
    }

    /// The state out of a value that [`Distinct::to_dynamic`] made.
    pub(crate) fn from_dynamic(value: &Dynamic) -> Option<Distinct> {
        match value {
            Dynamic::Array(items) if items.len() <= EXACT => {
                let hash = |item: &Dynamic| if let Dynamic::Long(hash) = item { Some(*hash as u64) } else { None };
                Some(Distinct { hashes: items.iter().map(hash).collect::<Option<_>>()?, registers: Vec::new() })
            }
            Dynamic::String(text) => {
                let registers = STANDARD.decode(&**text).ok()?;
                let valid = registers.len() == 1 << PRECISION && registers.iter().all(|rank| *rank <= 64);
                valid.then(|| Distinct { hashes: HashSet::new(), registers })
            }
            _ => None,
        }
    }

    pub(crate) fn count(&self) -> i64 {
        if self.registers.is_empty() { self.hashes.len() as i64 } else { estimate(&self.registers) }
    }
}

fn register(registers: &mut [u8], hash: u64) {
    let index = (hash >> (64 - PRECISION)) as usize;
    let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() as u8 + 1;
    registers[index] = registers[index].max(rank);
}

/// The estimate of Flajolet and others, with linear counting for few values.
fn estimate(registers: &[u8]) -> i64 {
    let count = registers.len() as f64;
    let alpha = 0.7213 / (1.0 + 1.079 / count);
    let sum: f64 = registers.iter().map(|rank| 2_f64.powi(-i32::from(*rank))).sum();
    let raw = alpha * count * count / sum;
    let zeros = registers.iter().filter(|rank| **rank == 0).count();
    let estimate = if raw <= 2.5 * count && zeros > 0 { count * (count / zeros as f64).ln() } else { raw };
    estimate.round() as i64
}

impl Accumulator for Distinct {
    fn update(&mut self, args: &[Value]) {
        if !args[0].is_null() {
            self.insert(hash(&args[0].group_key()));
        }
    }

    fn finish(&mut self) -> Value {
        Value::Long(self.count())
    }

    fn size(&self) -> usize {
        self.hashes.capacity() * 16 + self.registers.len()
    }
}

struct DistinctIf(Distinct);

impl Accumulator for DistinctIf {
    fn update(&mut self, args: &[Value]) {
        if crate::functions::is_true(&args[1]) {
            self.0.update(&args[..1]);
        }
    }

    fn finish(&mut self) -> Value {
        self.0.finish()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// All distinct values.
#[derive(Default)]
struct Exact {
    seen: HashSet<Key>,
    bytes: usize,
}

impl Accumulator for Exact {
    fn update(&mut self, args: &[Value]) {
        if !args[0].is_null() && self.seen.insert(args[0].group_key()) {
            self.bytes += 48 + args[0].as_str().map_or(0, str::len);
        }
    }

    fn finish(&mut self) -> Value {
        Value::Long(self.seen.len() as i64)
    }

    fn size(&self) -> usize {
        self.bytes
    }
}

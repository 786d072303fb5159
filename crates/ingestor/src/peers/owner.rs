//! Which ingestor owns a table: rendezvous hashing, so that a node that comes or goes moves its own tables and no others.

use wal::TableKey;
use xxhash_rust::xxh64::xxh64;

/// The node with the highest XXH64 of key and name; of several the one whose name is the smallest. None without nodes.
pub fn owner<'a>(key: &str, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |node: &str| xxh64([key, node].concat().as_bytes(), 0);
    let mut best: Option<(u64, &str)> = None;
    for node in nodes {
        let score = score(node);
        if best.is_none_or(|(high, name)| score > high || score == high && node < name) {
            best = Some((score, node));
        }
    }
    best.map(|(_, node)| node)
}

/// What a table is hashed by: the beginning of its segments' file names, `<database>_<table>[_<schema>]`.
pub fn hash_key(table: &TableKey) -> String {
    match table.schema.as_ref() {
        "" => format!("{}_{}", table.database, table.table),
        schema => format!("{}_{}_{schema}", table.database, table.table),
    }
}

//! The allocator of the collector, and how it is told to keep little.
//!
//! A node's memory belongs to the node's work. With its defaults jemalloc keeps freed pages for ten seconds in four arenas a
//! core; one arena that gives pages back after a fifth of a second holds a third less at 25,000 samples a second, for a few
//! percent of the CPU time (docs/performance.md). Whoever has memory to spare sets `_RJEM_MALLOC_CONF`, which is read later and
//! so wins.

// Proof: the one unsafe thing is the name of a symbol. jemalloc declares `const char *malloc_conf` under this name as weak,
// nobody else defines it, a reference to an array is such a pointer, and the text ends with a zero as C wants it.
#![allow(unsafe_code)]

use tikv_jemallocator::Jemalloc;

/// Steady memory under many small allocations from several threads.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Options of jemalloc, read before `main`.
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 62] = b"narenas:1,dirty_decay_ms:200,muzzy_decay_ms:0,tcache_max:4096\0";

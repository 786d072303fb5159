//! Integration tests of the `kql` crate: the recorded cases, and properties over arbitrary text.

mod corpus;
mod properties;
mod stored;

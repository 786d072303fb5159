//! What binding names, types and refuses.

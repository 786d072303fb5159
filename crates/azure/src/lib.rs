//! Access tokens of Microsoft Entra ID, for whatever Azure service asks for one.
//!
//! A [`TokenSource`] gives the current token for a [`Scope`]. [`Credentials`] makes one:
//! - [`Credentials::default_chain`] is the chain of Microsoft's SDKs: client secret or certificate from the
//!   environment, workload identity of Kubernetes, managed identity, Azure CLI. The first link that is set up serves; one
//!   that is set up and fails ends the chain, since another identity in its place would be a surprise.
//! - [`Credentials::managed_identity`] is one identity of the machine and nothing else.
//!
//! [`fixed_token`] is for a token that somebody else looks after.
//!
//! Tokens are kept per scope and renewed in the background once half of their life is over. However many callers wait,
//! one request is under way; while a renewal fails the old token serves, and tries come further and further apart.
//!
//! Tokens and secrets are shown by no `Debug`, error or log line.

mod answer;
mod cache;
mod certificate;
mod chain;
mod cli;
mod credentials;
mod directory;
mod error;
mod fixed;
mod http;
mod managed;
mod token;

pub use credentials::{Credentials, Environment, Identity, Now, Pauses};
pub use error::{Error, Kind};
pub use fixed::fixed_token;
pub use token::{Principal, Scope, Token, TokenSource};

//! What somebody can do about "unauthorized" and "forbidden": who was refused, and which role would help.

use crate::credentials::Proof;
use crate::error::Error;
use crate::text;

/// What a call needs the right for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Ingest,
    Change,
}

impl Access {
    /// What a management command needs, by its verb.
    pub(crate) fn of_command(csl: &str) -> Access {
        match csl.split_whitespace().next().unwrap_or_default() {
            ".show" => Access::Read,
            ".ingest" | ".append" | ".set-or-append" | ".get" => Access::Ingest,
            _ => Access::Change,
        }
    }

    /// The role, as `.add database` and as the portal have it.
    fn role(self) -> (&'static str, &'static str) {
        match self {
            Access::Read => ("viewers", "Viewer"),
            Access::Ingest => ("ingestors", "Ingestor"),
            Access::Change => ("admins", "Admin"),
        }
    }
}

/// Adds the way out to a refusal; other errors stay as they are.
pub(crate) fn explain(mut error: Error, proof: &Proof, access: Access, database: &str) -> Error {
    let way_out = match (error.status, proof) {
        (Some(401), Proof::None) => "no token was sent: there are no credentials, or the endpoint is not https".to_owned(),
        (Some(401), Proof::Token(token)) => {
            let principal = token.principal().and_then(|principal| principal.fqn()).unwrap_or_else(|| "an unknown principal".to_owned());
            format!("the token of {principal} is not taken; has it ended, or is the cluster in another tenant or cloud?")
        }
        (Some(403), proof) => {
            let (role, name) = access.role();
            let principal = match proof {
                Proof::Token(token) => token.principal().and_then(|principal| principal.fqn()),
                _ => None,
            };
            let principal = principal.unwrap_or_else(|| "aadapp=<client id>;<tenant id>".to_owned());
            let database_name = text::quote_name(database);
            format!(
                "the principal lacks the role Database {name}; a database admin grants it with .add database {database_name} {role} ('{principal}')"
            )
        }
        _ => return error,
    };
    error.message = format!("{}; {way_out}", error.message);
    error
}

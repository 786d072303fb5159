//! Tokens, what they are for, and where they come from.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The directories of Azure's clouds. A service may name one of these as its own, and no other: secrets are sent there.
const DIRECTORIES: [&str; 8] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
    "login.microsoftonline.eaglex.ic.gov",
    "login.microsoftonline.microsoft.scloud",
    "login.sovcloud-identity.fr",
];

/// What a token is for: a resource, and the cloud whose directory issues it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    resource: String,
    authority: Option<Url>,
}

impl Scope {
    /// A resource by its identifier, such as `https://management.azure.com/`, in the cloud of the environment.
    #[must_use]
    pub fn new(resource: &str) -> Scope {
        Scope { resource: resource.to_owned(), authority: None }
    }

    /// The same resource, with tokens issued by another cloud's directory. AZURE_AUTHORITY_HOST outweighs it.
    ///
    /// # Errors
    /// Where the address is not that of a directory of Azure, since secrets are sent there.
    pub fn with_authority(self, address: &str) -> Result<Scope, Error> {
        let known = Url::parse(address).ok().filter(|url| {
            url.scheme() == "https" && url.port().is_none() && url.host_str().is_some_and(|host| DIRECTORIES.contains(&host))
        });
        let Some(mut authority) = known else {
            return Err(Error::refused(format!("{address:?} is no directory of Azure; known are https:// and one of {DIRECTORIES:?}")));
        };
        authority.set_path("/");
        authority.set_query(None);
        Ok(Scope { authority: Some(authority), ..self })
    }

    /// The identifier of the resource.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    pub(crate) fn authority(&self) -> Option<&Url> {
        self.authority.as_ref()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)
    }
}

/// Gives tokens.
#[async_trait]
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// A token that is good now. Waits for one only where there is none.
    ///
    /// # Errors
    /// Where there is no token and none can be had; see [`Error`].
    async fn token(&self, scope: &Scope) -> Result<Arc<Token>, Error>;

    /// A token in place of one that the service refused. It is the same one again if that was issued a moment ago.
    ///
    /// # Errors
    /// As for [`TokenSource::token`]; the refused token stays in use elsewhere until it expires.
    async fn renew(&self, scope: &Scope, refused: &Token) -> Result<Arc<Token>, Error>;
}

/// An access token.
#[derive(Clone)]
pub struct Token {
    secret: SecretString,
    header: HeaderValue,
    expires: Timestamp,
}

impl Token {
    /// A token of a known end.
    ///
    /// # Errors
    /// Where it cannot be part of an HTTP header.
    pub fn new(secret: String, expires: Timestamp) -> Result<Token, Error> {
        let mut header = HeaderValue::from_str(&format!("Bearer {secret}"))
            .ok()
            .filter(|_| !secret.is_empty())
            .ok_or_else(|| Error::refused("the token is empty or has characters that no HTTP header may have"))?;
        header.set_sensitive(true);
        Ok(Token { secret: secret.into(), header, expires })
    }

    /// The value of an `Authorization` header, marked as sensitive.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Whether both are the same token.
    #[must_use]
    pub fn is(&self, other: &Token) -> bool {
        self.secret.expose_secret() == other.secret.expose_secret()
    }

    /// Whose token it is, where it says so. Not verified: good for messages only.
    #[must_use]
    pub fn principal(&self) -> Option<Principal> {
        claims(self.secret.expose_secret())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(until {})", self.expires)
    }
}

/// The identity that a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Principal {
    /// Application (client) id.
    #[serde(alias = "azp")]
    pub appid: Option<String>,
    /// Object id.
    pub oid: Option<String>,
    /// Tenant id.
    pub tid: Option<String>,
    /// Name of a user.
    pub upn: Option<String>,
}

impl Principal {
    /// The principal as Kusto's commands write it: `aadapp=<client id>;<tenant>`, `aaduser=<name or object id>;<tenant>`.
    #[must_use]
    pub fn fqn(&self) -> Option<String> {
        let tenant = self.tid.as_ref().map(|tenant| format!(";{tenant}")).unwrap_or_default();
        match (&self.upn, &self.appid, &self.oid) {
            (Some(user), _, _) => Some(format!("aaduser={user}{tenant}")),
            (None, Some(app), _) => Some(format!("aadapp={app}{tenant}")),
            (None, None, Some(object)) => Some(format!("aaduser={object}{tenant}")),
            (None, None, None) => None,
        }
    }
}

/// The claims of a JSON web token, unverified.
pub(crate) fn claims<T: DeserializeOwned>(token: &str) -> Option<T> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_azure_are_taken_for_one() {
        for address in
            ["https://login.microsoftonline.us", "https://login.partner.microsoftonline.cn/", "https://login.microsoftonline.com/x?y"]
        {
            let scope = Scope::new("r").with_authority(address).unwrap();
            assert_eq!(scope.authority().unwrap().path(), "/");
        }
        for address in [
            "http://login.microsoftonline.com",
            "https://login.microsoftonline.com.evil.example",
            "https://login.microsoftonline.com:444",
            "https://evil.example/login.microsoftonline.com",
            "login.microsoftonline.com",
            "",
        ] {
            assert!(Scope::new("r").with_authority(address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_token_shows_nothing_of_itself() {
        let token = Token::new("SECRET".to_owned(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(format!("{token:?} {:?}", token.header()), "Token(until 1970-01-01T00:00:00Z) Sensitive");
        assert_eq!(token.header().to_str().unwrap(), "Bearer SECRET");
        for bad in ["", "a\nb", "a\r\nX: y"] {
            let error = Token::new(bad.to_owned(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(!error.message.contains('\n'));
        }
    }

    /// Claims as Microsoft's reference of access tokens has them: `appid` in version 1, `azp` in version 2.
    #[test]
    fn a_principal_is_written_as_kusto_commands_have_it() {
        for (claims, fqn) in [
            (r#"{"appid":"A","oid":"O","tid":"T"}"#, Some("aadapp=A;T")),
            (r#"{"azp":"A","tid":"T"}"#, Some("aadapp=A;T")),
            (r#"{"upn":"me@example.com","appid":"A","tid":"T"}"#, Some("aaduser=me@example.com;T")),
            (r#"{"oid":"O"}"#, Some("aaduser=O")),
            ("{}", None),
        ] {
            let token = Token::new(format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims)), Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(token.principal().unwrap().fqn().as_deref(), fqn, "{claims}");
        }
        assert_eq!(Token::new("opaque".to_owned(), Timestamp::UNIX_EPOCH).unwrap().principal(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_token_makes_the_reader_of_claims_panic(text in "\\PC{0,40}|[A-Za-z0-9_.=-]{0,60}") {
            let _ = claims::<Principal>(&text);
        }
    }
}

//! The address of a Kusto service, checked before anything is sent to it.

use std::fmt;

use reqwest::Url;

use crate::error::Error;

/// Scheme, host and port of a service, without path, user or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// Reads `https://cluster.region.kusto.windows.net`, `http://127.0.0.1:8080` and the like.
    /// A path of a connection string (`;Fed=true`) and a trailing slash are cut off.
    ///
    /// # Errors
    /// A permanent error that names the endpoint, when it is no URL, not http or https, or
    /// carries a user name or password.
    pub fn parse(text: &str) -> Result<Endpoint, Error> {
        let bad = |why: &str| Error::invalid("ENDPOINT", format!("kusto endpoint {text:?} {why}; use https://host or http://host:port"));
        let address = text.trim().split(';').next().unwrap_or_default();
        let mut url = Url::parse(address).map_err(|e| bad(&format!("is no URL ({e})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad("is not http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            // Not repeated in the message: it holds a secret.
            return Err(Error::invalid("ENDPOINT", "a kusto endpoint must not carry a user or password in its URL"));
        }
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        Ok(Endpoint { url })
    }

    /// Whether traffic is encrypted.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the service is on this machine, by its name.
    pub fn is_loopback(&self) -> bool {
        match self.url.host_str() {
            Some("localhost" | "[::1]") => true,
            Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
            None => false,
        }
    }

    /// The data-management endpoint that belongs to an engine's: `ingest-` before the host, unless it is there or the host
    /// is an address or `localhost`.
    pub fn data_management(&self) -> Endpoint {
        let mut url = self.url.clone();
        let host = url.host_str().unwrap_or_default().to_owned();
        let is_address = host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
        if !is_address && !host.contains("localhost") && !host.contains("ingest-") {
            // a name with a prefix of letters is a name
            let _ = url.set_host(Some(&format!("ingest-{host}")));
        }
        Endpoint { url }
    }

    /// The host's name or address.
    pub(crate) fn host(&self) -> Option<&str> {
        self.url.host_str()
    }

    /// The URL of a route; each segment is escaped.
    pub(crate) fn route(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn usual_forms_are_read() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            (" https://c.kusto.windows.net/ ", "https://c.kusto.windows.net"),
            ("https://c.kusto.windows.net;Fed=true", "https://c.kusto.windows.net"),
            ("https://c.kusto.windows.net/db?x=1#y", "https://c.kusto.windows.net"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn others_are_refused_and_passwords_not_repeated() {
        for text in ["", "c.kusto.windows.net", "ftp://x", "http://"] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
        let error = Endpoint::parse("https://me:secret@host").unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn the_data_management_endpoint_has_a_prefix_unless_the_host_is_local() {
        for (engine, management) in [
            ("https://c.eastus.kusto.windows.net", "https://ingest-c.eastus.kusto.windows.net"),
            ("https://ingest-c.eastus.kusto.windows.net", "https://ingest-c.eastus.kusto.windows.net"),
            ("https://kusto.example:8443", "https://ingest-kusto.example:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost:8080", "http://localhost:8080"),
        ] {
            assert_eq!(Endpoint::parse(engine).unwrap().data_management().to_string(), management);
        }
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        let e = Endpoint::parse("http://localhost:1").unwrap();
        let url = e.route(&["v1", "rest", "ingest", "a/b", "c?d"]);
        assert_eq!(url.as_str(), "http://localhost:1/v1/rest/ingest/a%2Fb/c%3Fd");
        assert!(e.is_loopback());
    }

    proptest::proptest! {
        #[test]
        fn names_stay_one_segment_of_the_path(name in "\\PC{1,20}|[./?#%&a]{1,8}") {
            let e = Endpoint::parse("http://localhost:1").unwrap();
            let url = e.route(&["v1", "rest", "ingest", &name, "T"]);
            proptest::prop_assert_eq!(url.host_str(), Some("localhost"));
            proptest::prop_assert!(url.query().is_none() && url.fragment().is_none());
            proptest::prop_assert!(url.path().starts_with("/v1/rest/ingest/") && url.path().ends_with("/T"), "{}", url);
        }

        #[test]
        fn what_is_taken_is_http_without_user_or_path(text in "\\PC{0,40}|https?://[a-z:@./0-9;?#]{0,20}") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                let shown = endpoint.to_string();
                proptest::prop_assert!(shown.starts_with("http://") || shown.starts_with("https://"));
                proptest::prop_assert!(!shown.contains('@') && shown.matches('/').count() == 2, "{}", shown);
                proptest::prop_assert_eq!(Endpoint::parse(&shown).unwrap(), endpoint);
            }
        }
    }
}

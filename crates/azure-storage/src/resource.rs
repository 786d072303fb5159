//! One container, queue or table: its address, and the signature with which it may be used.

use std::fmt;

use reqwest::Url;

use crate::error::Error;

/// A container, queue or table with its signature, which `Debug` and `Display` leave out.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    url: Url,
}

impl Resource {
    /// Reads `https://account.blob.core.windows.net/container?sv=…&sig=…` and, for emulators,
    /// `http://127.0.0.1:10000/account/container?…`.
    ///
    /// # Errors
    /// When it is no http or https URL with a path; the message does not repeat it.
    pub fn parse(text: &str) -> Result<Resource, Error> {
        let bad = |why: &str| Error::invalid("reading an address of storage", "ADDRESS", why.to_owned());
        let mut url = Url::parse(text.trim()).map_err(|error| bad(&format!("it is no URL ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad("it is not http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it carries a user or password"));
        }
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        let resource = Resource { url };
        if resource.name().is_empty() {
            return Err(bad("it names no container, queue or table"));
        }
        Ok(resource)
    }

    /// The address without the signature.
    pub fn address(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.to_string()
    }

    /// The whole address: a secret.
    pub fn with_sas(&self) -> &str {
        self.url.as_str()
    }

    /// The whole address of something inside, such as a blob: a secret.
    pub fn with_sas_of(&self, segment: &str) -> String {
        self.route(&[segment]).to_string()
    }

    /// The storage account, as what fails or works together: a host, with the first segment of the path where the host is
    /// an emulator's.
    pub fn account(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map_or_else(String::new, |port| format!(":{port}"));
        match self.is_emulator() {
            true => format!("{host}{port}/{}", self.segments().next().unwrap_or_default()),
            // the services of an account differ in the second label only
            false => host.split('.').next().unwrap_or(host).to_owned(),
        }
    }

    /// The name of the container, queue or table.
    pub fn name(&self) -> &str {
        self.segments().nth(usize::from(self.is_emulator())).unwrap_or_default()
    }

    /// Emulators have the account in the path.
    fn is_emulator(&self) -> bool {
        match self.url.host_str() {
            Some("localhost") => true,
            Some(host) => host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok(),
            None => false,
        }
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.url.path_segments().into_iter().flatten()
    }

    /// The URL of something inside, each segment escaped, with the signature.
    pub(crate) fn route(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// The URL with a suffix to the last segment, as entities of tables have it.
    pub(crate) fn suffixed(&self, suffix: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{suffix}", self.url.path()));
        url
    }

    /// Whether a URL is of something inside.
    pub fn contains(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let inside = url.path().strip_prefix(self.url.path()).is_some_and(|rest| rest.starts_with('/') && rest.len() > 1);
        inside && url.origin() == self.url.origin()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn accounts_and_names_of_azure_and_of_emulators() {
        for (text, account, name) in [
            ("https://abc.blob.core.windows.net/temp-1?sv=1&sig=x", "abc", "temp-1"),
            ("https://abc.queue.core.windows.net/ready/?sig=x", "abc", "ready"),
            ("https://abc.z12.table.storage.azure.net/status?sig=x", "abc", "status"),
            ("http://127.0.0.1:10000/devstoreaccount1/temp?sig=x", "127.0.0.1:10000/devstoreaccount1", "temp"),
            ("http://localhost:1/a/b", "localhost:1/a", "b"),
            ("http://[::1]:1/a/b", "[::1]:1/a", "b"),
        ] {
            let resource = Resource::parse(text).unwrap();
            assert_eq!((resource.account().as_str(), resource.name()), (account, name), "{text}");
        }
    }

    #[test]
    fn signatures_are_shown_only_on_demand() {
        let resource = Resource::parse("https://abc.blob.core.windows.net/c?sv=1&sig=SECRET").unwrap();
        assert_eq!(format!("{resource} {resource:?}"), "https://abc.blob.core.windows.net/c Resource(https://abc.blob.core.windows.net/c)");
        assert_eq!(resource.with_sas_of("a b/c.gz"), "https://abc.blob.core.windows.net/c/a%20b%2Fc.gz?sv=1&sig=SECRET");
        for bad in [
            "",
            "ftp://x/y?sig=SECRET",
            "https://abc.blob.core.windows.net?sig=SECRET",
            "https://u:SECRET@h/c",
            "http://127.0.0.1/a?sig=SECRET",
        ] {
            let error = Resource::parse(bad).unwrap_err();
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn what_is_inside() {
        let resource = Resource::parse("https://abc.blob.core.windows.net/c?sig=x").unwrap();
        for (url, inside) in [
            ("https://abc.blob.core.windows.net/c/blob?sig=other", true),
            ("https://abc.blob.core.windows.net/c/", false),
            ("https://abc.blob.core.windows.net/cc/blob", false),
            ("https://abc.blob.core.windows.net/c/../d/blob", false),
            ("https://abc.blob.core.windows.net.evil.example/c/blob", false),
            ("http://abc.blob.core.windows.net/c/blob", false),
            ("nonsense", false),
        ] {
            assert_eq!(resource.contains(url), inside, "{url}");
        }
    }
}

//! Which services get a token. A token opens every Kusto that its principal may use, so it is not shown to whatever host a
//! configuration names: to the addresses of Kusto in Azure's clouds, and to hosts that the user has named.

use std::str::FromStr;

use reqwest::Url;

use crate::error::Error;

/// Ends of the names of Kusto services, one cloud a line, as Microsoft's SDKs trust them (`wellKnownKustoEndpoints.json`).
const SUFFIXES: &[&[&str]] = &[
    &[
        ".dxp.aad.azure.com",
        ".dxp-dev.aad.azure.com",
        ".kusto.azuresynapse.net",
        ".kusto.windows.net",
        ".kustodev.azuresynapse-dogfood.net",
        ".kustodev.windows.net",
        ".kustomfa.windows.net",
        ".playfabapi.com",
        ".playfab.com",
        ".azureplayfab.com",
        ".kusto.data.microsoft.com",
        ".kusto.fabric.microsoft.com",
        ".api.securityplatform.microsoft.com",
        ".securitycenter.windows.com",
        ".arg-int.core.windows.net",
        ".arg-df.core.windows.net",
        ".arg.core.windows.net",
    ],
    &[".kusto.usgovcloudapi.net", ".kustomfa.usgovcloudapi.net", ".arg.core.usgovcloudapi.net"],
    &[".kusto.azuresynapse.azure.cn", ".kusto.chinacloudapi.cn", ".kustomfa.chinacloudapi.cn", ".playfab.cn", ".arg.core.chinacloudapi.cn"],
    &[".kusto.core.eaglex.ic.gov", ".kustomfa.core.eaglex.ic.gov", ".arg.core.eaglex.ic.gov"],
    &[".kusto.core.microsoft.scloud", ".kustomfa.core.microsoft.scloud", ".arg.core.microsoft.scloud"],
    &[".kusto.sovcloud-api.fr", ".kustomfa.sovcloud-api.fr"],
];

/// Whole names of Kusto services and of what answers like one, from the same list.
const HOSTS: &[&[&str]] = &[
    &[
        "ade.applicationinsights.io",
        "ade.loganalytics.io",
        "adx.aimon.applicationinsights.azure.com",
        "adx.applicationinsights.azure.com",
        "adx.int.applicationinsights.azure.com",
        "adx.int.loganalytics.azure.com",
        "adx.int.monitor.azure.com",
        "adx.loganalytics.azure.com",
        "adx.monitor.azure.com",
        "kusto.aria.microsoft.com",
        "eu.kusto.aria.microsoft.com",
        "api.securityplatform.microsoft.com",
    ],
    &["adx.applicationinsights.azure.us", "adx.loganalytics.azure.us", "adx.monitor.azure.us"],
    &["adx.applicationinsights.azure.cn", "adx.loganalytics.azure.cn", "adx.monitor.azure.cn"],
    &["adx.applicationinsights.azure.eaglex.ic.gov", "adx.loganalytics.azure.eaglex.ic.gov", "adx.monitor.azure.eaglex.ic.gov"],
    &["adx.applicationinsights.azure.microsoft.scloud", "adx.loganalytics.azure.microsoft.scloud", "adx.monitor.azure.microsoft.scloud"],
    &["adx.applicationinsights.azure.fr", "adx.loganalytics.azure.fr", "adx.monitor.azure.fr"],
];

/// A host that the user trusts with tokens, beside those of Azure: `adx.example.com`, or `.example.com` for every host below
/// that domain. Ports do not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedHost(String);

impl FromStr for TrustedHost {
    type Err = Error;

    /// Reads the name or address of a host, or a dot and a domain.
    fn from_str(text: &str) -> Result<TrustedHost, Error> {
        let name = text.trim().to_ascii_lowercase();
        let host = name.strip_prefix('.').unwrap_or(&name);
        let read = Url::parse(&format!("https://{host}/")).ok();
        let is_host = read.is_some_and(|url| url.host_str() == Some(host) && url.port().is_none());
        if !is_host || host.contains('*') {
            let message = format!("trusted host {text:?} is no name of a host; write adx.example.com, or .example.com for all below it");
            return Err(Error::invalid("TRUSTED_HOST", message));
        }
        Ok(TrustedHost(name))
    }
}

impl TrustedHost {
    fn covers(&self, host: &str) -> bool {
        if self.0.starts_with('.') { host.ends_with(&self.0) } else { host == self.0 }
    }
}

/// Whether a host (in lower case, as URLs have it) may see a token.
pub(crate) fn is_trusted(host: &str, named: &[TrustedHost]) -> bool {
    let mut suffixes = SUFFIXES.iter().copied().flatten();
    suffixes.any(|suffix| host.ends_with(suffix)) || HOSTS.iter().any(|cloud| cloud.contains(&host)) || named.iter().any(|n| n.covers(host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn named(hosts: &[&str]) -> Vec<TrustedHost> {
        hosts.iter().map(|host| host.parse().unwrap()).collect()
    }

    /// Hosts from the tests of Microsoft's SDK for Python, `tests/test_kusto_trusted_endpoints.py`.
    #[test]
    fn services_of_azure_are_trusted_and_what_looks_like_them_is_not() {
        for host in [
            "kustozszokb5yrauyq.westeurope.kusto.windows.net",
            "c.kustomfa.windows.net",
            "c.kusto.fabric.microsoft.com",
            "c.r.kusto.usgovcloudapi.net",
            "c.r.kusto.chinacloudapi.cn",
            "c.kusto.core.microsoft.scloud",
            "ade.loganalytics.io",
            "kusto.aria.microsoft.com",
        ] {
            assert!(is_trusted(host, &[]), "{host}");
        }
        for host in [
            "kusto.windows.net.evil.example",
            "ckusto.windows.net",
            "kusto.windows.net",
            "login.microsoftonline.com",
            "x.ade.loganalytics.io",
            "evilkusto.aria.microsoft.com",
            "some.azurewebsites.net",
            "localhost",
            "127.0.0.1",
            "",
        ] {
            assert!(!is_trusted(host, &[]), "{host}");
        }
    }

    #[test]
    fn users_name_hosts_and_domains() {
        let named = named(&["ADX.Example.com", " .corp.internal ", "localhost", "10.0.0.1", "[::1]"]);
        for host in ["adx.example.com", "a.corp.internal", "a.b.corp.internal", "localhost", "10.0.0.1", "[::1]"] {
            assert!(is_trusted(host, &named), "{host}");
        }
        for host in ["b.adx.example.com", "corp.internal", "acorp.internal", "10.0.0.11", "example.com"] {
            assert!(!is_trusted(host, &named), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "https://adx.example.com",
            "adx.example.com:443",
            "adx.example.com:8443",
            "a/b",
            "*.example.com",
            "a b",
            "me@host",
            "a?b",
            "a#b",
        ] {
            let error = text.parse::<TrustedHost>().unwrap_err();
            assert!(error.message.contains(&format!("{text:?}")) && error.message.contains("adx.example.com"), "{error}");
        }
    }
}

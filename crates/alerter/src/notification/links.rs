//! Links that open a query in Kusto's user interfaces, and the query itself for those who cannot follow them.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Url;

use super::text::{escape_html, shortened};

/// Longest link: browsers and mail programs cut longer ones.
const MAX_LINK: usize = 8 << 10;
/// Longest query that is shown, in characters.
const MAX_SHOWN: usize = 16 << 10;

/// The end of a summary: links and the query, as HTML.
#[derive(Debug, Clone)]
pub struct Links {
    html: String,
    url: Option<String>,
}

impl Links {
    /// Links to `query` in `database` of the cluster at `endpoint`. There are none where the endpoint is no URL, or where
    /// the query is too long for one.
    #[must_use]
    pub fn new(endpoint: &str, database: &str, query: &str) -> Links {
        let mut html = "<br/><br/>".to_owned();
        let mut url = deep_link(endpoint, database, query);
        match &url {
            Some(link) if link.len() <= MAX_LINK => html.push_str(&format!(
                "Execute in <a href=\"{link}\">[Web]</a> <a href=\"{link}&web=0\">[Desktop]</a> \
                 <a href=\"{link}&saw=1\">[Desktop (SAW)]</a><br/>"
            )),
            Some(_) => {
                html.push_str("The query is too long for a link.<br/>");
                url = None;
            }
            None => {}
        }
        let shown = escape_html(&shortened(query, MAX_SHOWN));
        html.push_str(&format!("<details><summary>Click here to show query</summary><pre>{shown}</pre></details>"));
        Links { html, url }
    }

    /// The HTML.
    #[must_use]
    pub fn html(&self) -> &str {
        &self.html
    }

    /// The link to the web interface.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }
}

/// `<endpoint>/<database>?query=<base64 of gzip>`, escaped as URLs are.
fn deep_link(endpoint: &str, database: &str, query: &str) -> Option<String> {
    let mut url = Url::parse(endpoint).ok()?;
    url.path_segments_mut().ok()?.clear().push(database);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(query.as_bytes()).ok()?;
    url.query_pairs_mut().append_pair("query", &STANDARD.encode(gzip.finish().ok()?));
    Some(url.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_survive_as_urls() {
        // enough queries that every character of base64 occurs
        for n in 0..50 {
            let query = format!("T | where x == {n} and y in (1, 2, {})", n * 7919);
            let link = deep_link("https://c.kusto.windows.net", "my DB", &query).unwrap();
            assert!(!link.contains(['+', ' ']), "{link}");
            let url = Url::parse(&link).unwrap();
            assert_eq!(url.path(), "/my%20DB");
            let data = STANDARD.decode(&*url.query_pairs().next().unwrap().1).unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&data[..]), &mut text).unwrap();
            assert_eq!(text, query);
        }
    }

    #[test]
    fn what_cannot_be_linked_is_shown_all_the_same() {
        assert!(Links::new("unknown", "DB", "T").html().starts_with("<br/><br/><details>"));
        // xorshift: nothing that gzip could make short
        let mut seed = 88_172_645_463_325_252_u64;
        let mut letter = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            char::from(b'a' + (seed % 26) as u8)
        };
        let long: String = (0..400_000).map(|_| letter()).collect();
        let links = Links::new("https://c", "DB", &long);
        assert!(links.html().len() < 20 << 10 && links.html().contains("too long for a link"), "{}", links.html().len());
        assert_eq!(links.url(), None);
    }
}

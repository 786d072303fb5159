//! Block blobs: blocks are put one by one, in any order, and a list of them makes the blob.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Response;

use crate::client::{Repeat, Storage};
use crate::error::Error;
use crate::resource::Resource;

impl Storage {
    /// Puts block number `block` of a blob, up to 4,000 MiB. Nobody sees it before the list.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_block(&self, container: &Resource, blob: &str, block: u32, bytes: Bytes) -> Result<(), Error> {
        let doing = format!("putting block {block} of blob {container}/{blob}");
        let mut url = container.route(&[blob]);
        url.query_pairs_mut().append_pair("comp", "block").append_pair("blockid", &block_id(block));
        self.send(&doing, Repeat::Always, |http| http.put(url.clone()).body(bytes.clone())).await.map(drop)
    }

    /// Makes the blob of its first `blocks` blocks, as they were put last; an older blob of the name is replaced.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_block_list(&self, container: &Resource, blob: &str, blocks: u32) -> Result<(), Error> {
        let doing = format!("putting the block list of blob {container}/{blob}");
        let mut list = String::from(r#"<?xml version="1.0" encoding="utf-8"?><BlockList>"#);
        for block in 0..blocks {
            let _ = write!(list, "<Latest>{}</Latest>", block_id(block));
        }
        list.push_str("</BlockList>");
        let list = Bytes::from(list);
        let mut url = container.route(&[blob]);
        url.query_pairs_mut().append_pair("comp", "blocklist");
        self.send(&doing, Repeat::Always, |http| http.put(url.clone()).body(list.clone())).await.map(drop)
    }

    /// Begins to read the blob at `url`, which has its signature.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_blob(&self, url: &str) -> Result<Download, Error> {
        let doing = format!("reading blob {}", without_query(url));
        let response = self.send(&doing, Repeat::Always, |http| http.get(url)).await?;
        Ok(Download { doing, response })
    }

    /// Deletes the blob at `url`, which has its signature; one that is gone already is as good.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_blob(&self, url: &str) -> Result<(), Error> {
        let doing = format!("deleting blob {}", without_query(url));
        let deleted = self.send(&doing, Repeat::Always, |http| http.delete(url).header("x-ms-delete-snapshots", "include")).await;
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A blob that is being read.
#[derive(Debug)]
pub struct Download {
    doing: String,
    response: Response,
}

impl Download {
    /// The size of the blob, if the service says it.
    pub fn size(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the connection broke; the blob has to be read from its start.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.response.chunk().await.map_err(|error| Error::from_transport(&self.doing, error))
    }
}

/// Ids of one blob must be of one length.
fn block_id(block: u32) -> String {
    STANDARD.encode(format!("{block:09}"))
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

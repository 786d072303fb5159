//! An account with its key: addresses with signatures, and what is behind them.
//!
//! Signatures are account SAS: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::Url;
use ring::hmac;

use crate::client::{Repeat, Storage};
use crate::error::Error;
use crate::resource::Resource;

/// The version of the rules by which a signature is made.
const SAS_VERSION: &str = "2021-12-02";

/// What a signature allows, as the service abbreviates it, in the service's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Read, write, delete, list, add, create, update, process: everything that [`Storage`] does.
    All,
    /// What a client of queued ingestion does: writes blobs, puts messages, adds and reads rows.
    Client,
}

impl Permissions {
    fn letters(self) -> &'static str {
        match self {
            Permissions::All => "rwdlacup",
            Permissions::Client => "rwacup",
        }
    }
}

/// An account with its key, which `Debug` leaves out.
#[derive(Clone)]
pub struct Account {
    name: String,
    key: hmac::Key,
    blob: Url,
    queue: Url,
    table: Url,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, {})", self.name, self.blob)
    }
}

impl Account {
    /// Reads a connection string: `DefaultEndpointsProtocol=http;AccountName=…;AccountKey=…;BlobEndpoint=…;QueueEndpoint=…;
    /// TableEndpoint=…`. Endpoints that are not given are Azure's, with `EndpointSuffix` or `core.windows.net`.
    ///
    /// # Errors
    /// When a part is missing or unusable; the message does not repeat the key.
    pub fn parse(connection_string: &str) -> Result<Account, Error> {
        let bad = |why: String| Error::invalid("reading a connection string of storage", "ADDRESS", why);
        let part = |name: &str| {
            let parts = connection_string.split(';').filter_map(|part| part.split_once('='));
            parts.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
        };
        let name = part("AccountName").filter(|name| !name.is_empty()).ok_or_else(|| bad("it has no AccountName".to_owned()))?;
        let key = part("AccountKey").ok_or_else(|| bad("it has no AccountKey".to_owned()))?;
        let key = STANDARD.decode(key).map_err(|_| bad("its AccountKey is no Base64".to_owned()))?;
        let endpoint = |service: &str, given: Option<&str>| {
            let protocol = part("DefaultEndpointsProtocol").unwrap_or("https");
            let suffix = part("EndpointSuffix").unwrap_or("core.windows.net");
            let text = given.map_or_else(|| format!("{protocol}://{name}.{service}.{suffix}"), str::to_owned);
            Url::parse(&text).map_err(|error| bad(format!("its endpoint of {service}s, {text:?}, is no URL ({error})")))
        };
        Ok(Account {
            name: name.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            blob: endpoint("blob", part("BlobEndpoint"))?,
            queue: endpoint("queue", part("QueueEndpoint"))?,
            table: endpoint("table", part("TableEndpoint"))?,
        })
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A container with a signature.
    ///
    /// # Errors
    /// For a name that cannot be one.
    pub fn container(&self, name: &str, permissions: Permissions, until: Timestamp) -> Result<Resource, Error> {
        self.resource(&self.blob, "b", name, permissions, until)
    }

    /// A queue with a signature.
    ///
    /// # Errors
    /// For a name that cannot be one.
    pub fn queue(&self, name: &str, permissions: Permissions, until: Timestamp) -> Result<Resource, Error> {
        self.resource(&self.queue, "q", name, permissions, until)
    }

    /// A table with a signature.
    ///
    /// # Errors
    /// For a name that cannot be one.
    pub fn table(&self, name: &str, permissions: Permissions, until: Timestamp) -> Result<Resource, Error> {
        self.resource(&self.table, "t", name, permissions, until)
    }

    fn resource(&self, endpoint: &Url, service: &str, name: &str, permissions: Permissions, until: Timestamp) -> Result<Resource, Error> {
        let mut url = endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(name);
        }
        self.sign(&mut url, service, permissions, until);
        Resource::parse(url.as_str())
    }

    /// Adds an account SAS to an address.
    fn sign(&self, url: &mut Url, service: &str, permissions: Permissions, until: Timestamp) {
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (types, protocols) = ("co", "https,http");
        let letters = permissions.letters();
        // start, addresses and encryption scope are empty
        let to_sign = format!("{}\n{letters}\n{service}\n{types}\n\n{until}\n\n{protocols}\n{SAS_VERSION}\n\n", self.name);
        let signature = STANDARD.encode(hmac::sign(&self.key, to_sign.as_bytes()));
        url.query_pairs_mut()
            .append_pair("sv", SAS_VERSION)
            .append_pair("ss", service)
            .append_pair("srt", types)
            .append_pair("spr", protocols)
            .append_pair("se", &until)
            .append_pair("sp", letters)
            .append_pair("sig", &signature);
    }
}

impl Storage {
    /// Makes a container, unless there is one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_container(&self, container: &Resource) -> Result<(), Error> {
        let mut url = container.route(&[]);
        url.query_pairs_mut().append_pair("restype", "container");
        let made = self.send(&format!("making container {container}"), Repeat::Always, |http| http.put(url.clone())).await;
        unless_there(made.map(drop))
    }

    /// Makes a queue, unless there is one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_queue(&self, queue: &Resource) -> Result<(), Error> {
        let url = queue.route(&[]);
        unless_there(self.send(&format!("making queue {queue}"), Repeat::Always, |http| http.put(url.clone())).await.map(drop))
    }

    /// Makes a table, unless there is one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_table(&self, table: &Resource) -> Result<(), Error> {
        let mut url = table.route(&[]);
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop().push("Tables");
        }
        let body = serde_json::json!({ "TableName": table.name() }).to_string();
        let request = |http: &reqwest::Client| {
            let request = http.post(url.clone()).header("Accept", "application/json;odata=nometadata");
            request.header("Content-Type", "application/json").body(body.clone())
        };
        unless_there(self.send(&format!("making table {table}"), Repeat::Always, request).await.map(drop))
    }
}

fn unless_there(made: Result<(), Error>) -> Result<(), Error> {
    match made {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

//! One connection to a receiver: opening with TLS and the key handshake, writing, acknowledgements.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rmpv::Value;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use sha2::{Digest as _, Sha512};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Destination, FluentConfig};
use crate::attempt::{Again, Failure, first_words};

/// For connecting, as the reference.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a receiver may take to ask for a key.
const HELO_TIMEOUT: Duration = Duration::from_secs(5);
/// No message of a receiver is longer.
const LONGEST_MESSAGE: usize = 64 << 10;
/// Nor has more levels: HELO has two.
const DEEPEST_MESSAGE: usize = 16;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// What was read and is no whole message yet.
    read: Vec<u8>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) async fn open(config: &FluentConfig) -> Result<Connection, Failure> {
        let away = |error: io::Error| Failure::passing(format!("no connection: {error}"));
        let opened = tokio::time::timeout(DIAL_TIMEOUT, dial(config));
        let stream = opened.await.map_err(|_| Failure::passing("no connection within 10 s"))?.map_err(away)?;
        let mut connection = Connection::over(stream);
        if let Some(file) = &config.shared_key_file {
            let key = tokio::fs::read_to_string(file).await;
            let key = key.map_err(|error| Failure::passing(format!("the shared key in {} cannot be read: {error}", file.display())))?;
            connection.introduce(key.trim()).await?;
        }
        Ok(connection)
    }

    pub(crate) fn over(stream: Box<dyn Stream>) -> Connection {
        Connection { stream, read: Vec::new() }
    }

    /// Whether the receiver has not closed it, as far as is known here.
    pub(super) fn is_open(&mut self) -> bool {
        // A receiver says nothing unasked, so there is nothing to read, or the end.
        self.stream.read(&mut [0; 64]).now_or_never().is_none()
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let lost = |error: io::Error| Failure::passing(format!("the connection broke: {error}"));
        self.stream.write_all(bytes).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }

    /// Waits for `{"ack": chunk}`.
    pub(crate) async fn acknowledged(&mut self, chunk: &str, patience: Duration) -> Result<(), Failure> {
        let answer = tokio::time::timeout(patience, self.message()).await;
        let answer = answer.map_err(|_| Failure::passing(format!("no acknowledgement within {patience:?}")))??;
        let members = answer.as_map().map(Vec::as_slice).unwrap_or_default();
        let ack = members.iter().find(|(key, _)| key.as_str() == Some("ack")).and_then(|(_, ack)| ack.as_str());
        match ack {
            Some(ack) if ack == chunk => Ok(()),
            _ => Err(Failure::passing(format!("the receiver acknowledged something else: {}", first_words(&answer.to_string())))),
        }
    }

    /// The handshake of a receiver with a shared key: HELO, PING, PONG.
    pub(crate) async fn introduce(&mut self, key: &str) -> Result<(), Failure> {
        let helo = tokio::time::timeout(HELO_TIMEOUT, self.message()).await;
        let helo = helo.map_err(|_| Failure::passing("the receiver does not ask for a shared key: remove shared-key-file"))??;
        let nonce = item(&helo, 1)
            .and_then(Value::as_map)
            .and_then(|options| options.iter().find(|(name, _)| name.as_str() == Some("nonce")).and_then(|(_, nonce)| bytes_of(nonce)));
        let (Some("HELO"), Some(nonce)) = (item(&helo, 0).and_then(Value::as_str), nonce) else {
            return Err(Failure::passing("the receiver does not begin with HELO and a nonce"));
        };
        let salt = uuid::Uuid::new_v4().into_bytes();
        let digest =
            |host: &str| hex(&Sha512::new().chain_update(salt).chain_update(host).chain_update(&nonce).chain_update(key).finalize());
        let ping = ["PING".into(), CLIENT.into(), Value::Binary(salt.to_vec()), digest(CLIENT).into(), "".into(), "".into()];
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &Value::Array(ping.to_vec())).map_err(|error| Failure::passing(error.to_string()))?;
        self.write(&bytes).await?;
        let pong = tokio::time::timeout(HELO_TIMEOUT, self.message()).await;
        let pong = pong.map_err(|_| Failure::passing("the receiver does not answer PING"))??;
        if item(&pong, 1).and_then(Value::as_bool) != Some(true) {
            let why = item(&pong, 2).and_then(Value::as_str).unwrap_or_default();
            return Err(Failure::passing(format!("the receiver refuses the shared key: {}", first_words(why))));
        }
        let host = item(&pong, 3).and_then(Value::as_str).unwrap_or_default();
        if item(&pong, 4).and_then(Value::as_str) != Some(&digest(host)) {
            return Err(Failure::passing("the receiver does not know the shared key itself"));
        }
        Ok(())
    }

    /// The next message of the receiver.
    async fn message(&mut self) -> Result<Value, Failure> {
        loop {
            let mut rest = self.read.as_slice();
            let value = rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST_MESSAGE);
            if let Ok(value) = value {
                let taken = self.read.len() - rest.len();
                self.read.drain(..taken);
                return Ok(value);
            }
            let too_deep = matches!(value, Err(rmpv::decode::Error::DepthLimitExceeded));
            if too_deep || self.read.len() >= LONGEST_MESSAGE {
                return Err(Failure { why: "the receiver does not speak the forward protocol".to_owned(), again: Again::After(None) });
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) => return Err(Failure::passing("the receiver closed the connection")),
                Ok(_) => {}
                Err(error) => return Err(Failure::passing(format!("the connection broke: {error}"))),
            }
        }
    }
}

/// How we call ourselves in the handshake.
const CLIENT: &str = "adx-mon";

async fn dial(config: &FluentConfig) -> io::Result<Box<dyn Stream>> {
    let tcp = |address: String| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    match &config.destination {
        Destination::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Destination::Tcp(address) => Ok(Box::new(tcp(address.clone()).await?)),
        Destination::Tls(address) => {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(tls(config)?));
            Ok(Box::new(connector.connect(name, tcp(address.clone()).await?).await?))
        }
    }
}

fn tls(config: &FluentConfig) -> io::Result<ClientConfig> {
    let builder = match &config.ca_file {
        None => ClientConfig::builder().with_platform_verifier().map_err(io::Error::other)?,
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unusable(file, &error))?;
            }
            ClientConfig::builder().with_root_certificates(roots)
        }
    };
    let Some((certificate, key)) = &config.client_certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(certificate, &error))
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|error| unusable(file, &error))
}

fn unusable(file: &Path, error: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!("{} cannot be used: {error}", file.display()))
}

fn item(message: &Value, index: usize) -> Option<&Value> {
    message.as_array()?.get(index)
}

fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    value.as_slice().or_else(|| value.as_str().map(str::as_bytes)).map(<[u8]>::to_vec)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

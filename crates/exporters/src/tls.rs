//! Certificates of connections to receivers, which are replaced while an exporter runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long what was read of the files is good.
const FRESH: Duration = Duration::from_secs(10);

/// Makes ring the crypto provider of the process, unless another one serves already.
pub(crate) fn install_crypto() {
    // An error says that one is installed, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Where certificates are.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSources {
    /// Authorities that may have signed the receiver's certificate; the system's when absent.
    pub(crate) ca: Option<PathBuf>,
    /// A certificate chain that shows who this is, and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// What the files hold.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsPem {
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsSources {
    fn read(&self) -> Result<TlsPem, String> {
        let ca = self.ca.as_deref().map(|file| read(file, "CA file")).transpose()?;
        let identity = match &self.identity {
            Some((certificate, key)) => Some((read(certificate, "client certificate")?, read(key, "client key")?)),
            None => None,
        };
        Ok(TlsPem { ca, identity })
    }
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("has a {what} {} that cannot be read ({error})", file.display()))
}

/// Makes something of what the files hold.
type Make<T> = Box<dyn Fn(&TlsPem) -> Result<T, String> + Send + Sync>;

/// What is made of files, made again when they change.
pub(crate) struct Renewed<T> {
    sources: TlsSources,
    make: Make<T>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    read: Instant,
    pem: TlsPem,
    made: T,
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl<T: Clone> Renewed<T> {
    /// Reads the files for the first time.
    pub(crate) fn new(
        sources: TlsSources,
        make: impl Fn(&TlsPem) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Renewed<T>, String> {
        let pem = sources.read()?;
        let made = make(&pem)?;
        let current = Mutex::new(Current { read: Instant::now(), pem, made });
        Ok(Renewed { sources, make: Box::new(make), current })
    }

    /// What to use now. Files that cannot be used leave what was made of those before.
    pub(crate) fn get(&self) -> T {
        let mut current = self.current.lock();
        if current.read.elapsed() >= FRESH {
            current.read = Instant::now();
            if let Err(error) = self.renew(&mut current) {
                tracing::error!(error, "the certificates of before are used on: an exporter");
            }
        }
        current.made.clone()
    }

    fn renew(&self, current: &mut Current<T>) -> Result<(), String> {
        let pem = self.sources.read()?;
        if pem != current.pem {
            current.made = (self.make)(&pem)?;
            current.pem = pem;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_files_hold_is_used_once_it_changes_and_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, "one").unwrap();
        let make = |pem: &TlsPem| match pem.ca.as_deref() {
            Some(b"broken") => Err("it is broken".to_owned()),
            ca => Ok(ca.map(<[u8]>::to_vec)),
        };
        let renewed = Renewed::new(TlsSources { ca: Some(file.clone()), identity: None }, make).unwrap();
        let now = || renewed.get().map(|ca| String::from_utf8(ca).unwrap());
        std::fs::write(&file, "two").unwrap();
        assert_eq!(now().as_deref(), Some("one"), "files are not read for every request");
        for (content, wanted) in [("two", "two"), ("broken", "two"), ("three", "three")] {
            std::fs::write(&file, content).unwrap();
            tokio::time::advance(FRESH).await;
            assert_eq!(now().as_deref(), Some(wanted), "{content}");
        }
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!(now().as_deref(), Some("three"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let sources = TlsSources { ca: None, identity: Some(("/no/such.crt".into(), "/no/such.key".into())) };
        let error = Renewed::new(sources, |_| Ok(())).unwrap_err();
        assert!(error.starts_with("has a client certificate /no/such.crt that cannot be read"), "{error}");
    }
}

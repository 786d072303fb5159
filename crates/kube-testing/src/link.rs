//! A way to the API server that a test can cut, so that one client is without a server that others reach.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They reach the server.
    Open,
    /// They end, and so does each new one.
    Cut,
    /// They stay, and nothing comes through.
    Silent,
}

/// A proxy before the API server.
pub struct Link {
    way: watch::Sender<Way>,
    server: u16,
    port: u16,
    _accepting: JoinSet<()>,
}

impl Link {
    pub(crate) async fn new(server: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let way = watch::Sender::new(Way::Open);
        let (mut accepting, told) = (JoinSet::new(), way.subscribe());
        accepting.spawn(accept(listener, server, told));
        Ok(Self { way, server, port, _accepting: accepting })
    }

    /// Opens or cuts the way.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// A copy of a kubeconfig of this server, beside it, that takes this way.
    pub fn kubeconfig(&self, of: &Path) -> Result<PathBuf> {
        let text = fs::read_to_string(of).with_context(|| of.display().to_string())?;
        let (direct, through) = (format!("https://127.0.0.1:{}\"", self.server), format!("https://127.0.0.1:{}\"", self.port));
        ensure!(text.contains(&direct), "{} does not lead to {direct}", of.display());
        let path = of.with_extension(format!("{}.kubeconfig", self.port));
        fs::write(&path, text.replace(&direct, &through))?;
        Ok(path)
    }
}

async fn accept(listener: TcpListener, server: u16, way: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                connections.spawn(pass(client, server, way.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(mut client: TcpStream, server: u16, mut way: watch::Receiver<Way>) {
    if way.wait_for(|way| *way != Way::Silent).await.is_ok_and(|way| *way == Way::Cut) {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let copy = tokio::io::copy_bidirectional(&mut client, &mut server);
    tokio::pin!(copy);
    loop {
        let is_open = match *way.borrow_and_update() {
            Way::Cut => return,
            Way::Silent => false,
            Way::Open => true,
        };
        tokio::select! {
            _ = &mut copy, if is_open => return,
            changed = way.changed() => if changed.is_err() { return },
        }
    }
}

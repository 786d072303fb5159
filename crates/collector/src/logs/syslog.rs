//! Syslog, which others send: over UDP, TCP and TLS.
//!
//! Senders keep nothing and get no answer, so what is lost is decided here: a TCP sender is read no further while the
//! store does not take records, and datagrams for which there is no room are counted. A reload replaces what becomes of
//! messages; sockets and connections stay through it, unless the address, the protocol or the TLS of a server changes.

mod datagrams;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{FutureExt, StreamExt};
use host_logs::syslog::{Frame, Framing, FramingError, record};
use logs::Record;
use parking_lot::RwLock;
use server::{Marks, Tls, TlsFiles};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::{Decoder as _, FramedRead};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Delivery, journal::parse};
use crate::config::{Config, SyslogProtocol, SyslogSource, settings};
use crate::pipeline::Pipeline;

/// Records that wait for the store.
const QUEUE: usize = 4096;

/// Records of one commit.
const MAX_BATCH: usize = 1000;

/// How long the first record of a commit waits for others.
const BATCH_TIME: Duration = Duration::from_millis(200);

/// A sender that is silent for longer is forgotten.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// A TLS handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// At the end of a server, senders are listened to until they are silent for so long ...
const SILENCE: Duration = Duration::from_millis(100);

/// ... and no longer than this.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// In a reload, servers that end have so long to store what they received.
const END: Duration = Duration::from_secs(10);

/// How often the files of a certificate are looked at.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(10);

/// The syslog servers that run.
#[derive(Default)]
pub(crate) struct Servers(Vec<Server>);

struct Server {
    addr: SocketAddr,
    handling: Live,
    stop: CancellationToken,
    /// What cannot be stored is lost from then on.
    give_up: CancellationToken,
    task: JoinHandle<()>,
}

/// What becomes of messages.
struct Handling {
    settings: SyslogSource,
    delivery: Delivery,
    /// Ends what follows the node for it.
    _following: DropGuard,
}

impl Handling {
    fn new(pipeline: &Pipeline, settings: &SyslogSource, config: &Config, stop: &CancellationToken) -> Arc<Handling> {
        let following = stop.child_token();
        let delivery = Delivery::new(pipeline, "syslog", &settings.shared, config, &following);
        Arc::new(Handling { settings: settings.clone(), delivery, _following: following.drop_guard() })
    }

    fn record(&self, message: &[u8]) -> Record {
        let mut record = record(message, chrono::Utc::now(), &self.settings.destination);
        self.delivery.problem("utf8", u64::from(std::str::from_utf8(message).is_err()));
        // Every syslog message begins with its priority.
        self.delivery.problem("format", u64::from(!record.attributes.contains_key("priority")));
        if !self.settings.shared.parsers.is_empty() {
            parse(&self.settings.shared.parsers, &mut record);
        }
        record
    }
}

/// What becomes of messages at present.
#[derive(Clone)]
struct Live(Arc<RwLock<Arc<Handling>>>);

impl Live {
    fn now(&self) -> Arc<Handling> {
        Arc::clone(&self.0.read())
    }
}

impl Servers {
    /// Runs those of `config`: a server for a new socket is started, one whose socket is no longer there ends, and others go on
    /// with their new settings. `stop` ends them all.
    ///
    /// # Errors
    /// A taken port or an unusable certificate. Servers that run then go on, with the settings they had.
    pub(crate) async fn follow(&mut self, pipeline: &Pipeline, config: &Config, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut wanted: Vec<&SyslogSource> = config.syslog.iter().collect();
        let (mut kept, mut ended) = (Vec::new(), Vec::new());
        for server in std::mem::take(&mut self.0) {
            match wanted.iter().position(|settings| server.listens_for(settings)) {
                Some(at) => {
                    kept.push(wanted.remove(at));
                    self.0.push(server);
                }
                None => ended.push(server),
            }
        }
        end(ended, Instant::now() + END).await;
        for settings in wanted {
            self.0.push(Server::start(pipeline, settings, config, stop).await?);
        }
        for (server, settings) in self.0.iter().zip(kept) {
            *server.handling.0.write() = Handling::new(pipeline, settings, config, &server.stop);
        }
        Ok(())
    }

    /// Where they listen, in the order of their start.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|server| server.addr).collect()
    }

    /// Ends them all, with what they received stored if the store takes it before `deadline`.
    pub(crate) async fn end(&mut self, deadline: Instant) {
        end(std::mem::take(&mut self.0), deadline).await;
    }
}

async fn end(servers: Vec<Server>, deadline: Instant) {
    servers.iter().for_each(|server| server.stop.cancel());
    for mut server in servers {
        let ended = match timeout_at(deadline, &mut server.task).await {
            Ok(ended) => Ok(ended),
            Err(_) => {
                server.give_up.cancel();
                timeout(2 * LAST_WORDS, &mut server.task).await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(addr = %server.addr, %error, "a syslog server failed"),
            Err(_) => tracing::error!(addr = %server.addr, "a syslog server does not end: the store does not answer"),
        }
    }
}

impl Server {
    async fn start(pipeline: &Pipeline, settings: &SyslogSource, config: &Config, stop: &CancellationToken) -> anyhow::Result<Server> {
        let listen = || format!("listening for syslog on {} (is another process using the port?)", settings.listen_addr);
        let (stop, give_up) = (stop.child_token(), CancellationToken::new());
        let handling = Live(Arc::new(RwLock::new(Handling::new(pipeline, settings, config, &stop))));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let receiver = Receiver { handling: handling.clone(), queue, stop: stop.clone() };
        let storing = store(handling.clone(), waiting, give_up.clone());
        let at = addresses(&settings.listen_addr).await.with_context(listen)?;
        let (addr, task) = match settings.protocol {
            SyslogProtocol::Udp => {
                let socket = UdpSocket::bind(at.as_slice()).await.with_context(listen)?;
                datagrams::enlarge_buffer(&socket);
                (socket.local_addr()?, tokio::spawn(serve(receiver.datagrams(socket), storing)))
            }
            SyslogProtocol::Tcp => {
                let listener = TcpListener::bind(at.as_slice()).await.with_context(listen)?;
                let tls = tls(settings.tls.as_ref(), &stop)?;
                (listener.local_addr()?, tokio::spawn(serve(receiver.connections(listener, tls), storing)))
            }
        };
        tracing::info!(%addr, protocol = ?settings.protocol, tls = settings.tls.is_some(), "listening for syslog");
        Ok(Server { addr, handling, stop, give_up, task })
    }

    /// Whether its socket is the one that `settings` describe.
    fn listens_for(&self, settings: &SyslogSource) -> bool {
        let own = &self.handling.now().settings;
        (&own.listen_addr, own.protocol, &own.tls) == (&settings.listen_addr, settings.protocol, &settings.tls)
    }
}

/// Addresses to try in order; of all addresses, IPv6 takes IPv4 too where the system has IPv6.
async fn addresses(listen_addr: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let (host, port) = settings::listen_addr(listen_addr).map_err(anyhow::Error::msg)?;
    if host.is_empty() {
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

fn tls(files: Option<&TlsFiles>, stop: &CancellationToken) -> anyhow::Result<Option<Tls>> {
    let Some(files) = files else { return Ok(None) };
    let tls = Tls::from_files(files)?;
    tokio::spawn(tls.clone().follow(files.clone(), CERTIFICATE_PERIOD, stop.clone()));
    Ok(Some(tls))
}

/// Runs `receiving` and stores what comes, until it has ended and all is stored.
async fn serve(receiving: impl Future<Output = ()>, storing: impl Future<Output = ()>) {
    tokio::join!(receiving, storing);
}

/// Stores records until no more come, also after the server was stopped, as long as `give_up` allows.
async fn store(handling: Live, mut waiting: mpsc::Receiver<Record>, give_up: CancellationToken) {
    let mut records = Vec::new();
    while let Some(first) = waiting.recv().await {
        records.push(first);
        let fill = async {
            while records.len() < MAX_BATCH {
                let room = MAX_BATCH - records.len();
                if waiting.recv_many(&mut records, room).await == 0 {
                    break;
                }
            }
        };
        // Whether the batch is full or the time is over, it goes.
        let _ = timeout(BATCH_TIME, fill).await;
        let (handling, mut lost) = (handling.now(), records.len() as u64);
        if !handling.delivery.deliver(std::mem::take(&mut records), Marks::new(), &give_up).await {
            waiting.close();
            while waiting.recv().await.is_some() {
                lost += 1;
            }
            handling.delivery.count("shutdown", lost);
            tracing::error!(records = lost, "records of syslog were lost: the store did not take them before the end");
            return;
        }
    }
}

/// What all connections of a server share.
#[derive(Clone)]
struct Receiver {
    handling: Live,
    queue: mpsc::Sender<Record>,
    stop: CancellationToken,
}

impl Receiver {
    async fn connections(self, listener: TcpListener, tls: Option<Tls>) {
        // Each connection holds one of `places`.
        let (connections, places) = (TaskTracker::new(), Arc::new(()));
        while let Some(accepted) = self.accept(&listener).await {
            let (stream, sender) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a syslog connection");
                    self.handling.now().delivery.failed();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let now = self.handling.now();
            let max_connections = now.settings.max_connections;
            if Arc::strong_count(&places) > max_connections {
                tracing::warn!(%sender, max_connections, "a syslog connection was closed: there are too many");
                now.delivery.connection_ended("too_many");
                continue;
            }
            let (receiver, tls, place) = (self.clone(), tls.clone(), Arc::clone(&places));
            connections.spawn(async move {
                let ended = receiver.connection(stream, tls).await;
                if !matches!(ended, End::Closed | End::Stopped) {
                    tracing::info!(%sender, why = %ended, "a syslog connection ended");
                }
                drop(place);
                receiver.handling.now().delivery.connection_ended(ended.reason());
            });
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    /// The next connection; at the end those that wait already.
    async fn accept(&self, listener: &TcpListener) -> Option<std::io::Result<(TcpStream, SocketAddr)>> {
        let accepted = self.stop.run_until_cancelled(listener.accept()).await;
        accepted.or_else(|| listener.accept().now_or_never())
    }

    async fn connection(&self, stream: TcpStream, tls: Option<Tls>) -> End {
        let Some(tls) = tls else { return self.stream(stream).await };
        match self.stop.run_until_cancelled(timeout(HANDSHAKE, tls.accept(stream))).await {
            Some(Ok(Ok(stream))) => self.stream(stream).await,
            Some(Ok(Err(error))) => End::Handshake(error),
            Some(Err(elapsed)) => End::Handshake(elapsed.into()),
            None => End::Stopped,
        }
    }

    async fn stream(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> End {
        let mut frames = FramedRead::new(stream, Framing::new(self.handling.now().settings.max_message_bytes));
        let mut end = loop {
            let next = self.stop.run_until_cancelled(timeout(IDLE, frames.next())).await;
            match next {
                Some(Ok(Some(Ok(frame)))) => self.frame(&frame, frames.decoder_mut()).await,
                Some(Ok(Some(Err(error)))) => break End::Broken(error),
                Some(Ok(None)) => break End::Closed,
                Some(Err(_)) => break End::Idle,
                None => break End::Stopped,
            }
        };
        let until = Instant::now() + LAST_WORDS;
        while matches!(end, End::Stopped) && Instant::now() < until {
            match timeout(SILENCE, frames.next()).await {
                Ok(Some(Ok(frame))) => self.frame(&frame, frames.decoder_mut()).await,
                Ok(Some(Err(error))) => end = End::Broken(error),
                Ok(None) | Err(_) => break,
            }
        }
        // What was received and not taken yet.
        let mut rest = frames.read_buffer_mut().split();
        while let Ok(Some(frame)) = frames.decoder_mut().decode_eof(&mut rest) {
            self.frame(&frame, frames.decoder_mut()).await;
        }
        self.handling.now().delivery.count("torn", u64::from(frames.decoder().is_torn()));
        end
    }

    async fn frame(&self, frame: &Frame, framing: &mut Framing) {
        let now = self.handling.now();
        framing.set_max_bytes(now.settings.max_message_bytes);
        now.delivery.truncated(framing.take_cut());
        now.delivery.problem("cut", u64::from(frame.truncated));
        // Nobody takes it after the server gave up.
        let lost = self.queue.send(now.record(&frame.bytes)).await.is_err();
        now.delivery.count("shutdown", lost.into());
    }
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the sender closed it")]
    Closed,
    #[error("the server stops")]
    Stopped,
    #[error("nothing came for half an hour")]
    Idle,
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error(transparent)]
    Broken(FramingError),
}

impl End {
    /// As the metric calls it.
    fn reason(&self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Stopped => "stopped",
            End::Idle => "idle",
            End::Handshake(_) => "tls",
            End::Broken(FramingError::Io(_)) => "failed",
            End::Broken(FramingError::Count) => "framing",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::logs::tests::pipeline;
    use crate::metrics::{Metrics, SourceStage};

    /// A store that is full does not hold up the end: senders see it, and what they sent last is counted.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_full_store_does_not_take_before_the_end_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            "storage-dir = '/x'\n[[syslog]]\nlisten-addr = '127.0.0.1:0'\nprotocol = 'tcp'\ndatabase = 'Logs'\ntable = 'Syslog'\n";
        let (config, _) = Config::from_toml(settings, "node-1").unwrap();
        let metrics = Metrics::register(&mut Registry::default(), "", false);
        let options = wal::Options { max_disk_bytes: 1, ..wal::Options::new(dir.path()) };
        let (store, _) = wal::Store::open(options, wal::RealDisk::new(), 0).unwrap();
        let stop = CancellationToken::new();
        let pipeline = pipeline(store, Arc::clone(&metrics), &stop);
        let mut servers = Servers::default();
        servers.follow(&pipeline, &config, &stop).await.unwrap();
        let mut stream = std::net::TcpStream::connect(servers.addresses()[0]).unwrap();
        // More than wait in the queue and in a batch: the connection waits too.
        let sent = QUEUE + MAX_BATCH + 100;
        for number in 0..sent {
            stream.write_all(format!("<13>1 - h a - - - {number}\n").as_bytes()).unwrap();
        }
        stop.cancel();
        servers.end(Instant::now() + Duration::from_millis(500)).await;
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        let lost = metrics.logs_dropped.get_or_create(&SourceStage { source: "syslog", stage: "shutdown" }).get();
        assert_eq!(lost, sent as u64);
        tokio::task::spawn_blocking(move || pipeline.store.close()).await.unwrap();
    }
}

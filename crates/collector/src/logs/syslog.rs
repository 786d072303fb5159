//! Syslog, which others send: over UDP, TCP and TLS.
//!
//! Senders keep nothing and get no answer, so what is lost is decided here: a TCP sender is read no further while the
//! store does not take records, and datagrams for which there is no room are counted. Servers whose settings a reload
//! does not change go on through it.

mod datagrams;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use host_logs::syslog::{Frame, Framing, FramingError, record};
use logs::Record;
use server::{Marks, Tls, TlsFiles};
use telemetry::Lift;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::codec::{Decoder as _, FramedRead};
use tokio_util::sync::CancellationToken;
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

/// How often the files of a certificate are looked at.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(10);

/// The syslog servers that run.
#[derive(Default)]
pub(crate) struct Servers(Vec<Server>);

struct Server {
    settings: SyslogSource,
    lift_resources: Vec<Lift>,
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Servers {
    /// Runs those of `config`: what is new or different is started, what is no longer there ends. `stop` ends them all.
    ///
    /// # Errors
    /// A taken port or an unusable certificate. Servers that were started before it go on.
    pub(crate) async fn follow(&mut self, pipeline: &Pipeline, config: &Config, stop: &CancellationToken) -> anyhow::Result<()> {
        let wanted = |server: &Server| config.syslog.contains(&server.settings) && server.lift_resources == config.lift_resources;
        let (kept, ended) = std::mem::take(&mut self.0).into_iter().partition(wanted);
        self.0 = kept;
        end(ended).await;
        for settings in &config.syslog {
            if !self.0.iter().any(|server| server.settings == *settings) {
                self.0.push(Server::start(pipeline, settings, config, stop).await?);
            }
        }
        Ok(())
    }

    /// Where they listen, in the order of their start.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|server| server.addr).collect()
    }

    /// Ends them all, with what they received stored if the store takes it.
    pub(crate) async fn end(&mut self) {
        end(std::mem::take(&mut self.0)).await;
    }
}

async fn end(servers: Vec<Server>) {
    for server in servers {
        server.stop.cancel();
        if let Err(error) = server.task.await {
            tracing::error!(addr = %server.addr, %error, "a syslog server failed");
        }
    }
}

impl Server {
    async fn start(pipeline: &Pipeline, settings: &SyslogSource, config: &Config, stop: &CancellationToken) -> anyhow::Result<Server> {
        let listen = || format!("listening for syslog on {} (is another process using the port?)", settings.listen_addr);
        let stop = stop.child_token();
        let delivery = Arc::new(Delivery::new(pipeline, "syslog", &settings.shared, config, &stop));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let receiver = Receiver { settings: settings.clone(), queue, delivery: Arc::clone(&delivery), stop: stop.clone() };
        let at = addresses(&settings.listen_addr).await.with_context(listen)?;
        let (addr, task) = match settings.protocol {
            SyslogProtocol::Udp => {
                let socket = UdpSocket::bind(at.as_slice()).await.with_context(listen)?;
                datagrams::enlarge_buffer(&socket);
                (socket.local_addr()?, tokio::spawn(serve(receiver.datagrams(socket), delivery, waiting)))
            }
            SyslogProtocol::Tcp => {
                let listener = TcpListener::bind(at.as_slice()).await.with_context(listen)?;
                let tls = tls(settings.tls.as_ref(), &stop)?;
                (listener.local_addr()?, tokio::spawn(serve(receiver.connections(listener, tls), delivery, waiting)))
            }
        };
        tracing::info!(%addr, protocol = ?settings.protocol, tls = settings.tls.is_some(), "listening for syslog");
        Ok(Server { settings: settings.clone(), lift_resources: config.lift_resources.clone(), addr, stop, task })
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
async fn serve(receiving: impl Future<Output = ()>, delivery: Arc<Delivery>, waiting: mpsc::Receiver<Record>) {
    tokio::join!(receiving, store(&delivery, waiting));
}

async fn store(delivery: &Delivery, mut waiting: mpsc::Receiver<Record>) {
    // What was received is stored even at the end, as long as the process is allowed to run.
    let never = CancellationToken::new();
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
        let _ = tokio::time::timeout(BATCH_TIME, fill).await;
        delivery.deliver(std::mem::take(&mut records), Marks::new(), &never).await;
    }
}

/// What all connections of a server share.
#[derive(Clone)]
struct Receiver {
    settings: SyslogSource,
    queue: mpsc::Sender<Record>,
    delivery: Arc<Delivery>,
    stop: CancellationToken,
}

impl Receiver {
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

    async fn connections(self, listener: TcpListener, tls: Option<Tls>) {
        let (connections, places) = (TaskTracker::new(), Arc::new(Semaphore::new(self.settings.max_connections)));
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            let (stream, sender) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a syslog connection");
                    self.delivery.failed();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(%sender, max_connections = self.settings.max_connections, "a syslog connection was closed: there are too many");
                self.delivery.connection_ended("too_many");
                continue;
            };
            let (receiver, tls) = (self.clone(), tls.clone());
            connections.spawn(async move {
                let delivery = Arc::clone(&receiver.delivery);
                let ended = receiver.connection(stream, tls).await;
                if !matches!(ended, End::Closed | End::Stopped) {
                    tracing::info!(%sender, why = %ended, "a syslog connection ended");
                }
                drop(place);
                delivery.connection_ended(ended.reason());
            });
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    async fn connection(self, stream: TcpStream, tls: Option<Tls>) -> End {
        match tls {
            None => self.stream(stream).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.stream(stream).await,
                Ok(Err(error)) => End::Handshake(error),
                Err(elapsed) => End::Handshake(elapsed.into()),
            },
        }
    }

    async fn stream(self, stream: impl AsyncRead + AsyncWrite + Unpin) -> End {
        let mut frames = FramedRead::new(stream, Framing::new(self.settings.max_message_bytes));
        let end = loop {
            let next = self.stop.run_until_cancelled(tokio::time::timeout(IDLE, frames.next())).await;
            match next {
                Some(Ok(Some(Ok(frame)))) => self.frame(&frame, frames.decoder_mut()).await,
                Some(Ok(Some(Err(error)))) => break End::Broken(error),
                Some(Ok(None)) => break End::Closed,
                Some(Err(_)) => break End::Idle,
                None => break End::Stopped,
            }
        };
        // What was received and not taken yet.
        let mut rest = frames.read_buffer_mut().split();
        while let Ok(Some(frame)) = frames.decoder_mut().decode_eof(&mut rest) {
            self.frame(&frame, frames.decoder_mut()).await;
        }
        self.delivery.count("torn", u64::from(frames.decoder().is_torn()));
        end
    }

    async fn frame(&self, frame: &Frame, framing: &mut Framing) {
        self.delivery.truncated(framing.take_cut());
        self.delivery.problem("cut", u64::from(frame.truncated));
        // The queue ends with the last connection.
        let _ = self.queue.send(self.record(&frame.bytes)).await;
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

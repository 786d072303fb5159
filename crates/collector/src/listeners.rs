//! The sockets that a collector listens on. They are opened before anything else, so that a taken port is the first
//! thing that is said.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use server::{Connections, Limits, Tls, TlsFiles};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, settings};
use crate::pipeline::Receivers;

/// How often the files of a certificate are looked at.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(10);

/// Open sockets.
pub(crate) struct Listeners {
    http: TcpListener,
    otlp_http: Option<TcpListener>,
    otlp_grpc: Option<TcpListener>,
    /// In the order of the configuration.
    grpc_ports: Vec<TcpListener>,
}

impl Listeners {
    /// Opens everything that the configuration names.
    ///
    /// # Errors
    /// A taken port or an unusable address.
    pub(crate) async fn bind(config: &Config) -> anyhow::Result<Listeners> {
        let http = bind(&config.listen_addr).await?;
        let otlp_http = bind_some(config.otlp_listen_addr.as_deref()).await?;
        let otlp_grpc = bind_some(config.otlp_grpc_listen_addr.as_deref()).await?;
        let (host, _) = settings::listen_addr(&config.listen_addr).map_err(anyhow::Error::msg)?;
        let mut grpc_ports = Vec::new();
        for port in config.grpc_ports() {
            grpc_ports.push(bind_at(&host, port).await?);
        }
        Ok(Listeners { http, otlp_http, otlp_grpc, grpc_ports })
    }

    /// Where HTTP, OTLP over gRPC, and the sources with ports are.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn addresses(&self) -> anyhow::Result<(SocketAddr, Option<SocketAddr>, Vec<SocketAddr>)> {
        let addresses = || {
            let otlp_grpc = self.otlp_grpc.as_ref().map(TcpListener::local_addr).transpose()?;
            let ports = self.grpc_ports.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?;
            std::io::Result::Ok((self.http.local_addr()?, otlp_grpc, ports))
        };
        addresses().context("reading the address of a listener")
    }

    /// Serves until `stop`, then lets running requests end.
    ///
    /// # Errors
    /// An unusable certificate.
    pub(crate) fn serve(
        self,
        receivers: Receivers,
        config: &Config,
        connections: Arc<Connections>,
        stop: &CancellationToken,
    ) -> anyhow::Result<JoinHandle<std::io::Result<()>>> {
        let tls = tls(config, stop)?;
        // The time of a request is bounded by its source; the longest that one may have is five minutes.
        let limits = Limits { max_connections: config.max_connections, request_timeout: Duration::from_secs(301), ..Limits::default() };
        let mut serving = JoinSet::new();
        let mut serve = |listener, router| {
            serving.spawn(server::serve_counted(listener, router, limits.clone(), tls.clone(), stop.clone(), Arc::clone(&connections)));
        };
        serve(self.http, receivers.http.clone());
        self.otlp_http.into_iter().for_each(|listener| serve(listener, receivers.http.clone()));
        self.otlp_grpc.into_iter().for_each(|listener| serve(listener, receivers.otlp_grpc.clone()));
        self.grpc_ports.into_iter().zip(receivers.grpc_ports).for_each(|(listener, (_port, router))| serve(listener, router));
        Ok(tokio::spawn(async move {
            while let Some(served) = serving.join_next().await {
                served.map_err(std::io::Error::other)??;
            }
            Ok(())
        }))
    }
}

/// TLS of all listeners, which follows its files.
fn tls(config: &Config, stop: &CancellationToken) -> anyhow::Result<Option<Tls>> {
    let Some((certificate, key)) = &config.tls else { return Ok(None) };
    let files = TlsFiles { certificate: certificate.clone(), key: key.clone(), client_ca: config.tls_client_ca.clone() };
    let tls = Tls::from_files(&files)?;
    tokio::spawn(tls.clone().follow(files, CERTIFICATE_PERIOD, stop.clone()));
    Ok(Some(tls))
}

async fn bind_some(addr: Option<&str>) -> anyhow::Result<Option<TcpListener>> {
    match addr {
        Some(addr) => bind(addr).await.map(Some),
        None => Ok(None),
    }
}

async fn bind(addr: &str) -> anyhow::Result<TcpListener> {
    let (host, port) = settings::listen_addr(addr).map_err(anyhow::Error::msg)?;
    bind_at(&host, port).await
}

async fn bind_at(host: &str, port: u16) -> anyhow::Result<TcpListener> {
    let listen = || format!("listening on {host}:{port} (is another process using the port?)");
    if !host.is_empty() {
        return TcpListener::bind((host, port)).await.with_context(listen);
    }
    // All addresses: IPv6 sockets take IPv4 too, where the system has IPv6.
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.with_context(listen),
    }
}

//! The ports of `up`, all on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};

/// The usual ports, in the order in which others follow a base.
const USUAL: [u16; 8] = [8080, 8081, 8088, 4318, 9090, 9091, 4023, 4317];
/// The last base with room for all ports above it.
pub(super) const HIGHEST_BASE: i64 = u16::MAX as i64 - (USUAL.len() as i64 - 1);

/// Addresses of the parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) kustd: SocketAddr,
    pub(crate) console: SocketAddr,
    pub(crate) collector: SocketAddr,
    pub(crate) otlp_http: SocketAddr,
    pub(crate) ingestor_tls: SocketAddr,
    pub(crate) ingestor_plain: SocketAddr,
    pub(crate) alerter: SocketAddr,
    pub(crate) otlp_grpc: SocketAddr,
}

impl Ports {
    /// The usual ports, or consecutive ones from `base`.
    pub(crate) fn new(base: Option<u16>) -> Ports {
        let at = |index: usize| {
            let port = base.map_or(USUAL[index], |base| base.saturating_add(index as u16));
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        };
        Ports {
            kustd: at(0),
            console: at(1),
            collector: at(2),
            otlp_http: at(3),
            ingestor_tls: at(4),
            ingestor_plain: at(5),
            alerter: at(6),
            otlp_grpc: at(7),
        }
    }

    /// Fails when a port is taken, naming all that are. The alerter's is needed only with `rules`.
    pub(crate) fn check(&self, rules: bool) -> Result<()> {
        let mut parts = vec![
            (self.kustd, "kustd"),
            (self.console, "host metrics and the state of rules"),
            (self.collector, "the collector"),
            (self.otlp_http, "OTLP over HTTP"),
            (self.otlp_grpc, "OTLP over gRPC"),
            (self.ingestor_tls, "the ingestor"),
            (self.ingestor_plain, "the ingestor's plain listener"),
        ];
        if rules {
            parts.push((self.alerter, "the alerter"));
        }
        let mut taken = Vec::new();
        for (address, name) in parts {
            match TcpListener::bind(address) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => taken.push(format!("{} for {name}", address.port())),
                Err(error) => return Err(error).with_context(|| format!("opening {address} for {name}")),
            }
        }
        if !taken.is_empty() {
            bail!("these ports are taken: {}; stop what uses them, or choose others with --port-base N", taken.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_the_way_out() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = Ports::new(Some(port)).check(false).unwrap_err().to_string();
        assert!(error.contains(&format!("{port} for kustd")) && error.contains("--port-base"), "{error}");
    }
}

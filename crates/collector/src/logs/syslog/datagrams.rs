//! Datagrams of syslog senders: nobody learns that one was lost, so that each loss is counted here, also those in the
//! kernel, which drops datagrams while the buffer of a socket is full.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::{LAST_WORDS, Receiver, SILENCE};

/// The longest datagram.
const MAX_DATAGRAM: usize = 64 * 1024;

/// Asked for as the kernel's buffer, which lasts over a pause in reading; `net.core.rmem_max` may allow less.
const KERNEL_BUFFER: usize = 8 << 20;

/// How often the kernel is asked for what it dropped.
const PERIOD: Duration = Duration::from_secs(5);

/// Asks for a larger buffer, and says what there is if that is less.
pub(super) fn enlarge_buffer(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    // The kernel gives back twice what was asked for, with its bookkeeping.
    let got = socket.set_recv_buffer_size(KERNEL_BUFFER).and_then(|()| socket.recv_buffer_size());
    match got {
        Ok(bytes) if bytes >= KERNEL_BUFFER => {}
        Ok(bytes) => {
            tracing::info!(
                bytes,
                wanted = KERNEL_BUFFER,
                "syslog datagrams have a small buffer: raise net.core.rmem_max if bursts are lost"
            );
        }
        Err(error) => tracing::warn!(%error, "the buffer of syslog datagrams stays as small as the system makes it"),
    }
}

impl Receiver {
    /// Receives until the server stops.
    pub(super) async fn datagrams(self, socket: UdpSocket) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        let mut losses = Losses { kernel: KernelDrops::of(&socket), refused: 0 };
        let mut period = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                _ = period.tick() => losses.tell(&self),
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((length, _sender)) => losses.refused += u64::from(!self.datagram(&buffer[..length])),
                    Err(error) => {
                        tracing::warn!(%error, "receiving syslog datagrams failed");
                        self.handling.now().delivery.failed();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until
            && let Ok(Ok((length, _sender))) = timeout(SILENCE, socket.recv_from(&mut buffer)).await
        {
            losses.refused += u64::from(!self.datagram(&buffer[..length]));
        }
        losses.tell(&self);
    }

    /// Takes a datagram; whether there was room for it.
    fn datagram(&self, datagram: &[u8]) -> bool {
        let now = self.handling.now();
        let kept = datagram.len().min(now.settings.max_message_bytes);
        now.delivery.truncated((datagram.len() - kept) as u64);
        now.delivery.problem("cut", u64::from(kept < datagram.len()));
        self.queue.try_send(now.record(&datagram[..kept])).is_ok()
    }
}

/// What was lost since it was told last.
struct Losses {
    kernel: KernelDrops,
    /// For which the queue had no room.
    refused: u64,
}

impl Losses {
    fn tell(&mut self, receiver: &Receiver) {
        let (dropped, refused) = (self.kernel.take(), std::mem::take(&mut self.refused));
        if dropped + refused == 0 {
            return;
        }
        let now = receiver.handling.now();
        now.delivery.count("kernel", dropped);
        now.delivery.count("receive", refused);
        tracing::warn!(
            kernel = dropped,
            queue = refused,
            "syslog datagrams were lost: they came faster than they could be stored (send over TCP, or raise net.core.rmem_max for bursts)"
        );
    }
}

/// Follows how many datagrams the kernel dropped for a socket.
struct KernelDrops {
    inode: Option<u64>,
    /// Counted already. The kernel's count has 32 bits.
    seen: u32,
}

impl KernelDrops {
    fn of(socket: &impl AsFd) -> KernelDrops {
        KernelDrops { inode: rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino), seen: 0 }
    }

    /// Those since the last call; none where the system does not say.
    fn take(&mut self) -> u64 {
        let Some(inode) = self.inode else { return 0 };
        let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
        let count = tables.iter().find_map(|table| drops(&std::fs::read_to_string(table).ok()?, inode));
        let Some(count) = count else { return 0 };
        u64::from(count.wrapping_sub(std::mem::replace(&mut self.seen, count)))
    }
}

/// The last column of the line of a socket in one of the kernel's tables (`Documentation/networking/proc_net_tcp.rst` for
/// the columns up to `inode`; `ref`, `pointer` and `drops` follow).
fn drops(table: &str, inode: u64) -> Option<u32> {
    let line = |line: &str| {
        let mut columns = line.split_ascii_whitespace().skip(9);
        let own = columns.next()?.parse() == Ok(inode);
        own.then(|| columns.nth(2)?.parse().ok()).flatten()
    };
    table.lines().skip(1).find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kernel 6.1 shows it.
    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n\
        \x20 335: 0100007F:0202 00000000:0000 07 00000000:00034B00 00:00000000 00000000  1000        0 52341 2 ffff8d1a4c3f0000 4294967295\n\
        \x20 336: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 52342 2 ffff8d1a4c3f0480 7         \n";

    #[test]
    fn the_line_of_a_socket_is_found() {
        assert_eq!(drops(TABLE, 52341), Some(u32::MAX));
        assert_eq!(drops(TABLE, 52342), Some(7));
        assert_eq!(drops(TABLE, 7), None);
        assert_eq!(drops("", 7), None);
        assert_eq!(drops("header\n1 2 3\n", 7), None);
    }

    /// The kernel's own count: what is sent and neither read nor waiting was dropped.
    #[test]
    fn what_the_kernel_drops_is_counted() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        SockRef::from(&receiver).set_recv_buffer_size(4096).unwrap();
        let mut drops = KernelDrops::of(&receiver);
        assert_eq!(drops.take(), 0);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        receiver.set_nonblocking(true).unwrap();
        let waiting = std::iter::from_fn(|| receiver.recv(&mut [0; 1000]).ok()).count();
        assert!(waiting < 100, "{waiting}");
        assert_eq!(drops.take(), 100 - waiting as u64);
        assert_eq!(drops.take(), 0);
    }
}

//! Scripted receivers: of HTTP, by hand so that it can tear connections, and of messages on a socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, header lines, body.
    Answer(u16, &'static str, Vec<u8>),
    /// The connection ends without an answer.
    Tear,
    /// No answer, ever.
    Hang,
}

pub(crate) fn status(code: u16) -> Reply {
    Reply::Answer(code, "", format!("no: {code}").into_bytes())
}

/// A request that was answered with 2xx.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Answers as scripted, then with 200.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) got: Arc<Mutex<Vec<Got>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    /// Requests, and those that were taken.
    seen: watch::Sender<(usize, usize)>,
}

impl Receiver {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver {
            url: format!("http://{}/push", listener.local_addr().unwrap()),
            got: Arc::default(),
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            seen: watch::Sender::new((0, 0)),
        };
        let shared = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().connection(stream));
            }
        });
        receiver
    }

    pub(crate) fn tries(&self) -> usize {
        self.seen.borrow().0
    }

    /// Waits until so many requests came, taken or not.
    pub(crate) async fn until_tries(&self, count: usize) {
        self.until(|(tries, _)| tries >= count).await;
    }

    /// Waits until so many requests were taken.
    pub(crate) async fn until_taken(&self, count: usize) -> Vec<Got> {
        self.until(|(_, taken)| taken >= count).await;
        self.got.lock().unwrap().clone()
    }

    async fn until(&self, wanted: impl Fn((usize, usize)) -> bool) {
        let mut seen = self.seen.subscribe();
        let wait = seen.wait_for(|seen| wanted(*seen));
        tokio::time::timeout(super::support::LONG, wait).await.expect("the requests did not come").unwrap();
    }

    async fn connection(self, mut stream: TcpStream) {
        while let Some(got) = request(&mut stream).await {
            let reply = self.replies.lock().unwrap().pop_front().unwrap_or(Reply::Answer(200, "", Vec::new()));
            let taken = matches!(reply, Reply::Answer(200..300, ..));
            if taken {
                self.got.lock().unwrap().push(got);
            }
            self.seen.send_modify(|seen| *seen = (seen.0 + 1, seen.1 + usize::from(taken)));
            match reply {
                Reply::Tear => return,
                Reply::Hang => std::future::pending().await,
                Reply::Answer(code, headers, body) => {
                    let head = format!("HTTP/1.1 {code} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
                    if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<Got> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length").parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Got { head, body })
}

//! The connection to the keeper: found again whenever it is lost.
//!
//! A task of its own connects, introduces us, and asks for the inventory; the loop hears of the keeper
//! only when all of that has been answered, and from then on gets everything the keeper says, in order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::core::ids::Generation;
use crate::wire::frame::{Decoder, encode};
use crate::wire::keeper::{
    Answer, FromKeeper, MIN_VERSION, Notice, Numbered, Refusal, Request, RunStatus, VERSION,
};

/// Between two tries to connect, while there is no keeper.
const RETRY: Duration = Duration::from_millis(10);

/// News from the keeper that may wait for the loop; beyond that the keeper's bytes wait in the socket.
const NEWS_MAX: usize = 4096;

/// What the loop hears.
#[derive(Debug)]
pub(super) enum News {
    /// Connected.
    Up {
        pid: i32,
        /// The version it speaks.
        version: u32,
        /// Whether init lives, as the keeper sees it.
        init: bool,
        runs: Vec<RunStatus>,
        requests: Requests,
    },
    /// A request was answered.
    Reply { id: u64, result: Result<Answer, Refusal> },
    /// The keeper has news.
    Notice(Notice),
    /// The connection is lost.
    Down,
    /// The keeper obeys a newer supervisor: we are a thing of the past.
    Replaced { newest: Generation },
}

/// Where requests go. Unbounded, because the loop must never wait for the keeper; there are never more
/// than a few for each run.
#[derive(Debug, Clone)]
pub(super) struct Requests(mpsc::UnboundedSender<Numbered>);

impl Requests {
    /// Sends a request; if the connection is lost meanwhile, [`News::Down`] says so.
    pub(super) fn send(&self, id: u64, request: Request) {
        let _ = self.0.send(Numbered { id, request });
    }
}

/// Keeps a connection for ever.
pub(super) fn connect(socket: PathBuf, generation: Generation) -> mpsc::Receiver<News> {
    let (tell, news) = mpsc::channel(NEWS_MAX);
    tokio::spawn(async move {
        while !tell.is_closed() {
            match introduce(&socket, generation).await {
                Ok(Connected { pid, version, init, runs, read, write, decoder }) => {
                    let (send, requests) = mpsc::unbounded_channel();
                    let writer = tokio::spawn(write_requests(write, requests));
                    let up = News::Up { pid, version, init, runs, requests: Requests(send) };
                    if tell.send(up).await.is_ok() {
                        read_news(read, decoder, &tell).await;
                    }
                    writer.abort();
                    let _ = tell.send(News::Down).await;
                }
                Err(Failed::Replaced(newest)) => {
                    let _ = tell.send(News::Replaced { newest }).await;
                    return;
                }
                Err(Failed::NotThere) => tokio::time::sleep(RETRY).await,
            }
        }
    });
    news
}

struct Connected {
    pid: i32,
    version: u32,
    init: bool,
    runs: Vec<RunStatus>,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    decoder: Decoder,
}

enum Failed {
    NotThere,
    Replaced(Generation),
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(_: E) -> Self {
        Self::NotThere
    }
}

async fn introduce(socket: &Path, generation: Generation) -> Result<Connected, Failed> {
    let stream = UnixStream::connect(socket).await?;
    let (mut read, mut write) = stream.into_split();
    let mut decoder = Decoder::default();
    let mut bytes = Vec::new();
    let hello = Request::Hello { min_version: MIN_VERSION, version: VERSION, generation };
    encode(&Numbered { id: 0, request: hello }, &mut bytes)?;
    encode(&Numbered { id: 1, request: Request::Inventory }, &mut bytes)?;
    write.write_all(&bytes).await?;
    let (mut who, mut buffer) = (None, vec![0; 64 * 1024]);
    loop {
        while let Some(message) = decoder.take::<FromKeeper>()? {
            match message {
                FromKeeper::Reply { result: Ok(Answer::Hello { pid, version, init, .. }), .. } => {
                    who = Some((pid, version, init))
                }
                FromKeeper::Reply { result: Ok(Answer::Inventory { runs }), .. } => {
                    let Some((pid, version, init)) = who else { return Err(Failed::NotThere) };
                    return Ok(Connected { pid, version, init, runs, read, write, decoder });
                }
                FromKeeper::Reply { result: Err(Refusal::OldGeneration { newest }), .. } => {
                    return Err(Failed::Replaced(newest));
                }
                // What it tells before the inventory is in the inventory.
                FromKeeper::Reply { .. } | FromKeeper::Notice(_) => {}
            }
        }
        let n = read.read(&mut buffer).await?;
        if n == 0 {
            return Err(Failed::NotThere);
        }
        decoder.feed(&buffer[..n]);
    }
}

async fn read_news(mut read: OwnedReadHalf, mut decoder: Decoder, tell: &mpsc::Sender<News>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        loop {
            let news = match decoder.take::<FromKeeper>() {
                Ok(Some(FromKeeper::Reply { id, result })) => News::Reply { id, result },
                Ok(Some(FromKeeper::Notice(notice))) => News::Notice(notice),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the keeper sent what cannot be read; connecting again");
                    return;
                }
            };
            if tell.send(news).await.is_err() {
                return;
            }
        }
        match read.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => decoder.feed(&buffer[..n]),
        }
    }
}

async fn write_requests(mut write: OwnedWriteHalf, mut requests: mpsc::UnboundedReceiver<Numbered>) {
    let mut bytes = Vec::new();
    while let Some(request) = requests.recv().await {
        let mut waiting = Some(request);
        // Everything that waits goes in one write, up to a size at which the keeper may begin.
        while let Some(request) = waiting {
            if let Err(error) = encode(&request, &mut bytes) {
                tracing::error!(%error, "a request cannot be sent");
            }
            waiting = if bytes.len() < 256 * 1024 { requests.try_recv().ok() } else { None };
        }
        if write.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
    }
}

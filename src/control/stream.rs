//! Answers that go on: a task produces, the connection takes at its own pace.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use tokio::sync::mpsc;

/// Blocks that may wait for a reader: enough that reading the file and writing the socket overlap.
const WAITING_MAX: usize = 2;

/// The producer's end.
pub(crate) struct Sink(mpsc::Sender<io::Result<Bytes>>);

/// The reader has gone.
pub(crate) struct Closed;

impl Sink {
    /// Hands over a block, and waits while the reader is behind.
    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.0.send(Ok(bytes.into())).await.map_err(|_| Closed)
    }

    /// Breaks the answer off, so that the reader cannot take it for complete.
    pub(crate) async fn fail(&self, error: io::Error) {
        // A reader that has gone does not need to know.
        let _ = self.0.send(Err(error)).await;
    }

    /// Ends when the reader has gone.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

struct Receiver(mpsc::Receiver<io::Result<Bytes>>);

impl futures_core::Stream for Receiver {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// A body, and the end to fill it by. The body ends when the sink is dropped.
pub(crate) fn body() -> (Sink, Body) {
    let (tx, rx) = mpsc::channel(WAITING_MAX);
    (Sink(tx), Body::from_stream(Receiver(rx)))
}

/// Whether the client asks for server-sent events.
pub(crate) fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    accepted.flat_map(|v| v.split(',')).any(|v| {
        let kind = v.split(';').next().unwrap_or("").trim();
        kind.eq_ignore_ascii_case("text/event-stream")
    })
}

/// One server-sent event. JSON on one line needs no escaping in it.
pub(crate) fn event<T: serde::Serialize>(name: &str, id: Option<u64>, data: &T) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Bytes::from(format!("{id}event: {name}\ndata: {json}\n\n"))
}

/// A comment, which clients skip: it shows to both ends that the connection lives.
pub(crate) const KEEP_ALIVE: &[u8] = b": \n\n";

/// Content type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

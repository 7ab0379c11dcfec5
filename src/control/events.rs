//! `GET /v1/events`: what was decided, from the event log.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::Failure;
use super::params::Params;
use super::stream::{self, Sink};
use crate::wire::control::EventView;

/// Reads from the log of a state directory at most `max` entries after a sequence number, oldest first.
pub(crate) type ReadEvents = fn(state_dir: &Path, since: u64, max: usize) -> io::Result<Vec<EventView>>;

/// What was asked for is no longer kept.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("events before {oldest} are no longer kept")]
pub(crate) struct Expired {
    /// The oldest entry that is.
    pub(crate) oldest: u64,
}

/// Entries read at a time: a read looks through a whole segment of the log, so it should be worth it.
const BLOCK: usize = 4096;

/// Shortest time between two reads of a follower: what happens meanwhile is read together.
const BETWEEN_READS: Duration = Duration::from_millis(20);

/// Silence after which an event stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

static SEQ: HeaderName = HeaderName::from_static("x-outlive-seq");

pub(crate) async fn events(
    State(shared): State<Shared>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let params = params.only(&["since", "limit", "follow"])?;
    let follow = params.on("follow")?;
    let seq = super::status::known(&shared)?.seq;
    // A client that lost its connection says where it was, as browsers do by themselves.
    let resumed = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok());
    let since = match params.text("since") {
        Some("now") => Some(seq),
        _ => params.parsed("since", "a sequence number or \"now\"")?.or(resumed),
    };
    let mut feed = Feed {
        sse: stream::wants_events(&headers),
        since: since.unwrap_or(0),
        left: params.parsed("limit", "a number of entries")?,
        follow,
        shared,
    };
    let kind = if feed.sse { stream::EVENT_STREAM } else { "application/x-ndjson" };
    // The first read tells whether the log can be read at all.
    let first = match feed.read(seq).await {
        Err(e) => match expired(&e) {
            // Who names no entry wants what there is.
            Some(Expired { oldest }) if since.is_none_or(|since| since == 0) => {
                feed.since = oldest.saturating_sub(1);
                feed.read(seq).await
            }
            Some(gone) => return Err(Failure::new(StatusCode::GONE, "expired", gone.to_string())),
            None => Err(e),
        },
        read => read,
    };
    let first = first.map_err(|e| Failure::internal(format!("the event log: {e}")))?;
    let (sink, body) = stream::body();
    tokio::spawn(feed.run(first, seq, sink));
    let fixed = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (SEQ.clone(), HeaderValue::from(seq)),
    ];
    Ok((fixed, body).into_response())
}

fn expired(error: &io::Error) -> Option<Expired> {
    error.get_ref()?.downcast_ref().copied()
}

struct Feed {
    shared: Shared,
    sse: bool,
    since: u64,
    left: Option<usize>,
    follow: bool,
}

impl Feed {
    /// The next block; entries after `seq` are not yet acknowledged to anybody and are left for later.
    async fn read(&self, seq: u64) -> io::Result<Vec<EventView>> {
        let (read, dir) = (self.shared.sources.events, self.shared.handle.state_dir.clone());
        let (since, max) = (self.since, self.left.unwrap_or(BLOCK).min(BLOCK));
        if max == 0 || since >= seq {
            return Ok(Vec::new());
        }
        let work = tokio::task::spawn_blocking(move || read(&dir, since, max));
        let mut found = work.await.map_err(io::Error::other)??;
        found.retain(|entry| entry.seq <= seq);
        Ok(found)
    }

    async fn run(mut self, mut block: Vec<EventView>, mut seq: u64, sink: Sink) {
        loop {
            for entry in &block {
                if sink.send(self.line(entry)).await.is_err() {
                    return;
                }
                self.since = self.since.max(entry.seq);
            }
            self.left = self.left.map(|left| left.saturating_sub(block.len()));
            if self.left == Some(0) || block.is_empty() && !self.follow {
                return;
            }
            if block.is_empty() {
                let earliest = tokio::time::Instant::now() + BETWEEN_READS;
                if self.wait(&sink).await.is_none() {
                    return;
                }
                tokio::time::sleep_until(earliest).await;
                seq = self.shared.handle.view.borrow_and_update().seq;
            }
            block = match self.read(seq).await {
                Ok(block) => block,
                Err(e) => return sink.fail(e).await,
            };
        }
    }

    fn line(&self, entry: &EventView) -> axum::body::Bytes {
        if self.sse {
            return stream::event("event", Some(entry.seq), entry);
        }
        let mut line = serde_json::to_vec(entry).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }

    /// Waits for a new entry; `None` when the client goes or the supervisor ends.
    async fn wait(&mut self, sink: &Sink) -> Option<()> {
        loop {
            let shared = &mut self.shared;
            tokio::select! {
                () = sink.closed() => return None,
                () = super::ended(&mut shared.ending) => return None,
                changed = shared.handle.view.changed() => changed.ok()?,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    if self.sse && sink.send(stream::KEEP_ALIVE).await.is_err() {
                        return None;
                    }
                    continue;
                }
            }
            if shared.handle.view.borrow().seq > self.since {
                return Some(());
            }
        }
    }
}

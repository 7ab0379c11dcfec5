//! Accepts connections and holds them to their limits.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::error::Failure;
use super::patient::Patient;
use super::{Shared, Sources, access, routes};
use crate::supervisor::handle::Handle;

/// What a connection may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; one more is answered with 503 and closed.
    pub connections: usize,
    /// Time for a request's headers, and for the next request on an open connection.
    pub header_time: Duration,
    /// Bytes of a request's headers.
    pub header_bytes: usize,
    /// How long a client may take nothing of an answer.
    pub write_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Far more than people and scripts use, and with two blocks each still a bounded memory.
            connections: 256,
            header_time: Duration::from_secs(10),
            header_bytes: 16 * 1024,
            write_time: Duration::from_secs(60),
        }
    }
}

/// Connections beyond the limit that are told so at a time; further ones are closed without a word.
const TURNED_AWAY_MAX: usize = 32;

/// How long one that is turned away may take to say what it wants and hear that it cannot have it.
const TURN_AWAY_TIME: Duration = Duration::from_secs(1);

/// Pause after a failed accept: the usual reason, no descriptors left, lasts until somebody closes one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections may finish their answers at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves the control socket until `ending` is true (or its sender is gone), then lets open answers finish
/// for two seconds at most.
pub async fn serve(listener: UnixListener, handle: Handle, sources: Sources, ending: watch::Receiver<bool>) {
    serve_with(listener, handle, sources, ending, Limits::default()).await;
}

/// The same with other limits.
pub async fn serve_with(
    listener: UnixListener,
    handle: Handle,
    sources: Sources,
    mut ending: watch::Receiver<bool>,
    limits: Limits,
) {
    let shared = Shared { handle, sources, ending: ending.clone() };
    let server = Server {
        router: routes::router(shared),
        places: Arc::new(Semaphore::new(limits.connections)),
        turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
        limits,
        ending: ending.clone(),
        socket: listener.local_addr().ok().and_then(|a| a.as_pathname().map(Path::to_owned)),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = super::ended(&mut ending) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.admit(stream, &mut connections),
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection on the control socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // What is not done by then is aborted when the set is dropped.
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

struct Server {
    router: Router,
    places: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    limits: Limits,
    ending: watch::Receiver<bool>,
    socket: Option<PathBuf>,
}

impl Server {
    fn admit(&self, stream: UnixStream, connections: &mut JoinSet<()>) {
        let (answer, place, busy) = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => (self.answer(&stream), place, false),
            Err(_) => {
                let Ok(place) = Arc::clone(&self.turned_away).try_acquire_owned() else { return };
                let text = "too many connections to the control socket, try again";
                (Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "busy", text.to_owned())), place, true)
            }
        };
        let (limits, ending) = (self.limits, self.ending.clone());
        connections.spawn(async move {
            let work = connection(stream, answer, limits, ending);
            if busy {
                // It is told once, and gets no time to stay.
                let _ = tokio::time::timeout(TURN_AWAY_TIME, work).await;
            } else {
                work.await;
            }
            drop(place);
        });
    }

    /// The routes with the peer filled in, or why this peer gets nothing.
    fn answer(&self, stream: &UnixStream) -> Result<Router, Refusal> {
        let cred = stream.peer_cred().map_err(|e| {
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("who are you? {e}"))
        })?;
        match access::admit(cred, self.socket.as_deref()) {
            Ok(peer) => Ok(self.router.clone().layer(axum::Extension(peer))),
            Err(uid) => {
                let text = format!("user {uid} may not use this instance");
                Err(Refusal(StatusCode::FORBIDDEN, "forbidden", text))
            }
        }
    }
}

/// An answer to whatever is asked.
#[derive(Clone)]
struct Refusal(StatusCode, &'static str, String);

impl Refusal {
    fn response(self) -> Response {
        let mut response = Failure::new(self.0, self.1, self.2).into_response();
        response
            .headers_mut()
            .insert(axum::http::header::CONNECTION, axum::http::HeaderValue::from_static("close"));
        response
    }
}

async fn connection(
    stream: UnixStream,
    answer: Result<Router, Refusal>,
    limits: Limits,
    mut ending: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            Ok::<_, Infallible>(match answer {
                Ok(router) => router.oneshot(request.map(axum::body::Body::new)).await.into_response(),
                Err(refusal) => refusal.response(),
            })
        }
    });
    let io = TokioIo::new(Patient::new(stream, limits.write_time));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_buf_size(limits.header_bytes)
            .serve_connection(io, service)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = super::ended(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that goes in the middle, or talks nonsense, is its own affair.
    if let Err(e) = result {
        tracing::debug!(error = %e, "a control connection ended early");
    }
}

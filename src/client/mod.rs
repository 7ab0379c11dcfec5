//! Typed client of the control socket.
//!
//! Each call is a connection of its own: a supervisor that is replaced between two calls is not noticed,
//! and a stream never stands in the way of a call.

mod base64;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

pub use stream::{Body, EventLines, OutputItem, OutputStream, Piece};

use crate::core::audit::Deed;
use crate::core::ids::{JobName, QueueName, RunId};
use crate::core::report::{RunsReport, StartReport};
use crate::wire::control::{
    ActReply, ErrorReply, JobStats, JobStatus, PublishReply, PublishRequest, ReloadReply, RunReply,
    RunRequest, RunView, SagaView, ScrubReply, ShutdownRequest, SignalRequest, Status, StdinReply, Version,
};
use crate::wire::insight::RecoveryMetrics;
use crate::wire::queue::{MoveRequest, PauseReply, QueuesReply};

/// How long the head of an answer may take. A verb is answered once it is durable, which a slow disk may
/// delay; a supervisor that says nothing for this long is broken.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Between two tries while the instance is recovering.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long a patient client tries a socket on which nobody listens.
const REFUSED_TIME: Duration = Duration::from_secs(1);

/// Largest answer that is no stream.
const ANSWER_MAX: usize = 256 * 1024 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers: there is no socket, or nobody listens on it.
    #[error("no outlive instance answers on {}", .socket.display())]
    NotRunning {
        /// Where it was looked for.
        socket: PathBuf,
    },
    /// There is a socket, and it cannot be used.
    #[error("cannot connect to {}", .socket.display())]
    Connect {
        /// Which.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor answered, and said no.
    #[error("{}", .reply.error)]
    Refused {
        /// What it said.
        reply: ErrorReply,
        /// HTTP status.
        status: u16,
    },
    /// The answer broke off or made no sense.
    #[error("the answer of the instance broke off or makes no sense: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether another supervisor may soon answer in place of this one.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Protocol(_) => true,
            Self::Connect { .. } => false,
            Self::Refused { reply, .. } => matches!(reply.code.as_str(), "recovering" | "busy" | "gone"),
        }
    }
}

fn broken(e: impl std::fmt::Display) -> Error {
    Error::Protocol(e.to_string())
}

/// What of a job's output is wanted; the default is all of the latest run.
#[derive(Debug, Clone, Default)]
pub struct OutputQuery {
    /// A run id, `latest` or `all`.
    pub run: Option<String>,
    /// `stdout`, `stderr` or `all`.
    pub stream: Option<String>,
    /// First byte, `N` or `stdout:N,stderr:N`.
    pub offset: Option<String>,
    /// At most this many bytes.
    pub limit: Option<u64>,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// A time or an age.
    pub since: Option<String>,
    /// Go on with what comes.
    pub follow: bool,
    /// With a run id and `follow`: go on into the runs after it.
    pub onward: bool,
    /// The time in front of each line (raw answers only).
    pub timestamps: bool,
}

impl OutputQuery {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        let texts = [
            ("run", self.run.clone()),
            ("stream", self.stream.clone()),
            ("offset", self.offset.clone()),
            ("limit", self.limit.map(|n| n.to_string())),
            ("tail", self.tail.map(|n| n.to_string())),
            ("since", self.since.clone()),
            ("follow", self.follow.then(|| "true".to_owned())),
            ("onward", self.onward.then(|| "true".to_owned())),
            ("timestamps", self.timestamps.then(|| "true".to_owned())),
        ];
        query.extend(texts.into_iter().filter_map(|(name, value)| Some((name, value?))));
        query
    }
}

/// Where a stream of decisions begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Since {
    /// With the first there is.
    #[default]
    Beginning,
    /// After this number.
    Seq(u64),
    /// With the next one.
    Now,
}

/// A raw answer: its bytes, and which bytes they are.
#[derive(Debug)]
pub struct RawOutput {
    /// The run, or the last of several.
    pub run: Option<RunId>,
    /// The first byte.
    pub offset: Option<String>,
    /// What to ask for next.
    pub next_offset: Option<String>,
    /// The bytes.
    pub body: Body,
}

/// A client of one instance. Cheap: it holds the path only.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    /// A client of the instance whose control socket this is.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), patience: Duration::ZERO }
    }

    /// The same client, asking again for this long while the instance answers that it is still recovering.
    /// Such an answer means that nothing was done, so this is right for every call.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Versions.
    pub async fn version(&self) -> Result<Version, Error> {
        self.get("/v1/version", &[]).await
    }

    /// Whether the instance has asked for every wanted job. An error if it does not answer.
    pub async fn ready(&self) -> Result<bool, Error> {
        match self.get::<serde_json::Value>("/v1/ready", &[]).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { status: 503, reply }) if reply.code.is_empty() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The instance and the jobs that the selectors mean; all jobs without any.
    pub async fn status(&self, selectors: &[String]) -> Result<Status, Error> {
        let query: Vec<_> = selectors.iter().map(|s| ("job", s.clone())).collect();
        self.get("/v1/status", &query).await
    }

    /// One job.
    pub async fn job(&self, name: &JobName) -> Result<JobStatus, Error> {
        self.get(&format!("/v1/jobs/{}", escape(name.as_str())), &[]).await
    }

    /// What the runs of jobs came to; of all jobs without selectors.
    pub async fn stats(&self, selectors: &[String]) -> Result<Vec<JobStats>, Error> {
        let query: Vec<_> = selectors.iter().map(|s| ("job", s.clone())).collect();
        self.get("/v1/stats", &query).await
    }

    /// A job's runs, oldest first.
    pub async fn runs(&self, name: &JobName) -> Result<Vec<RunView>, Error> {
        self.get(&format!("/v1/jobs/{}/runs", escape(name.as_str())), &[]).await
    }

    /// Starts the jobs that a selector means.
    pub async fn start(&self, selector: &str) -> Result<ActReply, Error> {
        self.post(&verb(selector, "start"), &[], Bytes::new()).await
    }

    /// Starts them, also where a circuit is open.
    pub async fn start_by_force(&self, selector: &str) -> Result<ActReply, Error> {
        self.post(&verb(selector, "start"), &[("force", "true".to_owned())], Bytes::new()).await
    }

    /// Stops them.
    pub async fn stop(&self, selector: &str) -> Result<ActReply, Error> {
        self.post(&verb(selector, "stop"), &[], Bytes::new()).await
    }

    /// Restarts them.
    pub async fn restart(&self, selector: &str) -> Result<ActReply, Error> {
        self.post(&verb(selector, "restart"), &[], Bytes::new()).await
    }

    /// Signals them.
    pub async fn signal(&self, selector: &str, request: &SignalRequest) -> Result<ActReply, Error> {
        self.post_json(&verb(selector, "signal"), request).await
    }

    /// Writes to a job's stdin; `close` closes it afterwards. The answer says how many bytes were taken.
    pub async fn stdin(&self, name: &JobName, data: Bytes, close: bool) -> Result<StdinReply, Error> {
        let query: &[_] = if close { &[("close", "true".to_owned())] } else { &[] };
        self.post(&verb(name.as_str(), "stdin"), query, data).await
    }

    /// Reads the configuration again, and applies it unless only a plan is wanted.
    pub async fn reload(&self, plan: bool) -> Result<ReloadReply, Error> {
        let query: &[_] = if plan { &[("plan", "true".to_owned())] } else { &[] };
        self.post("/v1/reload", query, Bytes::new()).await
    }

    /// Applies the configuration, and has the old one put back if a job does not come up in time. The answer
    /// names the operation; see [`Self::saga`].
    pub async fn reload_or_roll_back(&self, within: Duration) -> Result<ReloadReply, Error> {
        self.post("/v1/reload", &or_rollback(within), Bytes::new()).await
    }

    /// Starts the jobs that all these selectors mean, and has them stopped again if one does not come up.
    pub async fn start_or_roll_back(&self, jobs: &[String], within: Duration) -> Result<ActReply, Error> {
        let mut query = or_rollback(within);
        let (first, more) = jobs.split_first().map_or(("", &[][..]), |(first, more)| (first.as_str(), more));
        query.extend(more.iter().map(|job| ("job", job.clone())));
        self.post(&verb(first, "start"), &query, Bytes::new()).await
    }

    /// An operation of several steps. `wait`: answered at its end, or after a while.
    pub async fn saga(&self, id: u64, wait: bool) -> Result<SagaView, Error> {
        let query: &[_] = if wait { &[("wait", "true".to_owned())] } else { &[] };
        self.get(&format!("/v1/sagas/{id}"), query).await
    }

    /// Says something about a run, as that run.
    pub async fn publish(&self, run: RunId, request: &PublishRequest) -> Result<PublishReply, Error> {
        self.post_json(&format!("/v1/runs/{run}/progress"), request).await
    }

    /// Queues, and who waits in them; none named: all.
    pub async fn queues(&self, queues: &[QueueName]) -> Result<QueuesReply, Error> {
        let query: Vec<_> = queues.iter().map(|queue| ("queue", queue.to_string())).collect();
        self.get("/v1/queues", &query).await
    }

    /// Gives no turns in a queue, or gives them again.
    pub async fn pause_queue(&self, queue: &QueueName, resume: bool) -> Result<PauseReply, Error> {
        let what = if resume { "resume" } else { "pause" };
        self.post(&format!("/v1/queues/{}/{what}", escape(queue.as_str())), &[], Bytes::new()).await
    }

    /// Moves jobs that wait for their turn.
    pub async fn shift(&self, selector: &str, request: &MoveRequest) -> Result<ActReply, Error> {
        self.post_json(&verb(selector, "move"), request).await
    }

    /// Submits a job.
    pub async fn run(&self, request: &RunRequest) -> Result<RunReply, Error> {
        self.post_json("/v1/run", request).await
    }

    /// Ends the instance. Returns when that has begun.
    pub async fn shutdown(&self, request: &ShutdownRequest) -> Result<(), Error> {
        self.post_json::<_, serde_json::Value>("/v1/shutdown", request).await.map(|_| ())
    }

    /// Who did what, the latest last; at most so many.
    pub async fn audit(&self, limit: Option<u64>) -> Result<Vec<Deed>, Error> {
        let query: Vec<_> = limit.into_iter().map(|n| ("limit", n.to_string())).collect();
        self.get("/v1/audit", &query).await
    }

    /// The start of the supervisor, as it goes on or as it went.
    pub async fn recovery(&self) -> Result<StartReport, Error> {
        self.get("/v1/recovery", &[]).await
    }

    /// What became of incidents.
    pub async fn recovery_metrics(&self) -> Result<RecoveryMetrics, Error> {
        self.get("/api/admin/recovery/metrics", &[]).await
    }

    /// What [`Self::recover`] would do now.
    pub async fn recovery_plan(&self) -> Result<RunsReport, Error> {
        self.get("/v1/recovery/plan", &[]).await
    }

    /// Looks again at what there is, and does what follows from it.
    pub async fn recover(&self) -> Result<RunsReport, Error> {
        self.post("/v1/recovery/run", &[], Bytes::new()).await
    }

    /// Reads all files of the event log, and puts in order what can be.
    pub async fn scrub(&self) -> Result<ScrubReply, Error> {
        self.post("/v1/journal/scrub", &[], Bytes::new()).await
    }

    /// Leaves out a phase of the start.
    pub async fn skip_phase(&self, phase: &str) -> Result<(), Error> {
        let query = [("phase", phase.to_owned())];
        self.post::<serde_json::Value>("/v1/recovery/skip", &query, Bytes::new()).await.map(|_| ())
    }

    /// Ends recovery mode.
    pub async fn leave_recovery(&self) -> Result<ActReply, Error> {
        self.post("/v1/recovery/exit", &[], Bytes::new()).await
    }

    /// The interface's OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.get("/v1/openapi.json", &[]).await
    }

    /// Captured bytes as they are.
    pub async fn output_raw(&self, name: &JobName, query: &OutputQuery) -> Result<RawOutput, Error> {
        let path = format!("/v1/jobs/{}/output", escape(name.as_str()));
        let response = self.granted(Method::GET, &path, &query.query(), None, Bytes::new()).await?;
        let text = |name: &str| header_text(response.headers(), name);
        Ok(RawOutput {
            run: text("x-outlive-run").and_then(|id| id.parse().ok()),
            offset: text("x-outlive-offset"),
            next_offset: text("x-outlive-next-offset"),
            body: Body::new(response.into_body()),
        })
    }

    /// Captured bytes with their place, stream and time.
    pub async fn output(&self, name: &JobName, query: &OutputQuery) -> Result<OutputStream, Error> {
        let path = format!("/v1/jobs/{}/output", escape(name.as_str()));
        let kind = Some("text/event-stream");
        let response = self.granted(Method::GET, &path, &query.query(), kind, Bytes::new()).await?;
        let run = header_text(response.headers(), "x-outlive-run").and_then(|id| id.parse().ok());
        let offset = header_text(response.headers(), "x-outlive-offset");
        Ok(OutputStream::new(Body::new(response.into_body()), run, offset))
    }

    /// Recorded decisions; with `follow` also those to come.
    pub async fn events(&self, since: Since, limit: Option<u64>, follow: bool) -> Result<EventLines, Error> {
        let mut query = Vec::new();
        query.extend(match since {
            Since::Beginning => None,
            Since::Seq(n) => Some(("since", n.to_string())),
            Since::Now => Some(("since", "now".to_owned())),
        });
        query.extend(limit.map(|n| ("limit", n.to_string())));
        query.extend(follow.then(|| ("follow", "true".to_owned())));
        let response = self.granted(Method::GET, "/v1/events", &query, None, Bytes::new()).await?;
        let seq = header_text(response.headers(), "x-outlive-seq").and_then(|n| n.parse().ok());
        Ok(EventLines::new(Body::new(response.into_body()), seq.unwrap_or(0)))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Error> {
        decode(self.granted(Method::GET, path, query, None, Bytes::new()).await?).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: Bytes,
    ) -> Result<T, Error> {
        decode(self.granted(Method::POST, path, query, None, body).await?).await
    }

    async fn post_json<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        self.post(path, &[], body.into()).await
    }

    /// Asks until the answer is a good one, or is not worth waiting for.
    async fn granted(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        accept: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let begun = tokio::time::Instant::now();
        let end = begun + self.patience;
        loop {
            let response = match self.send(method.clone(), path, query, accept, body.clone()).await {
                // Its supervisor died over it. Asking again changes nothing, because asking does not.
                Err(Error::Protocol(_))
                    if method == Method::GET && begun.elapsed() < self.patience.min(REFUSED_TIME) =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                other => other?,
            };
            match granted(response).await {
                Err(Error::Refused { reply, .. })
                    if reply.code == "recovering" && tokio::time::Instant::now() < end =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        accept: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer's body; an error of it shows there, too.
        tokio::spawn(connection);
        let pairs: Vec<String> = query.iter().map(|(n, v)| format!("{n}={}", escape(v))).collect();
        let uri = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            // HTTP/1.1 wants one; a unix socket has no name of its own.
            .header(header::HOST, "outlive")
            .header(header::CONNECTION, "close");
        if let Some(kind) = accept {
            request = request.header(header::ACCEPT, kind);
        }
        let request = request.body(Full::new(body)).map_err(broken)?;
        match tokio::time::timeout(ANSWER_TIME, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(broken),
            Err(_) => Err(Error::Protocol(format!("no answer within {} s", ANSWER_TIME.as_secs()))),
        }
    }

    /// A socket on which nobody listens belongs to an instance that is gone, or to one whose supervisor is
    /// being replaced right now: a patient client looks again for a moment.
    async fn connect(&self) -> Result<UnixStream, Error> {
        let end = tokio::time::Instant::now() + self.patience.min(REFUSED_TIME);
        loop {
            let source = match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(source) => source,
            };
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::ConnectionRefused if tokio::time::Instant::now() < end => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    return Err(Error::NotRunning { socket });
                }
                _ => return Err(Error::Connect { socket, source }),
            }
        }
    }
}

fn or_rollback(within: Duration) -> Vec<(&'static str, String)> {
    vec![("or_rollback", "true".to_owned()), ("within_ms", within.as_millis().to_string())]
}

fn verb(selector: &str, verb: &str) -> String {
    format!("/v1/jobs/{}/{verb}", escape(selector))
}

/// Percent-encodes everything but letters, digits and `-_.~`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

/// The answer if it is a good one, else what it says.
async fn granted(response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = collect(response.into_body()).await?;
    Err(refused(status, &body))
}

fn refused(status: StatusCode, body: &[u8]) -> Error {
    let reply = serde_json::from_slice(body).unwrap_or_else(|_| ErrorReply {
        error: format!("the instance answered {status}"),
        code: String::new(),
        details: Vec::new(),
    });
    Error::Refused { reply, status: status.as_u16() }
}

async fn decode<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Error> {
    let body = collect(response.into_body()).await?;
    serde_json::from_slice(&body).map_err(broken)
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let whole = http_body_util::Limited::new(body, ANSWER_MAX).collect();
    match tokio::time::timeout(ANSWER_TIME, whole).await {
        Ok(all) => all.map(http_body_util::Collected::to_bytes).map_err(broken),
        Err(_) => Err(Error::Protocol("the answer did not arrive in time".to_owned())),
    }
}

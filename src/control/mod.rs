//! The control socket: HTTP/1.1 and JSON on a unix socket.
//!
//! # For script authors
//!
//! ```sh
//! S=/run/outlive/control.sock            # OUTLIVE_SOCKET in every job's environment
//! curl -s --unix-socket $S http://x/v1/status
//! curl -s --unix-socket $S http://x/v1/status?job=web          # a selector; may be repeated
//! curl -s --unix-socket $S -X POST http://x/v1/jobs/web/restart
//! curl -s --unix-socket $S -d '{"signal":"HUP"}' http://x/v1/jobs/web/signal
//! curl -s --unix-socket $S -d '{"command":["make","all"],"cwd":"/src"}' http://x/v1/run
//! curl -sN --unix-socket $S 'http://x/v1/jobs/web/output?tail=10&follow=true'
//! curl -sN --unix-socket $S -H 'Accept: text/event-stream' 'http://x/v1/events?since=now&follow=true'
//! ```
//!
//! | route | what it does |
//! |---|---|
//! | `GET /metrics` | everything that can be counted, in the text format of Prometheus |
//! | `GET /api/alerts` | what somebody should look at: alerts that are raised, and the last that are over |
//! | `GET /api/admin/recovery/metrics` | what became of incidents: how many were recovered, how long it took, by what they began with |
//! | `GET /v1/version` | versions of the build and of this interface |
//! | `GET /v1/health` | 200 while the supervisor answers, with the resources that do not do all they should |
//! | `GET /v1/ready` | 200 when the first survey is done and every wanted job was asked for, else 503 |
//! | `GET /v1/status` | the instance and its jobs; `job=SELECTOR` narrows |
//! | `GET /v1/jobs/NAME` | one job, with `stats`: what its runs came to |
//! | `GET /v1/stats` | the same of all jobs; `job=SELECTOR` narrows |
//! | `GET /v1/jobs/NAME/runs` | its runs, oldest first |
//! | `POST /v1/jobs/SELECTOR/start`, `stop`, `restart` | answered once the decision is durable, not when it is carried out |
//! | `POST /v1/jobs/SELECTOR/signal` | body `{"signal": "HUP", "scope": "tree"}`; the scope may be absent |
//! | `GET /v1/jobs/NAME/output` | captured bytes, see below |
//! | `POST /v1/jobs/NAME/stdin` | the body goes to the job's stdin; `close=true` closes it afterwards |
//! | `POST /v1/runs/RUN/progress` | a run says how far it is: `{"progress": 40, "text": "…", "resume_token": "…"}`; a token is durable when it is answered |
//! | `GET /v1/events` | recorded decisions as JSON lines, from the first: `since=SEQ` or `since=now`, `limit=N`, `follow=true` |
//! | `GET /v1/audit` | who did what to which job, and what it changed: operators and recovery; `limit=N`, the latest |
//! | `POST /v1/reload` | reads the configuration again and applies it; `plan=true` only says what would be done; `or_rollback=true&within_ms=N` puts the old one back if a job it adds or changes does not come up in time |
//! | `POST /v1/jobs/SELECTOR/start?force=true` | also where the circuit of a job is open |
//! | `POST /v1/jobs/SELECTOR/start?or_rollback=true` | starts them (and those of `job=SELECTOR`, repeated), and stops them again if one does not come up |
//! | `GET /v1/sagas`, `/v1/sagas/ID` | what may still be rolled back, and the last that were; `wait=true` answers at the end, or after 20 s |
//! | `GET /v1/recovery` | the start of this supervisor, while it goes on and afterwards: phases, what was found, what was done |
//! | `GET /v1/recovery/starts` | the last starts, oldest first, in short |
//! | `GET /v1/recovery/plan` | what `POST /v1/recovery/run` would do; changes nothing |
//! | `POST /v1/recovery/run` | looks again at what there is, and does what follows |
//! | `POST /v1/recovery/skip` | `phase=NAME`: leaves out a phase of the start that waits |
//! | `POST /v1/recovery/exit` | ends recovery mode |
//! | `POST /v1/journal/scrub` | reads all files of the event log, and puts in order what can be |
//! | `POST /v1/run` | submits a job; answers 201 with its name |
//! | `POST /v1/shutdown` | body `{"keep_jobs": true}` or none; answers 202 when it has begun |
//! | `GET /v1/openapi.json` | this interface as an OpenAPI document |
//!
//! Selectors are those of [`crate::core::select`]; percent-encode `?` as `%3F`.
//!
//! **Errors** are `{"error": "for people", "code": "for programs", "details": [...]}` with status 400 (the
//! request is wrong), 403 (not your socket), 404, 405, 408 and 413 (body too slow, too large), 409 (makes no
//! sense now), 503 (`recovering`, `busy`, `read_only`, `gone`: try again) or 500. What is not HTTP at all
//! is answered with a bare 400.
//!
//! From its first moment a supervisor answers on health, ready, version and recovery; which jobs there are it
//! says when it has read the event log, and until then `recovering`.
//!
//! **Output.** Without more, the latest run's bytes as they were captured. `run=ID|latest|all`,
//! `stream=stdout|stderr|all`, `offset=N` (bytes), `tail=N` (lines), `since=` a time or an age such as `10m`,
//! `limit=N` (bytes), `timestamps=true` (the time in front of each line), `follow=true`. The answer's headers
//! say `X-Outlive-Run`, `X-Outlive-Offset` and `X-Outlive-Next-Offset`: pass the last as `offset` to go on.
//! If older bytes were rotated away, the answer begins later than asked. A run that keeps its streams apart
//! has an offset for each, written `stdout:N,stderr:N`. Following goes on over rotation and, unless one run
//! was named, over restarts into the next run; with one run it ends when the run has ended and all is
//! delivered, or goes on all the same with `onward=true`. With `Accept: text/event-stream` the answer is events named `output`, each an
//! [`OutputEvent`](crate::wire::control::OutputEvent), and a last one named `end`.
//!
//! **Who may.** Root, the user of the instance, and members of the socket's group where the mode lets
//! them in. **Limits**: 256 connections, headers of 16 KiB within 10 s, bodies of 1 MiB (stdin 4 MiB) within
//! 30 s; a connection that takes nothing for 60 s is closed.
//!
//! # Inside
//!
//! Each connection is a task. Reads look at the latest published view and at files, by way of the blocking
//! pool; only verbs reach the main loop, over a bounded channel. So no client can hold up the supervisor,
//! and a reader that stops reading costs two blocks of memory until its time is over.

mod access;
mod act;
mod audit;
mod base64;
mod bind;
mod error;
mod events;
mod follow;
mod insight;
mod instance;
mod metrics;
mod metrics_of_recovery;
mod openapi;
mod output;
mod output_route;
mod params;
mod patient;
mod plan;
mod publish;
mod queues;
mod recovery;
mod render;
mod routes;
mod run_feed;
mod sagas;
mod serve;
mod sources;
mod stats;
mod status;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod when;

use std::sync::Arc;

use tokio::sync::watch;

pub use bind::{PATH_BYTES_MAX, bind};
pub use serve::serve;

use crate::supervisor::handle::{Handle, View};

/// Where files are read: functions, so that tests can do without a keeper.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources {
    /// Opens a run's captured output.
    output: output::OpenOutput,
    /// Reads the event log.
    events: events::ReadEvents,
    /// Reads who did what.
    deeds: audit::ReadDeeds,
    /// Reads the log of the last starts.
    starts: recovery::ReadStarts,
}

/// What every request has at hand.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    handle: Handle,
    sources: Sources,
    /// True once the supervisor is ending.
    ending: watch::Receiver<bool>,
}

impl Shared {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.handle.view.borrow())
    }
}

/// Ends when the supervisor does.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // An error says that nobody is left who could tell: that is an end, too.
    let _ = ending.wait_for(|ending| *ending).await;
}

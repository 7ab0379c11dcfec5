//! Verbs on jobs: start, stop, restart, signal, stdin.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use tokio::sync::oneshot;

use super::Shared;
use super::error::Failure;
use super::params::{Name, Params, read_body, read_json};
use super::sagas;
use super::status::{exact, pick};
use crate::core::ids::JobName;
use crate::core::signal;
use crate::supervisor::handle::{Answer, Ask, AskError, Peer};
use crate::wire::control::{ActReply, SignalRequest, StdinReply};

/// Largest piece of stdin in one request.
pub(crate) const STDIN_MAX: usize = 4 * 1024 * 1024;

/// Hands an ask to the main loop and waits for its answer, which comes once the effect is durable.
pub(crate) async fn ask<T>(shared: &Shared, make: impl FnOnce(Answer<T>) -> Ask) -> Result<T, Failure> {
    use tokio::sync::mpsc::error::TrySendError;
    let (reply, answer) = oneshot::channel();
    shared.handle.asks.try_send(make(reply)).map_err(|e| match e {
        TrySendError::Full(_) => AskError::Busy,
        TrySendError::Closed(_) => AskError::Gone,
    })?;
    Ok(answer.await.unwrap_or(Err(AskError::Gone))?)
}

fn selected(shared: &Shared, selector: &str, params: Params) -> Result<Vec<JobName>, Failure> {
    params.only(&[])?;
    pick(shared, &[selector])
}

pub(crate) async fn start(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(selector): Name,
    params: Params,
) -> Result<Json<ActReply>, Failure> {
    let params = params.only(&["or_rollback", "within_ms", "job", "force"])?;
    let force = params.on("force")?;
    let within = sagas::within(&params)?;
    let more: Vec<&str> = params.all("job").collect();
    let Some(within) = within else {
        if !more.is_empty() {
            return Err(Failure::bad("job means nothing without or_rollback"));
        }
        let jobs = pick(&shared, &[&selector])?;
        return ask(&shared, |reply| Ask::Start { jobs, force, peer, reply }).await.map(Json);
    };
    if force {
        return Err(Failure::bad("force means nothing with or_rollback"));
    }
    let selectors: Vec<&str> = std::iter::once(&*selector).chain(more).collect();
    let jobs = pick(&shared, &selectors)?;
    ask(&shared, |reply| Ask::StartOrRollBack { jobs, within, peer, reply }).await.map(Json)
}

pub(crate) async fn stop(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(selector): Name,
    params: Params,
) -> Result<Json<ActReply>, Failure> {
    let jobs = selected(&shared, &selector, params)?;
    ask(&shared, |reply| Ask::Stop { jobs, peer, reply }).await.map(Json)
}

pub(crate) async fn restart(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(selector): Name,
    params: Params,
) -> Result<Json<ActReply>, Failure> {
    let jobs = selected(&shared, &selector, params)?;
    ask(&shared, |reply| Ask::Restart { jobs, peer, reply }).await.map(Json)
}

pub(crate) async fn send_signal(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(selector): Name,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ActReply>, Failure> {
    let jobs = selected(&shared, &selector, params)?;
    let request: SignalRequest = read_json(&headers, body, None).await?;
    let signal = signal::parse(&request.signal)
        .ok_or_else(|| Failure::bad(format!("{:?} is no signal", request.signal)))?;
    ask(&shared, |reply| Ask::Signal { jobs, signal, scope: request.scope, peer, reply }).await.map(Json)
}

pub(crate) async fn stdin(
    State(shared): State<Shared>,
    Name(name): Name,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<StdinReply>, Failure> {
    let close = params.only(&["close"])?.on("close")?;
    let job = exact(&shared, &name)?;
    let data = read_body(&headers, body, STDIN_MAX).await?.to_vec();
    ask(&shared, |reply| Ask::Stdin { job, data, close, reply }).await.map(Json)
}

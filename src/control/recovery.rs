//! The start of the supervisor as it goes on, and recovery and a scrub on request.

use std::path::Path;

use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Shared;
use super::act::ask;
use super::error::Failure;
use super::params::Params;
use crate::core::report::{RunsReport, StartReport};
use crate::supervisor::handle::{Ask, AskError, Peer, Skip};
use crate::wire::control::{ActReply, ScrubReply};

/// Reads the log of the last starts.
pub(crate) type ReadStarts = fn(state_dir: &Path) -> std::io::Result<Vec<StartReport>>;

pub(crate) async fn report(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<StartReport>, Failure> {
    params.only(&[])?;
    let report = StartReport::clone(&shared.handle.start.borrow());
    Ok(Json(report))
}

pub(crate) async fn starts(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Vec<StartReport>>, Failure> {
    params.only(&[])?;
    let (read, dir) = (shared.sources.starts, shared.handle.state_dir.clone());
    let work = tokio::task::spawn_blocking(move || read(&dir)).await;
    let starts = work.map_err(std::io::Error::other).and_then(|read| read);
    starts.map(Json).map_err(|e| Failure::internal(format!("the startup log: {e}")))
}

pub(crate) async fn plan(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    params: Params,
) -> Result<Json<RunsReport>, Failure> {
    params.only(&[])?;
    recover_with(&shared, true, peer).await
}

pub(crate) async fn recover(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    params: Params,
) -> Result<Json<RunsReport>, Failure> {
    params.only(&[])?;
    recover_with(&shared, false, peer).await
}

async fn recover_with(shared: &Shared, dry_run: bool, peer: Peer) -> Result<Json<RunsReport>, Failure> {
    ask(shared, |reply| Ask::Recover { dry_run, peer, reply }).await.map(Json)
}

pub(crate) async fn exit(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    params: Params,
) -> Result<Json<ActReply>, Failure> {
    params.only(&[])?;
    ask(&shared, |reply| Ask::LeaveRecovery { peer, reply }).await.map(Json)
}

pub(crate) async fn scrub(State(shared): State<Shared>, params: Params) -> Result<Json<ScrubReply>, Failure> {
    params.only(&[])?;
    ask(&shared, |reply| Ask::Scrub { reply }).await.map(Json)
}

pub(crate) async fn skip(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let params = params.only(&["phase"])?;
    let phase = params.text("phase").ok_or_else(|| Failure::bad("which phase? phase=NAME"))?.to_owned();
    let (reply, answer) = oneshot::channel();
    let skip = Skip { phase: phase.clone(), peer, reply };
    shared.handle.skips.try_send(skip).map_err(|_| Failure::from(AskError::Busy))?;
    answer.await.unwrap_or(Err(AskError::Gone))?;
    Ok(Json(json!({ "skipped": phase })))
}

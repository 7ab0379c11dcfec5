//! Verbs on the instance: run, reload, shutdown.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde_json::json;

use super::Shared;
use super::act::ask;
use super::error::Failure;
use super::params::{Params, read_json};
use super::sagas;
use crate::supervisor::handle::{Ask, Peer};
use crate::wire::control::{ReloadReply, RunReply, RunRequest, ShutdownRequest};

pub(crate) async fn run(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<RunReply>), Failure> {
    params.only(&[])?;
    let request: RunRequest = read_json(&headers, body, None).await?;
    if request.command.first().is_none_or(String::is_empty) {
        return Err(Failure::bad("the command is empty"));
    }
    let request = Box::new(request);
    let reply = ask(&shared, |reply| Ask::Run { request, peer, reply }).await?;
    Ok((StatusCode::CREATED, Json(reply)))
}

pub(crate) async fn reload(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    params: Params,
) -> Result<Json<ReloadReply>, Failure> {
    let params = params.only(&["plan", "or_rollback", "within_ms"])?;
    let (plan, within) = (params.on("plan")?, sagas::within(&params)?);
    if let Some(within) = within {
        if plan {
            return Err(Failure::bad("a plan changes nothing that could be rolled back"));
        }
        return ask(&shared, |reply| Ask::ReloadOrRollBack { within, peer, reply }).await.map(Json);
    }
    ask(&shared, |reply| Ask::Reload { plan, peer: Some(peer), reply }).await.map(Json)
}

pub(crate) async fn shutdown(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    params.only(&[])?;
    let request = read_json(&headers, body, Some(ShutdownRequest::default())).await?;
    let keep_jobs = request.keep_jobs;
    ask(&shared, |reply| Ask::Shutdown { keep_jobs, peer: Some(peer), reply }).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "keep_jobs": keep_jobs }))))
}

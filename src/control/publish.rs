//! What runs publish about themselves.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};

use super::Shared;
use super::act::ask;
use super::error::Failure;
use super::params::{Name, Params, read_json};
use crate::core::ids::RunId;
use crate::core::progress::Said;
use crate::supervisor::handle::{Ask, Peer};
use crate::wire::control::{PublishReply, PublishRequest};

pub(crate) async fn progress(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(run): Name,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PublishReply>, Failure> {
    params.only(&[])?;
    let run: RunId = run.parse().map_err(|_| Failure::bad(format!("{run:?} is no run id")))?;
    let PublishRequest { progress, text, resume_token } = read_json(&headers, body, None).await?;
    let said = Said { progress, text, resume: resume_token };
    ask(&shared, |reply| Ask::Publish { run, said, peer, reply }).await.map(Json)
}

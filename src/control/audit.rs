//! `GET /v1/audit`: who did what, from the event log.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use axum::Json;
use axum::extract::State;

use super::Shared;
use super::error::Failure;
use super::params::Params;
use super::status::known;
use crate::core::audit::Deed;

/// Reads the latest deeds, at most so many, from the log of a state directory up to a number.
pub(crate) type ReadDeeds = fn(state_dir: &Path, until: u64, max: usize) -> io::Result<VecDeque<Deed>>;

/// Deeds that are told unless more are asked for.
const LIMIT: usize = 1000;

pub(crate) async fn audit(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<VecDeque<Deed>>, Failure> {
    let params = params.only(&["limit"])?;
    let max = params.parsed("limit", "a number of entries")?.unwrap_or(LIMIT);
    let seq = known(&shared)?.seq;
    let (read, dir) = (shared.sources.deeds, shared.handle.state_dir.clone());
    let work = tokio::task::spawn_blocking(move || read(&dir, seq, max)).await;
    let deeds = work.map_err(io::Error::other).and_then(|read| read);
    deeds.map(Json).map_err(|e| Failure::internal(format!("the event log: {e}")))
}

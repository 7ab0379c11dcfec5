//! Operations of several steps, and how they end.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::Shared;
use super::error::Failure;
use super::params::{Name, Params};
use super::status::known;
use crate::core::saga::WITHIN;
use crate::core::time::Millis;
use crate::supervisor::handle::View;
use crate::wire::control::SagaView;

/// How long a reader that waits is kept before it is told how things are.
const WAIT: Duration = Duration::from_secs(20);

/// Longest time that may be given to one.
const WITHIN_MAX: Millis = Millis::from_secs(24 * 3600);

pub(crate) async fn list(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Vec<SagaView>>, Failure> {
    params.only(&[])?;
    Ok(Json(known(&shared)?.sagas.iter().map(|saga| SagaView::clone(saga)).collect()))
}

pub(crate) async fn saga(
    State(shared): State<Shared>,
    Name(id): Name,
    params: Params,
) -> Result<Json<SagaView>, Failure> {
    let wait = params.only(&["wait"])?.on("wait")?;
    let id: u64 = id.parse().map_err(|_| Failure::bad(format!("{id:?} is no number")))?;
    known(&shared)?;
    let mut views = shared.handle.view.clone();
    if wait {
        let over = |view: &Arc<View>| find(view, id).is_none_or(|saga| saga.state.is_over());
        let mut ending = shared.ending.clone();
        tokio::select! {
            // An error says that the supervisor ends: what it last said is told.
            _ = views.wait_for(over) => {}
            () = super::ended(&mut ending) => {}
            () = tokio::time::sleep(WAIT) => {}
        }
    }
    let view = shared.view();
    let none = || Failure::not_found(format!("nothing is known of operation {id}"));
    find(&view, id).map(|saga| Json(saga.clone())).ok_or_else(none)
}

fn find(view: &View, id: u64) -> Option<&SagaView> {
    view.sagas.iter().map(|saga| &**saga).find(|saga| saga.id == id)
}

/// `or_rollback=true` and `within_ms=N`: how long it may take, if it is to be rolled back at all.
pub(crate) fn within(params: &Params) -> Result<Option<Millis>, Failure> {
    let within: Option<u64> = params.parsed("within_ms", "a number of milliseconds")?;
    match (params.on("or_rollback")?, within) {
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Failure::bad("within_ms means nothing without or_rollback")),
        (true, within) => {
            let within = within.map_or(WITHIN, Millis);
            let fits = within.0 > 0 && within <= WITHIN_MAX;
            fits.then_some(Some(within)).ok_or_else(|| Failure::bad("within_ms is from 1 ms to a day"))
        }
    }
}

//! What `--or-rollback` waits for: an operation that is done whole or undone.

use std::time::Duration;

use tokio::time::Instant;

use super::error::Fail;
use super::watch::{PATIENCE, PAUSE};
use super::{Ctx, code};
use crate::client::Client;
use crate::wire::control::{SagaState, SagaView};

/// Time for one whose asker gave none.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// Waits for the end. A supervisor that dies meanwhile is waited for: its successor goes on with it.
pub(crate) async fn wait(client: &Client, id: u64) -> Result<SagaView, Fail> {
    let mut answered = Instant::now();
    loop {
        match client.saga(id, true).await {
            Ok(saga) if saga.state.is_over() => return Ok(saga),
            Ok(_) => answered = Instant::now(),
            Err(e) if e.may_pass() && answered.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            Err(e) => return Err(e.into()),
        }
    }
}

/// Says how it ended; the exit code.
pub(crate) fn say(saga: &SagaView, ctx: &mut Ctx<'_>) -> u8 {
    match saga.state {
        SagaState::Done => code::OK,
        SagaState::RolledBack => {
            ctx.out.note(&format!("outlive: {} rolled back: {}", saga.verb, reason(saga)));
            code::ROLLED_BACK
        }
        SagaState::Abandoned | SagaState::Running | SagaState::Undoing => {
            ctx.out.note(&format!("outlive: {} neither done nor rolled back: {}", saga.verb, reason(saga)));
            code::FAILED
        }
    }
}

fn reason(saga: &SagaView) -> String {
    let why = saga.why.as_deref().unwrap_or("nobody knows why");
    match &saga.job {
        Some(job) if !why.starts_with("not up") => format!("{job}: {why}"),
        _ => why.to_owned(),
    }
}

//! `outlive shutdown`.

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::args::ShutdownArgs;
use super::error::Fail;
use super::watch::PAUSE;
use super::{Ctx, code};
use crate::client::Error;
use crate::wire::control::{ShutdownRequest, Status};

pub(crate) async fn shutdown(args: &ShutdownArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let before = if args.no_wait { None } else { ctx.client.status(&[]).await.ok() };
    let root = before.as_ref().and_then(hold_root);
    ctx.client.shutdown(&ShutdownRequest { keep_jobs: args.keep_jobs }).await?;
    if args.no_wait {
        return Ok(code::OK);
    }
    match root {
        // The root ends last; if the jobs are kept, it may stay with them.
        Some(root) if !args.keep_jobs => ended(root).await?,
        _ => silence(ctx).await?,
    }
    Ok(code::OK)
}

/// A handle of the instance's root process, readable when it has ended, if it is in our pid namespace: a bare pid could be anybody's.
fn hold_root(status: &Status) -> Option<OwnedFd> {
    let pid = status.instance.roles.init.pid?;
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after the handle was taken, so that both mean the same process.
    let title = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    title.starts_with(b"outlive: init").then_some(handle)
}

/// Waits for the end of the process behind a handle.
async fn ended(root: OwnedFd) -> Result<(), Fail> {
    let work = tokio::task::spawn_blocking(move || {
        let mut look = [PollFd::new(&root, PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut look, None) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other,
            }
        }
    });
    work.await.map_err(std::io::Error::other)?.map_err(std::io::Error::from)?;
    Ok(())
}

/// Waits until nobody answers any more. A supervisor that died on the way is replaced and goes on, so a
/// refusal must last for a moment.
async fn silence(ctx: &Ctx<'_>) -> Result<(), Fail> {
    let mut quiet = 0;
    while quiet < 5 {
        match ctx.client.version().await {
            Err(Error::NotRunning { .. }) => quiet += 1,
            Err(e @ Error::Connect { .. }) => return Err(e.into()),
            _ => quiet = 0,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

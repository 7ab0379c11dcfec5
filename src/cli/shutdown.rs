//! `outlive shutdown`.

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::args::ShutdownArgs;
use super::error::Fail;
use super::watch::PAUSE;
use super::{Ctx, code};
use crate::client::Error;
use crate::wire::control::{InstanceState, ShutdownRequest, Status};

/// How often a question that was cut off is asked again: more supervisors than die in a row by accident.
const TRIES: usize = 5;

/// How the root process shows itself.
const TITLE: &[u8] = b"outlive: init";

pub(crate) async fn shutdown(args: &ShutdownArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let before = if args.no_wait { None } else { ctx.client.status(&[]).await.ok() };
    let root = before.as_ref().and_then(hold_root);
    ask(ctx, args.keep_jobs).await.map_err(without_advice)?;
    if args.no_wait {
        return Ok(code::OK);
    }
    match root {
        // The root ends last.
        Some(root) => ended(root).await?,
        None => silence(ctx).await?,
    }
    Ok(code::OK)
}

/// Whoever wants an end needs no advice on how to begin.
fn without_advice(fail: Fail) -> Fail {
    match fail {
        Fail::Client(e @ Error::NotRunning { .. }) => Fail::Other(e.to_string()),
        other => other,
    }
}

/// Asks for the end. A supervisor that dies over it leaves open whether it was heard, so its successor is
/// asked again: to ask twice is to ask once. If nobody is left to ask, it was heard.
async fn ask(ctx: &Ctx<'_>, keep_jobs: bool) -> Result<(), Fail> {
    let request = ShutdownRequest { keep_jobs };
    let mut cut_off = false;
    for _ in 0..TRIES {
        match ctx.client.shutdown(&request).await {
            Err(Error::Protocol(_)) => cut_off = true,
            Err(Error::NotRunning { .. }) if cut_off => return Ok(()),
            other => return Ok(other?),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(ctx.client.shutdown(&request).await?)
}

/// A handle of the instance's root process, readable when it has ended, if it is in our pid namespace: a bare pid could be anybody's.
fn hold_root(status: &Status) -> Option<OwnedFd> {
    let pid = status.instance.roles.init.pid?;
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after the handle was taken, so that both mean the same process.
    let shown = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let is_root = ["cmdline", "comm"].iter().any(|file| shown(file).starts_with(TITLE));
    is_root.then_some(handle)
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
/// refusal must last for a moment. Somebody who answers and does not end is of another instance, which has
/// taken the place of the one that was asked.
async fn silence(ctx: &Ctx<'_>) -> Result<(), Fail> {
    let mut quiet = 0;
    while quiet < 5 {
        match ctx.client.status(&[]).await {
            Err(Error::NotRunning { .. }) => quiet += 1,
            Err(e @ Error::Connect { .. }) => return Err(e.into()),
            Ok(status)
                if matches!(status.instance.state, InstanceState::Running | InstanceState::Recovery) =>
            {
                let why = "another `outlive up` has taken over from the instance that was asked to end";
                return Err(Fail::Other(why.to_owned()));
            }
            _ => quiet = 0,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

//! `outlive start`, `stop`, `restart`, `signal`.

use std::time::Duration;

use super::args::{RestartArgs, ScopeArg, SignalArgs, StartArgs, StopArgs};
use super::error::Fail;
use super::{Ctx, code, saga, watch};
use crate::client::Client;
use crate::core::spec::KillScope;
use crate::wire::control::{ActReply, JobStatus, SignalRequest, StateWord};

#[derive(Clone, Copy)]
enum Verb {
    Start { force: bool },
    Stop,
    Restart,
}

pub(crate) async fn start(args: &StartArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let mut jobs = args.jobs.clone();
    if args.held {
        let all = ctx.client.status(&[]).await?.jobs;
        jobs.extend(
            all.into_iter().filter(|job| job.state == StateWord::Held).map(|job| job.name.to_string()),
        );
        if jobs.is_empty() {
            ctx.out.note("outlive: no job is held");
            return Ok(code::OK);
        }
    }
    if !args.or_rollback {
        return start_or_restart(Verb::Start { force: args.force }, &jobs, (args.wait, args.timeout), ctx)
            .await;
    }
    let within = args.within.unwrap_or(saga::WITHIN);
    let reply = ctx.client.start_or_roll_back(&jobs, within).await?;
    let told = report(&reply, ctx)?;
    ctx.out.flush()?;
    let Some(id) = reply.saga else { return Ok(told) };
    let end = saga::wait(&ctx.client, id).await?;
    Ok(told.max(saga::say(&end, ctx)))
}

pub(crate) async fn restart(args: &RestartArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    start_or_restart(Verb::Restart, &args.jobs, (args.wait, args.timeout), ctx).await
}

async fn start_or_restart(
    verb: Verb,
    jobs: &[String],
    (wait_for_it, timeout): (bool, Option<Duration>),
    ctx: &mut Ctx<'_>,
) -> Result<u8, Fail> {
    // A restart is over when the run is another one; without a run there is nothing to compare with.
    let before = ctx.client.status(jobs).await?.jobs;
    let told = act(verb, jobs, ctx).await?;
    if !wait_for_it || told != code::OK {
        return Ok(told);
    }
    let settled = |jobs: &[JobStatus]| {
        jobs.iter().all(|job| {
            let old = before.iter().find(|b| b.name == job.name).and_then(|b| b.run);
            let moved = !matches!(verb, Verb::Restart) || old.is_none() || job.run != old;
            moved && !matches!(job.state, StateWord::Starting | StateWord::Stopping | StateWord::Waiting)
        })
    };
    let jobs = wait(ctx, jobs, timeout, settled).await?;
    let mut good = true;
    for job in jobs.iter().filter(|job| !super::status::is_well(job)) {
        good = false;
        let why = if job.reason.is_empty() { String::new() } else { format!(" ({})", job.reason) };
        ctx.out.note(&format!("outlive: {}: {}{why}", job.name, job.state.as_str()));
    }
    Ok(if good { code::OK } else { code::FAILED })
}

pub(crate) async fn stop(args: &StopArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    // Those that were down are not told of twice.
    let before = ctx.client.status(&args.jobs).await?.jobs;
    let told = act(Verb::Stop, &args.jobs, ctx).await?;
    if args.no_wait || told != code::OK {
        return Ok(told);
    }
    let jobs = wait(ctx, &args.jobs, args.timeout, watch::has_ended).await?;
    for job in jobs {
        let moved = before.iter().any(|b| b.name == job.name && b.state != job.state && lived(b));
        if moved {
            ctx.out.line(&format!("{}: {}", job.name, job.state.as_str()))?;
        }
    }
    Ok(code::OK)
}

/// Whether there was a run to be waited for; the rest was told to be stopped at once.
fn lived(job: &JobStatus) -> bool {
    matches!(job.state, StateWord::Starting | StateWord::Running | StateWord::Frozen | StateWord::Stopping)
}

async fn wait(
    ctx: &mut Ctx<'_>,
    jobs: &[String],
    timeout: Option<Duration>,
    done: impl FnMut(&[JobStatus]) -> bool,
) -> Result<Vec<JobStatus>, Fail> {
    let result = watch::until(&ctx.client, jobs, timeout, watch::Met::Before, done).await;
    if let Err(Fail::Code(code::TIMEOUT)) = result {
        ctx.out.note("outlive: the request was accepted; the time to wait for it is over");
    }
    result
}

/// Asks for each selector in turn, after making sure that each means something.
async fn act(verb: Verb, selectors: &[String], ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    ctx.client.status(selectors).await?;
    let mut result = code::OK;
    for selector in selectors {
        let reply = one(verb, &ctx.client, selector).await?;
        result = result.max(report(&reply, ctx)?);
    }
    Ok(result)
}

async fn one(verb: Verb, client: &Client, selector: &str) -> Result<ActReply, Fail> {
    Ok(match verb {
        Verb::Start { force: false } => client.start(selector).await?,
        Verb::Start { force: true } => client.start_by_force(selector).await?,
        Verb::Stop => client.stop(selector).await?,
        Verb::Restart => client.restart(selector).await?,
    })
}

pub(crate) async fn signal(args: &SignalArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    if crate::core::signal::parse(&args.signal).is_none() {
        return Err(Fail::Usage(format!(
            "{:?} is no signal; write HUP, SIGUSR1, 15 or RTMIN+3",
            args.signal
        )));
    }
    let request = SignalRequest {
        signal: args.signal.clone(),
        scope: args.scope.map(|scope| match scope {
            ScopeArg::Process => KillScope::Process,
            ScopeArg::Group => KillScope::Group,
            ScopeArg::Tree => KillScope::Tree,
        }),
    };
    ctx.client.status(&args.jobs).await?;
    let mut result = code::OK;
    for selector in &args.jobs {
        let reply = ctx.client.signal(selector, &request).await?;
        result = result.max(report(&reply, ctx)?);
    }
    Ok(result)
}

/// One line a job: on stdout what was done, on stderr what could not be.
pub(super) fn report(reply: &ActReply, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let mut result = code::OK;
    for job in &reply.jobs {
        let line = format!("{}: {}", job.name, job.text);
        if job.ok {
            ctx.out.line(&line)?;
        } else {
            ctx.out.note(&format!("outlive: {line}"));
            result = code::FAILED;
        }
    }
    Ok(result)
}

//! `outlive run`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::args::{RestartArg, RunArgs};
use super::error::Fail;
use super::up::UpOptions;
use super::when::{now_ms, parse_duration, parse_ms};
use super::work_args::SubmitArgs;
use super::{Ctx, block_on, code, wait, watch};
use crate::client::Error;
use crate::core::ids::JobName;
use crate::core::spec::{Kind, Restart};
use crate::core::time::Stamp;
use crate::wire::control::{RunReply, RunRequest};

/// How long a new instance may take until it accepts a job.
const START_TIME: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &RunArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let request = request(args, ctx)?;
    submit_and_follow(&request, args.wait, ctx)
}

pub(crate) fn submit_task(args: &SubmitArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let request = RunRequest {
        name: name(args.name.as_deref())?,
        command: args.command.clone(),
        cwd: Some(directory(args.cwd.as_deref())?),
        env: variables(&args.env, ctx.env)?,
        queue: Some(args.queue.clone()),
        priority: args.priority,
        after: args.after.clone(),
        hold: args.hold,
        not_before: args.not_before.as_deref().map(moment).transpose()?,
        key: args.key.clone(),
        timeout_ms: args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        retries: args.retries,
        ..RunRequest::default()
    };
    submit_and_follow(&request, args.wait, ctx)
}

/// A moment as a client may write it, in the form of RFC 3339: itself, or how long from now.
pub(super) fn moment(text: &str) -> Result<String, Fail> {
    if parse_ms(text).is_some() {
        return Ok(text.to_owned());
    }
    let ahead = parse_duration(text).map_err(|_| {
        Fail::Usage(format!("{text:?} is no moment; write 10m (from now), or 2030-01-31T08:00:00Z"))
    })?;
    let ahead = i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX);
    let at = Stamp { boot_us: 0, wall_us: now_ms().saturating_mul(1000).saturating_add(ahead) };
    Ok(at.rfc3339())
}

fn submit_and_follow(request: &RunRequest, wait_for_it: bool, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let reply = match block_on(ctx.client.run(request))? {
        Err(Error::NotRunning { .. }) => {
            let options = UpOptions { config: None, detach: true, paths: ctx.paths.clone() };
            // Outside of any runtime: it may fork.
            match (ctx.hooks.up)(options) {
                code::OK => {}
                failed => return Err(Fail::Code(failed)),
            }
            ctx.out.note("outlive: no instance was running, one was started");
            block_on(submit(ctx, request))??
        }
        other => other?,
    };
    if reply.existing {
        ctx.out.note(&format!("outlive: {} was submitted with this key already", reply.name));
    }
    if !wait_for_it {
        ctx.out.line(reply.name.as_str())?;
        return Ok(code::OK);
    }
    ctx.out.note(&format!("outlive: submitted as {}", reply.name));
    let names = [reply.name.to_string()];
    let jobs = block_on(watch::until(&ctx.client, &names, None, watch::Met::Before, watch::has_ended))??;
    wait::say_what_no_code_says(&jobs, ctx);
    Ok(wait::shell_code(&jobs))
}

/// Submits to an instance that has just begun, and may still be looking around.
async fn submit(ctx: &Ctx<'_>, request: &RunRequest) -> Result<RunReply, Fail> {
    let end = tokio::time::Instant::now() + START_TIME;
    loop {
        match ctx.client.run(request).await {
            // A broken answer may hide a job that was accepted: asking again could run it twice.
            Err(e) if e.may_pass() && !matches!(e, Error::Protocol(_)) => {
                if tokio::time::Instant::now() >= end {
                    return Err(e.into());
                }
                tokio::time::sleep(watch::PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}

fn request(args: &RunArgs, ctx: &Ctx<'_>) -> Result<RunRequest, Fail> {
    Ok(RunRequest {
        name: name(args.name.as_deref())?,
        command: args.command.clone(),
        cwd: Some(directory(args.cwd.as_deref())?),
        env: variables(&args.env, ctx.env)?,
        kind: args.service.then_some(Kind::Service),
        restart: args.restart.map(|policy| match policy {
            RestartArg::Always => Restart::Always,
            RestartArg::OnFailure => Restart::OnFailure,
            RestartArg::Never => Restart::Never,
        }),
        stdin: args.stdin,
        ..RunRequest::default()
    })
}

fn name(given: Option<&str>) -> Result<Option<JobName>, Fail> {
    let name = given.map(JobName::new).transpose();
    let name = name.map_err(|e| Fail::Usage(format!("--name: {e}")))?;
    if name.as_ref().is_some_and(|name| name.as_str().contains(':') || name.as_str() == "all") {
        let why = "a ':' stands before the number of an instance, and `all` means every job";
        return Err(Fail::Usage(format!("--name: {why}")));
    }
    Ok(name)
}

fn directory(given: Option<&Path>) -> Result<String, Fail> {
    let cwd = match given {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::current_dir()?,
    };
    cwd.into_os_string()
        .into_string()
        .map_err(|dir| Fail::Usage(format!("the working directory {} is not UTF-8", dir.display())))
}

fn variables(
    given: &[String],
    env: &dyn Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<BTreeMap<String, String>, Fail> {
    let mut all = BTreeMap::new();
    for text in given {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = env(text).ok_or_else(|| Fail::Usage(format!("--env {text}: it is not set")))?;
                let value = value.into_string();
                (text.as_str(), value.map_err(|_| Fail::Usage(format!("--env {text}: it is not UTF-8")))?)
            }
        };
        if name.is_empty() {
            return Err(Fail::Usage(format!("--env {text:?}: the name is empty")));
        }
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_given_or_passed_on() {
        let env = |name: &str| (name == "HERE").then(|| "x=y".into());
        let given = ["A=1", "B=", "C=a=b", "HERE"].map(str::to_owned);
        let all = variables(&given, &env).unwrap();
        let pairs: Vec<_> = all.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(pairs, ["A=1", "B=", "C=a=b", "HERE=x=y"]);
        for wrong in ["=x", "GONE", ""] {
            assert!(matches!(variables(&[wrong.to_owned()], &env), Err(Fail::Usage(_))), "{wrong}");
        }
    }
}

//! `outlive send`.

use std::io::Read;

use hyper::body::Bytes;

use super::args::SendArgs;
use super::error::Fail;
use super::watch::PAUSE;
use super::{Ctx, code};
use crate::client::Error;
use crate::core::ids::JobName;

/// Bytes sent in one request: as much as a pipe takes at once, so that no answer waits long for the job.
const BLOCK: usize = 64 * 1024;

pub(crate) async fn send(args: &SendArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let job = JobName::new(args.job.as_str());
    let job = job.map_err(|e| Fail::Usage(format!("{:?} is not the name of one job: {e}", args.job)))?;
    if args.text.is_empty() {
        while let Some(block) =
            tokio::task::spawn_blocking(read_block).await.map_err(std::io::Error::other)??
        {
            deliver(ctx, &job, block).await?;
        }
    } else {
        deliver(ctx, &job, Bytes::from(args.text.join(" ") + "\n")).await?;
    }
    if args.close {
        ctx.client.stdin(&job, Bytes::new(), true).await?;
    }
    Ok(code::OK)
}

/// What stdin has; `None` at its end.
fn read_block() -> std::io::Result<Option<Bytes>> {
    let mut buffer = vec![0; BLOCK];
    let count = std::io::stdin().read(&mut buffer)?;
    buffer.truncate(count);
    Ok((count > 0).then(|| buffer.into()))
}

/// Sends all of it: a pipe that is full takes the rest when the job has read.
async fn deliver(ctx: &Ctx<'_>, job: &JobName, mut data: Bytes) -> Result<(), Fail> {
    while !data.is_empty() {
        let block = data.slice(..data.len().min(BLOCK));
        let taken = match ctx.client.stdin(job, block, false).await {
            Ok(reply) => usize::try_from(reply.bytes).unwrap_or(usize::MAX).min(data.len()),
            // Nothing was taken then.
            Err(Error::Refused { reply, .. }) if reply.code == "busy" => 0,
            Err(e) => return Err(e.into()),
        };
        data = data.slice(taken..);
        if taken == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

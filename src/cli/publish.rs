//! `outlive publish`, to be called by jobs.

use super::args::PublishArgs;
use super::error::Fail;
use super::{Ctx, code};
use crate::core::ids::RunId;
use crate::wire::control::PublishRequest;

pub(crate) async fn publish(args: &PublishArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let from_env = || (ctx.env)("OUTLIVE_RUN_ID").and_then(|id| id.into_string().ok());
    let Some(run) = args.run.clone().or_else(from_env) else {
        let why = "which run? OUTLIVE_RUN_ID is not set, so this is no job; give --run";
        return Err(Fail::Usage(why.to_owned()));
    };
    let run: RunId = run.parse().map_err(|_| Fail::Usage(format!("{run:?} is no run id")))?;
    let request = PublishRequest {
        progress: args.progress,
        text: args.message.clone(),
        resume_token: args.resume_token.clone(),
    };
    if request == PublishRequest::default() {
        let why = "nothing to publish: give --progress, --message or --resume-token";
        return Err(Fail::Usage(why.to_owned()));
    }
    ctx.client.publish(run, &request).await?;
    Ok(code::OK)
}

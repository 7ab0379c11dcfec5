//! `outlive version`.

use serde_json::json;

use super::args::VersionArgs;
use super::error::Fail;
use super::{Ctx, code};
use crate::client::Error;
use crate::wire::control::API;

const OURS: &str = env!("CARGO_PKG_VERSION");

pub(crate) async fn version(args: &VersionArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let instance = match ctx.client.version().await {
        Ok(version) => Some(version),
        Err(Error::NotRunning { .. } | Error::Connect { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    if args.json {
        ctx.out.json(&json!({ "version": OURS, "api": API, "instance": instance }))?;
        return Ok(code::OK);
    }
    ctx.out.line(&format!("outlive {OURS}"))?;
    if let Some(theirs) = instance {
        ctx.out.line(&format!("instance {} (interface {})", theirs.version, theirs.api))?;
    }
    Ok(code::OK)
}

//! `outlive up`.

use std::path::PathBuf;

use super::Ctx;
use super::args::UpArgs;
use super::paths::Paths;

/// How an instance is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpOptions {
    /// The configuration file; `None`: the first of the usual places that exists.
    pub config: Option<PathBuf>,
    /// Return once the instance answers on its socket, and leave it running in the background.
    pub detach: bool,
    /// Where it lives.
    pub paths: Paths,
}

pub(crate) fn up(args: UpArgs, ctx: &mut Ctx<'_>) -> u8 {
    let UpArgs { config, detach } = args;
    (ctx.hooks.up)(UpOptions { config, detach, paths: ctx.paths.clone() })
}

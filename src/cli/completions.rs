//! `outlive completions`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::error::Fail;
use super::{Out, code};

pub(crate) fn completions(args: &CompletionsArgs, out: &mut Out) -> Result<u8, Fail> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "outlive", &mut script);
    out.bytes(&script)?;
    Ok(code::OK)
}

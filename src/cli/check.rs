//! `outlive check`.

use std::collections::BTreeMap;

use super::args::CheckArgs;
use super::error::Fail;
use super::{Out, code};
use crate::config;

pub(crate) fn check(args: &CheckArgs, env: &BTreeMap<String, String>, out: &mut Out) -> Result<u8, Fail> {
    if args.schema {
        out.json(&config::schema())?;
        return Ok(code::OK);
    }
    let Some(path) = args.config.clone().or_else(|| config::find_default(env)) else {
        return Err(Fail::Usage(
            "there is no configuration: no ./outlive.toml, and none of the user or the system; name one with -c"
                .to_owned(),
        ));
    };
    match config::load(&path, env) {
        Ok(config) => {
            let jobs = config.jobs.len();
            let word = if jobs == 1 { "job" } else { "jobs" };
            out.line(&format!("{}: good, {jobs} {word}", path.display()))?;
            Ok(code::OK)
        }
        Err(config::Errors(mistakes)) => {
            for mistake in &mistakes {
                out.note(&mistake.to_string());
            }
            let word = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
            out.note(&format!("{}: {} {word}", path.display(), mistakes.len()));
            Ok(code::USAGE)
        }
    }
}

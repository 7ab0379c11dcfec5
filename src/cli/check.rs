//! `outlive check`.

use std::path::{Path, PathBuf};

use super::args::CheckArgs;
use super::error::Fail;
use super::{Out, code};

/// What the command line asks of the configuration.
#[derive(Clone, Copy)]
pub struct ConfigHooks {
    /// The file that `outlive up` would read without `-c`.
    pub find_default: fn() -> Option<PathBuf>,
    /// Reads and checks a file: the number of jobs in it, or one text for each mistake.
    pub load: fn(&Path) -> Result<usize, Vec<String>>,
    /// The JSON schema.
    pub schema: fn() -> String,
}

pub(crate) fn check(args: &CheckArgs, config: ConfigHooks, out: &mut Out) -> Result<u8, Fail> {
    if args.schema {
        out.line(&(config.schema)())?;
        return Ok(code::OK);
    }
    let Some(path) = args.config.clone().or_else(config.find_default) else {
        return Err(Fail::Usage(
            "there is no configuration: no ./outlive.toml, and none of the user or the system; name one with -c"
                .to_owned(),
        ));
    };
    match (config.load)(&path) {
        Ok(jobs) => {
            let word = if jobs == 1 { "job" } else { "jobs" };
            out.line(&format!("{}: good, {jobs} {word}", path.display()))?;
            Ok(code::OK)
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                out.note(mistake);
            }
            let word = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
            out.note(&format!("{}: {} {word}", path.display(), mistakes.len()));
            Ok(code::USAGE)
        }
    }
}

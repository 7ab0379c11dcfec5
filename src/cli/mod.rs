//! The command line: one file a verb, rendering apart from fetching.
//!
//! What was asked for goes to stdout, everything else to stderr; with `--json` stdout has one JSON value and
//! nothing more. A reader of stdout that goes away ends the command quietly.

mod act;
mod args;
mod audit;
mod check;
mod completions;
mod demo_http;
mod error;
mod events;
mod journal;
mod logs;
mod out;
pub mod paths;
mod publish;
mod queue;
mod recover;
mod recovery_metrics;
mod reload;
mod run;
mod saga;
mod send;
mod shutdown;
mod stats;
mod status;
mod table;
#[cfg(test)]
mod tests;
pub mod up;
mod version;
mod wait;
mod watch;
mod when;
mod work_args;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use clap::Parser;

use self::args::{Cli, Verb};
use self::error::Fail;
pub use self::out::Out;
use self::paths::Paths;
use crate::client::Client;
use crate::core::report::{RunsReport, StartReport};
use crate::journal::inspect::{Mode, Repaired};

/// Exit codes, other than those a job's own code is passed on with (`wait`, `run --wait`).
pub mod code {
    /// Done.
    pub const OK: u8 = 0;
    /// The request failed.
    pub const FAILED: u8 = 1;
    /// Wrong usage or wrong configuration.
    pub const USAGE: u8 = 2;
    /// `status`: no instance runs, or a job that should run does not.
    pub const NOT_RUNNING: u8 = 3;
    /// `status`: there is no such job.
    pub const NO_SUCH_JOB: u8 = 4;
    /// `journal`: files are damaged, nothing is missing.
    pub const DAMAGED: u8 = 5;
    /// `journal`, `up`: entries are missing.
    pub const LOSS: u8 = 6;
    /// `--or-rollback`: a job did not come up, and what was before is in force again.
    pub const ROLLED_BACK: u8 = 7;
    /// `--timeout` is over.
    pub const TIMEOUT: u8 = 124;

    /// The table that `--help` prints.
    pub const TABLE: [(u8, &str); 9] = [
        (OK, "done; status: everything named runs, or ended well"),
        (FAILED, "the request failed"),
        (USAGE, "wrong usage or wrong configuration"),
        (NOT_RUNNING, "status: no instance runs, or a job that should run does not"),
        (NO_SUCH_JOB, "status: there is no such job"),
        (DAMAGED, "journal: files are damaged, and no entry is missing"),
        (LOSS, "journal, up: entries are missing that nothing brings back"),
        (ROLLED_BACK, "--or-rollback: a job did not come up; what was before is in force again"),
        (TIMEOUT, "the time given with --timeout is over"),
    ];
}

/// [`code::TABLE`] for `--help`; a test holds them together.
const AFTER_HELP: &str = "\
Exit codes:
    0  done; status: everything named runs, or ended well
    1  the request failed
    2  wrong usage or wrong configuration
    3  status: no instance runs, or a job that should run does not
    4  status: there is no such job
    5  journal: files are damaged, and no entry is missing
    6  journal, up: entries are missing that nothing brings back
    7  --or-rollback: a job did not come up; what was before is in force again
  124  the time given with --timeout is over
  wait JOB and run --wait exit with the job's own code: 128 + N after signal N,
  127 or 126 if the program was not found or could not be executed, 125 if it
  never ran or its end cannot be known.

Environment: OUTLIVE_STATE_DIR, OUTLIVE_RUNTIME_DIR and OUTLIVE_SOCKET choose the
instance, NO_COLOR switches colours off.";

/// What the command line needs of the rest of the program and does not know itself.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Starts an instance; answers the exit code.
    pub up: fn(up::UpOptions) -> u8,
    /// What the next start would do with what survived in a state directory, by this configuration file.
    pub plan: fn(&Path, Option<&Path>) -> Result<RunsReport, String>,
    /// The report of the last start in a state directory.
    pub report: fn(&Path) -> Result<Option<StartReport>, String>,
    /// Why this build cannot work with a state directory, by its file `format`.
    pub format: fn(&Path) -> Result<(), String>,
    /// Puts the event log in a state directory in order, unless an instance lives there.
    pub repair: fn(&Path, Mode) -> Result<Repaired, String>,
}

/// What a verb works with.
pub(crate) struct Ctx<'a> {
    pub(crate) paths: Paths,
    pub(crate) client: Client,
    pub(crate) hooks: Hooks,
    pub(crate) env: &'a dyn Fn(&str) -> Option<OsString>,
    pub(crate) out: &'a mut Out,
}

/// Runs the command line of this process; answers the exit code.
#[must_use]
pub fn main(hooks: Hooks) -> u8 {
    run(std::env::args_os(), &|name| std::env::var_os(name), hooks, Out::process())
}

/// Runs a command line: `args` begins with the program's name.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
    hooks: Hooks,
    mut out: Out,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => return usage(&e, &mut out),
    };
    let result = match without_instance(&cli.verb, &mut out) {
        Some(result) => result,
        None => with_instance(cli, env, hooks, &mut out),
    };
    let result = result.and_then(|code| out.flush().map(|()| code).map_err(Fail::from));
    result.unwrap_or_else(|fail| {
        for line in fail.lines() {
            out.note(&line);
        }
        fail.code()
    })
}

/// What clap has to say: help and version on stdout, mistakes on stderr.
fn usage(error: &clap::Error, out: &mut Out) -> u8 {
    let rendered = error.render();
    if error.use_stderr() {
        out.note(rendered.to_string().trim_end());
        return code::USAGE;
    }
    let text = if out.colour { rendered.ansi().to_string() } else { rendered.to_string() };
    match out.bytes(text.as_bytes()) {
        Ok(()) => code::OK,
        Err(e) => Fail::from(e).code(),
    }
}

/// Verbs that work where there can be no instance.
fn without_instance(verb: &Verb, out: &mut Out) -> Option<Result<u8, Fail>> {
    Some(match verb {
        Verb::Check(args) => check::check(args, &environment(), out),
        Verb::Completions(args) => completions::completions(args, out),
        Verb::DemoHttp => demo_http::demo_http(out),
        _ => return None,
    })
}

/// The variables of this process that are text; no configuration can name others.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?))).collect()
}

fn with_instance(
    cli: Cli,
    env: &dyn Fn(&str) -> Option<OsString>,
    hooks: Hooks,
    out: &mut Out,
) -> Result<u8, Fail> {
    let uid = rustix::process::geteuid().as_raw();
    let wrong = |e: paths::PathsError| Fail::Usage(e.to_string());
    let paths = Paths::resolve(&cli.place, env, uid).map_err(wrong)?;
    paths.check().map_err(wrong)?;
    let client = Client::new(&paths.socket).with_patience(RECOVERY_TIME);
    let mut ctx = Ctx { paths, client, hooks, env, out };
    let ctx = &mut ctx;
    match cli.verb {
        Verb::Up(args) => Ok(up::up(args, ctx)),
        Verb::Run(args) => run::run(&args, ctx),
        Verb::Submit(args) => run::submit_task(&args, ctx),
        Verb::Queue(args) => block_on(queue::queue(&args, ctx))?,
        Verb::Move(args) => block_on(queue::shift(&args, ctx))?,
        Verb::Status(args) => block_on(status::status(&args, ctx))?,
        Verb::Stats(args) => block_on(stats::stats(&args, ctx))?,
        Verb::Logs(args) => block_on(logs::logs(&args, ctx))?,
        Verb::Start(args) => block_on(act::start(&args, ctx))?,
        Verb::Stop(args) => block_on(act::stop(&args, ctx))?,
        Verb::Restart(args) => block_on(act::restart(&args, ctx))?,
        Verb::Signal(args) => block_on(act::signal(&args, ctx))?,
        Verb::Reload(args) => block_on(reload::reload(&args, ctx))?,
        Verb::Events(args) => block_on(events::events(&args, ctx))?,
        Verb::Audit(args) => block_on(audit::audit(&args, ctx))?,
        Verb::Recover(args) => block_on(recover::recover(&args, ctx))?,
        Verb::Journal(args) => journal::journal(&args, ctx),
        Verb::Wait(args) => block_on(wait::wait(&args, ctx))?,
        Verb::Send(args) => block_on(send::send(&args, ctx))?,
        Verb::Publish(args) => block_on(publish::publish(&args, ctx))?,
        Verb::Shutdown(args) => block_on(shutdown::shutdown(&args, ctx))?,
        Verb::Version(args) => block_on(version::version(&args, ctx))?,
        Verb::Check(_) | Verb::Completions(_) | Verb::DemoHttp => Ok(code::OK),
    }
}

/// How long a command waits for an instance that is finding out what survived.
const RECOVERY_TIME: Duration = Duration::from_secs(10);

/// Runs a verb's conversation with the instance on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Fail> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A read from stdin that never ends must not keep the command alive.
    runtime.shutdown_background();
    Ok(result)
}

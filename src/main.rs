//! Roles and nothing else: the name this process was started by decides which one it plays.

use std::process::ExitCode;

use outlive::cli::{self, Hooks};
use outlive::roles::{Role, RoleArguments};
use outlive::{helper, init, keeper, supervisor, up};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let title = arguments.next().unwrap_or_default();
    if title == helper::TITLE {
        return ended(helper::TITLE, helper::main());
    }
    let Some(role) = Role::from_title(&title) else {
        return ExitCode::from(cli::main(Hooks {
            up: up::run,
            plan: supervisor::offline::plan,
            report: supervisor::offline::report,
            format: supervisor::offline::format,
            repair: supervisor::offline::repair,
        }));
    };
    let code = match RoleArguments::parse(arguments) {
        Ok(arguments) => play(role, arguments),
        Err(why) => Err(why),
    };
    ended(role.title(), code)
}

fn ended(title: &str, code: Result<u8, String>) -> ExitCode {
    ExitCode::from(code.unwrap_or_else(|why| {
        complain(&format!("{title}: {why}\n"));
        74
    }))
}

/// Init and keeper have no log of their own; what ends them goes to stderr, if anybody reads there.
fn complain(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn play(role: Role, arguments: RoleArguments) -> Result<u8, String> {
    let text = |error: std::io::Error| error.to_string();
    match role {
        Role::Init => init::run(init::Options {
            arguments: arguments.shared(),
            recovery_after: arguments.recovery_after,
            keep_open: arguments.keep_open,
            table: arguments.table,
        })
        .map_err(text),
        Role::Keeper => keeper::run(&keeper::Options {
            state_dir: arguments.state_dir,
            runtime_dir: arguments.runtime_dir,
            open_files: arguments.open_files,
        })
        .map_err(text),
        Role::Supervisor => Ok(supervisor::run(&supervisor::Options {
            state_dir: arguments.state_dir,
            runtime_dir: arguments.runtime_dir,
            socket: arguments.socket,
            config: arguments.config,
            recovery: arguments.recovery,
            recovery_after: arguments.recovery_after,
            born_us: arguments.born_us,
        })),
    }
}

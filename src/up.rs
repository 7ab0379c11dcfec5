//! `outlive up`: from a command line to an instance.
//!
//! Everything that can be wrong is found out before anything is started: the configuration, the
//! directories, the lock. Then this process becomes init by `execve`, keeping the lock. If the lock is
//! taken, an instance lives there already, and this process becomes its foreground stand-in: it waits for
//! it and passes signals on, so that whoever started it need not know the difference.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::cli::code;
use crate::cli::paths::Paths;
use crate::cli::up::UpOptions;
use crate::client::Client;
use crate::config;
use crate::control::PATH_BYTES_MAX;
use crate::roles::{Role, RoleArguments};
use crate::state_dir::layout::{RuntimeDir, StateDir};
use crate::sys::{clock, exec, flock, pidfd, signals};
use crate::wire::control::ShutdownRequest;

pub use crate::supervisor::loader_environment;

/// Supervisor deaths within a minute that lead to recovery mode, unless the environment says otherwise.
const RECOVERY_AFTER: usize = 5;
/// The variable that says otherwise; 0: never.
const RECOVERY_AFTER_VARIABLE: &str = "OUTLIVE_RECOVERY_AFTER";

/// How long a detached instance may take to answer.
const DETACH_PATIENCE: Duration = Duration::from_secs(30);

/// Starts an instance, or stands in for one. The exit code.
#[must_use]
pub fn run(options: UpOptions) -> u8 {
    match try_run(options) {
        Ok(code) => code,
        Err(Failure { code, text }) => {
            say(&text);
            code
        }
    }
}

struct Failure {
    code: u8,
    text: String,
}

fn failed(text: impl Into<String>) -> Failure {
    Failure { code: code::FAILED, text: text.into() }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn try_run(options: UpOptions) -> Result<u8, Failure> {
    let config = find_config(&options)?;
    check_sockets(&options.paths)?;
    let state = StateDir::create(&options.paths.state_dir).map_err(|e| failed(describe(&e)))?;
    RuntimeDir::create(&options.paths.runtime_dir).map_err(|e| failed(describe(&e)))?;
    let cannot = |error: io::Error| failed(format!("cannot lock {}: {error}", state.lock().display()));
    let mut tried = flock::open(&state.lock()).map_err(cannot)?;
    loop {
        let (lock, holder) = match tried {
            flock::Tried::Held(lock) if options.detach => return detach(&options, &state, lock, config),
            flock::Tried::Held(lock) => return Err(become_init(&options, &lock, config)),
            flock::Tried::Busy(lock, holder) => (lock, holder),
        };
        if holder.pid == 0 {
            let dir = options.paths.state_dir.display();
            return Err(failed(format!("an instance in another pid namespace holds {dir}")));
        }
        let process = pidfd::open(holder.pid);
        // Still held by the same number after the descriptor was opened: it is the holder's. Otherwise the
        // holder ended meanwhile, and its place may be free.
        tried = match (flock::retry(lock).map_err(cannot)?, process) {
            (flock::Tried::Busy(lock, now), Ok(process)) if now == holder => {
                if let Some(code) = stand_in(&options, &state, holder.pid, &process)? {
                    return Ok(code);
                }
                flock::retry(lock).map_err(cannot)?
            }
            (tried, _) => tried,
        };
    }
}

/// An error and what caused it, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The configuration file, absolute, if there is one and it is good.
fn find_config(options: &UpOptions) -> Result<Option<PathBuf>, Failure> {
    let env = loader_environment();
    let Some(path) = options.config.clone().or_else(|| config::find_default(&env)) else { return Ok(None) };
    let path = std::path::absolute(&path).unwrap_or(path);
    match config::load(&path, &env) {
        Ok(_) => Ok(Some(path)),
        Err(errors) => Err(Failure { code: code::USAGE, text: errors.to_string() }),
    }
}

/// A socket's path that the kernel would refuse is found out here, where somebody reads it, and not by a
/// role that would be started again and again.
fn check_sockets(paths: &Paths) -> Result<(), Failure> {
    let keeper = RuntimeDir(paths.runtime_dir.clone()).keeper_socket();
    for (path, option) in [(&keeper, "--runtime-dir"), (&paths.socket, "--socket")] {
        let bytes = path.as_os_str().len();
        if bytes > PATH_BYTES_MAX {
            let (path, max) = (path.display(), PATH_BYTES_MAX);
            return Err(failed(format!(
                "the socket path {path} has {bytes} bytes, and the kernel allows {max}: choose a shorter one with {option}"
            )));
        }
        if path.symlink_metadata().is_ok_and(|meta| !meta.file_type().is_socket()) {
            return Err(failed(format!("{} is in the way of a socket: it is none itself", path.display())));
        }
    }
    Ok(())
}

/// Replaces this process by init. Returns only on failure.
fn become_init(options: &UpOptions, lock: &flock::Lock, config: Option<PathBuf>) -> Failure {
    let recovery_after = std::env::var(RECOVERY_AFTER_VARIABLE).ok().and_then(|text| text.parse().ok());
    let arguments = RoleArguments {
        state_dir: options.paths.state_dir.clone(),
        runtime_dir: options.paths.runtime_dir.clone(),
        socket: options.paths.socket.clone(),
        config,
        recovery_after: recovery_after.unwrap_or(RECOVERY_AFTER),
        born_us: clock::boot_us(),
        open_files: exec::open_files_limit(),
        ..RoleArguments::default()
    };
    let kept = lock.as_raw_fd();
    let own = [Role::Init.title().to_owned(), "--keep-open".to_owned(), kept.to_string()];
    let own = own.into_iter().filter_map(|text| CString::new(text).ok());
    exec::set_close_on_exec(kept, false);
    let error = exec::Prepared::new(own.chain(arguments.shared()).collect()).exec();
    failed(format!("cannot start init: {error}"))
}

/// Starts the instance in the background, and returns when it answers.
fn detach(
    options: &UpOptions,
    state: &StateDir,
    lock: flock::Lock,
    config: Option<PathBuf>,
) -> Result<u8, Failure> {
    // A record lock belongs to a process: the one that is to live on must take it itself.
    drop(lock);
    let log = state.0.join("outlive.log");
    let executable =
        std::env::current_exe().map_err(|e| failed(format!("cannot find this executable: {e}")))?;
    let mut command = std::process::Command::new(executable);
    command.arg("--state-dir").arg(&options.paths.state_dir);
    command.arg("--runtime-dir").arg(&options.paths.runtime_dir);
    command.arg("--socket").arg(&options.paths.socket).arg("up");
    if let Some(config) = &config {
        command.arg("--config").arg(config);
    }
    let output = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|e| failed(format!("cannot write {}: {e}", log.display())))?;
    let other = output.try_clone().map_err(|e| failed(format!("cannot write {}: {e}", log.display())))?;
    command.stdin(std::process::Stdio::null()).stdout(output).stderr(other);
    exec::in_a_session_of_its_own(&mut command);
    let mut child = command.spawn().map_err(|e| failed(format!("cannot start the instance: {e}")))?;
    let process = i32::try_from(child.id()).ok().and_then(|pid| pidfd::open(pid).ok());
    if wait_until_ready(&options.paths.socket, process.as_ref()) {
        Ok(code::OK)
    } else {
        // It may have ended with a code that says why.
        let ended = child.try_wait().ok().flatten().and_then(|status| status.code());
        let code = ended.filter(|code| *code == i32::from(code::LOSS)).map_or(code::FAILED, |_| code::LOSS);
        let text = format!("the instance did not come up; its messages are in {}", log.display());
        Err(Failure { code, text })
    }
}

fn runtime() -> Option<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().ok()
}

/// Waits until the instance says that it is ready; false if its process ends first, or it takes too long.
fn wait_until_ready(socket: &Path, process: Option<&OwnedFd>) -> bool {
    let Some(runtime) = runtime() else { return false };
    runtime.block_on(async {
        let client = Client::new(socket);
        let deadline = tokio::time::Instant::now() + DETACH_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if client.ready().await.unwrap_or(false) {
                return true;
            }
            if process.is_some_and(|process| pidfd::has_ended(process.as_fd())) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    })
}

/// An instance lives already: wait for its end, and pass signals on to it. `None` if its init was killed
/// and the rest goes on: then its place is ours to take.
fn stand_in(
    options: &UpOptions,
    state: &StateDir,
    pid: i32,
    process: &OwnedFd,
) -> Result<Option<u8>, Failure> {
    let socket = &options.paths.socket;
    if options.detach {
        return if wait_until_ready(socket, Some(process)) {
            say(&format!("outlive: an instance is running here already (process {pid})"));
            Ok(Some(code::OK))
        } else {
            Err(failed(format!("an instance is running here already (process {pid}), and does not answer")))
        };
    }
    let asked = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];
    let signals = signals::block_all_and_open(&asked).map_err(|e| failed(format!("signals: {e}")))?;
    say(&format!("outlive: an instance is running here already (process {pid}); standing in for it"));
    loop {
        let mut fds = [PollFd::new(process, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if fds[0].revents().contains(PollFlags::IN) {
            if has_orphans(state) {
                say("the instance's init is gone, and the rest goes on; taking its place");
                return Ok(None);
            }
            say("the instance has ended");
            return Ok(Some(code::OK));
        }
        while let Some((signal, _)) = signals::read(&signals) {
            pass_on(socket, signal);
        }
    }
}

/// Whether a keeper or supervisor lives on without its init, which ends after both.
fn has_orphans(state: &StateDir) -> bool {
    [state.keeper_lock(), state.supervisor_lock()].iter().any(|lock| flock::is_held(lock))
}

fn pass_on(socket: &Path, signal: i32) {
    let Some(runtime) = runtime() else { return };
    let client = Client::new(socket);
    let result = runtime.block_on(async {
        if signal == libc::SIGHUP {
            client.reload(false).await.map(|_| ())
        } else {
            client.shutdown(&ShutdownRequest { keep_jobs: false }).await
        }
    });
    if let Err(error) = result {
        say(&format!("the instance could not be told: {error}"));
    }
}

//! How a supervisor begins: its lock, its memory, the control socket, and then the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::level_filters::LevelFilter;

use super::event_log::EventLog;
use super::handle::{ASKS_MAX, Handle};
use super::init_link::InitLink;
use super::main_loop::{Sources, Supervisor, now};
use crate::config::{self, Config, LogLevel};
use crate::control;
use crate::core::identity::Epoch;
use crate::core::ids::Generation;
use crate::core::state::State;
use crate::journal::{self, Journal, Kind, Report};
use crate::state_dir::layout::{RuntimeDir, StateDir};
use crate::sys::{flock, identity, pidfd};
use crate::wire::init::{HOLD_CONFIG, HOLD_LISTENER};

/// How a supervisor is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// State directory.
    pub state_dir: PathBuf,
    /// Runtime directory.
    pub runtime_dir: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Watch and adopt, start nothing by itself.
    pub recovery: bool,
    /// When the instance began, boot clock in microseconds.
    pub born_us: u64,
}

/// Exit code when the supervisor cannot do its work at all.
const EXIT_UNUSABLE: u8 = 74;

/// Runs until the instance is over. The exit code.
#[must_use]
pub fn run(options: &Options) -> u8 {
    let (init, held) = super::init_link::inherit();
    let [held_config, held_listener] = held;
    crate::sys::exec::close_on_exec_from(3);
    crate::sys::exec::raise_descriptor_limit();
    let accepted = accepted_config(options, held_config);
    let level = accepted.as_ref().map_or(LogLevel::Info, |accepted| accepted.config.supervisor.log_level);
    let _guard = super::log::init(level_filter(level));
    match begin(options, init, accepted, held_listener) {
        Ok(code) => code,
        Err(why) => {
            tracing::error!("{why}");
            EXIT_UNUSABLE
        }
    }
}

/// The configuration to go on with.
struct Accepted {
    config: Config,
    /// What is wrong with it, if anything.
    problem: Option<String>,
    /// Whether it is our predecessor's rather than the file's.
    inherited: bool,
}

/// What our predecessor had accepted, else what the file says now. A file that cannot be used leaves the
/// jobs that are known with the settings nobody knows: they are watched and can be stopped.
fn accepted_config(options: &Options, held: Option<OwnedFd>) -> Option<Accepted> {
    if let Some(config) = held.and_then(|fd| super::accepted::recall(fd).ok()) {
        return Some(Accepted { config, problem: None, inherited: true });
    }
    let Some(path) = &options.config else {
        return Some(Accepted { config: config::empty(), problem: None, inherited: false });
    };
    Some(match config::load(path, &super::asks::loader_environment()) {
        Ok(config) => Accepted { config, problem: None, inherited: false },
        Err(errors) => Accepted {
            config: config::empty(),
            problem: Some(format!("the configuration cannot be used: {errors}")),
            inherited: false,
        },
    })
}

const fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn begin(
    options: &Options,
    init: InitLink,
    accepted: Option<Accepted>,
    listener: Option<OwnedFd>,
) -> Result<u8, String> {
    let state_dir = StateDir(options.state_dir.clone());
    let _lock = take_lock(&state_dir).map_err(|e| format!("the supervisor's lock: {e}"))?;
    let accepted = accepted.ok_or("no configuration")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|e| format!("the runtime: {e}"))?;
    let code = runtime.block_on(async {
        let listener = control_socket(options, &accepted.config, &init, listener)?;
        let (supervisor, sources, handle) = assemble(options, state_dir, init, accepted)?;
        let (end, ending) = watch::channel(false);

        let server = tokio::spawn(control::serve(listener, handle, ending));
        let code = supervisor.run(sources).await;
        let _ = end.send(true);
        let _ = server.await;
        Ok(code)
    });
    // A stop command may still run on a blocking thread; nobody waits for it.
    runtime.shutdown_background();
    code
}

/// There is one supervisor. One whose init is gone may still hold the lock: our init holds the lock of
/// the instance, so that one is a thing of the past. Killing a supervisor loses nothing.
fn take_lock(state_dir: &StateDir) -> io::Result<flock::Lock> {
    let (mut lock, mut holder) = match flock::open(&state_dir.supervisor_lock())? {
        flock::Tried::Held(lock) => return Ok(lock),
        flock::Tried::Busy(lock, holder) => (lock, holder),
    };
    for _ in 0..100 {
        if holder.pid == 0 {
            return Err(io::Error::other("it is held in another pid namespace"));
        }
        let process = pidfd::open(holder.pid);
        // Still held by the same number after the descriptor was opened: it is the holder's.
        (lock, holder) = match flock::retry(lock)? {
            flock::Tried::Held(lock) => return Ok(lock),
            flock::Tried::Busy(lock, now) => {
                if now == holder
                    && let Ok(process) = process
                {
                    let _ = pidfd::signal(&process, libc::SIGKILL);
                    let _ = pidfd::wait_ended(&process, 2000);
                }
                (lock, now)
            }
        };
    }
    Err(io::Error::other(format!("process {} keeps it", holder.pid)))
}

/// The socket that our predecessor listened on, with whoever waits there, or a new one.
fn control_socket(
    options: &Options,
    config: &Config,
    init: &InitLink,
    held: Option<OwnedFd>,
) -> Result<tokio::net::UnixListener, String> {
    let listener = match held {
        Some(fd) if options.socket.exists() => UnixListener::from(fd),
        _ => {
            let group = config.supervisor.socket_group.as_deref().map(super::launching::group_id);
            let group = group.transpose()?;
            control::bind(&options.socket, config.supervisor.socket_mode, group)
                .map_err(|e| format!("the control socket {}: {e}", options.socket.display()))?
        }
    };
    let failed = |e: io::Error| format!("the control socket: {e}");
    listener.set_nonblocking(true).map_err(failed)?;
    let copy: OwnedFd = listener.try_clone().map_err(failed)?.into();
    init.hold(HOLD_LISTENER, &copy);
    tokio::net::UnixListener::from_std(listener).map_err(failed)
}

/// Remembers everything that is in the event log, says what is wrong with it, and begins to write.
fn replay(state_dir: &StateDir, config: &Config) -> Result<(Journal, State, Report), String> {
    let failed = |e: &dyn std::error::Error| format!("the event log: {e}");
    let mut state = State::new();
    state.keep_runs = keep_runs(config);
    let recovered = journal::recover(&state_dir.0, state, &mut |_, _| {}).map_err(|e| failed(&e))?;
    state_dir.upgrade_format().map_err(|e| failed(&e))?;
    let generation = Generation(recovered.state.instance.generation.0 + 1);
    let (journal, state, report) = recovered.open(now(), generation);
    for damage in &report.damage {
        let (file, copy) = (damage.file.display(), damage.copy.as_deref().unwrap_or(Path::new("nowhere")));
        let (offset, copy, why) = (damage.offset, copy.display(), &damage.why);
        match damage.kind {
            Kind::Torn => tracing::info!(%file, offset, %copy, "the event log has an unfinished end: {why}"),
            _ => tracing::warn!(%file, offset, %copy, "the event log is damaged here: {why}"),
        }
    }
    for (first, last) in &report.lost {
        tracing::error!(first, last, "these entries of the event log are missing");
    }
    if let Some(why) = journal.poisoned() {
        tracing::error!("the event log cannot be written: {why}");
    }
    Ok((journal, state, report))
}

fn assemble(
    options: &Options,
    state_dir: StateDir,
    init: InitLink,
    accepted: Accepted,
) -> Result<(Supervisor, Sources, Handle), String> {
    let epoch = Epoch { boot_id: identity::boot_id(), init: identity::init_token() };
    let (journal, mut state, report) = replay(&state_dir, &accepted.config)?;
    let (seq, generation) = (journal.last_seq(), Generation(state.instance.generation.0 + 1));
    let log = EventLog::start(journal).map_err(|e| format!("the event log: {e}"))?;
    let Accepted { config, problem, inherited } = accepted;
    if inherited {
        let specs: Vec<_> = config.jobs.iter().cloned().map(Arc::new).collect();
        state.set_specs(&specs);
    } else if problem.is_none()
        && let Ok(fd) = super::accepted::store(&config)
    {
        init.hold(HOLD_CONFIG, &fd);
    }
    let mut degraded = BTreeMap::new();
    if let Some(problem) = problem {
        tracing::error!("{problem}");
        degraded.insert("config", problem);
    }
    let (tell_stop_command, stop_commands) = mpsc::channel(64);
    let (send_asks, asks) = mpsc::channel(ASKS_MAX);
    let keeper_socket = RuntimeDir(options.runtime_dir.clone()).keeper_socket();
    let from_init = init.listen().map_err(|e| format!("init's socket: {e}"))?;
    let keeper = super::keeper_link::connect(keeper_socket, generation);
    let (view, watch_view) = watch::channel(Arc::new(Supervisor::first_view(unknown_instance())));
    let dirty: BTreeSet<_> = state.jobs().map(|(name, _)| name.clone()).collect();
    let mut supervisor = Supervisor {
        state,
        log,
        read_only: None,
        generation,
        // Nobody knows what was running: everything is watched and nothing is started.
        recovery: options.recovery || report.unreadable,
        born_us: options.born_us,
        epoch,
        init,
        keeper: None,
        keeper_pid: None,
        pending: BTreeMap::new(),
        next_request: 1,
        config,
        config_path: options.config.clone(),
        config_changed: false,
        state_dir,
        socket: options.socket.clone(),
        since: now(),
        view,
        dirty,
        degraded,
        lost: report.lost,
        stalled: BTreeMap::new(),
        refused: Vec::new(),
        known_runs: BTreeMap::new(),
        tell_stop_command,
        ready_said: false,
        seq,
        exit: None,
    };
    if inherited {
        supervisor.look_at_config();
    }
    supervisor.publish();
    let handle = Handle { asks: send_asks, view: watch_view, state_dir: options.state_dir.clone() };
    Ok((supervisor, Sources { keeper, init: from_init, asks, stop_commands }, handle))
}

/// Ended runs to remember for each job.
pub(super) fn keep_runs(config: &Config) -> usize {
    usize::try_from(config.supervisor.keep_runs).unwrap_or(usize::MAX)
}

/// What a reader would see before anything is known; replaced before the socket is served.
fn unknown_instance() -> crate::wire::control::Instance {
    use crate::wire::control::{Instance, InstanceState, Role, Roles};
    Instance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: InstanceState::Recovering,
        roles: Roles { init: Role { pid: None }, keeper: Role { pid: None }, supervisor: Role { pid: None } },
        since: String::new(),
        generation: 0,
        state_dir: String::new(),
        config: None,
        config_changed: false,
        degraded: Vec::new(),
    }
}

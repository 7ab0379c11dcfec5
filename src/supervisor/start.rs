//! How a supervisor begins: the phases before the loop (see [`early`]), and then the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::level_filters::LevelFilter;

use super::accepted::Before;
use super::alerting::Alerting;
use super::early::{self, Early, Given};
use super::event_log::EventLog;
use super::handle::{ASKS_MAX, Ask, Handle, SKIPS_MAX, Skip, View};
use super::hooks::Hooks;
use super::host::Host;
use super::init_link::{FromInit, InitLink};
use super::keeper_link::News;
use super::main_loop::{Sources, Supervisor, now};
use super::memory::Memory;
use super::patterns::Patterns;
use super::scrub::Scrubbing;
use super::startup::Startup;
use super::strays::Strays;
use super::vigils::Vigils;
use crate::config::{self, Config, LogLevel};
use crate::control;
use crate::core::identity::Epoch;
use crate::core::ids::RunId;
use crate::core::pace::Pace;
use crate::core::saga::Force;
use crate::core::state::State;
use crate::state_dir::layout::{RuntimeDir, StateDir};
use crate::sys::identity;
use crate::wire::control::{Instance, InstanceState, Role, Roles};
use crate::wire::init::HOLD_CONFIG;

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
    /// Supervisor deaths within a minute that lead to recovery mode; 0: nothing does.
    pub recovery_after: usize,
    /// When the instance began, boot clock in microseconds.
    pub born_us: u64,
}

/// Exit code when the supervisor cannot do its work at all.
const EXIT_UNUSABLE: u8 = 74;

/// Runs until the instance is over. The exit code.
#[must_use]
pub fn run(options: &Options) -> u8 {
    crate::sys::memory::share_one_heap();
    let (init, held) = super::init_link::inherit();
    let [held_config, held_listener] = held;
    crate::sys::exec::close_on_exec_from(3);
    crate::sys::exec::raise_descriptor_limit();
    let accepted = accepted_config(options, held_config);
    let level = accepted.config.supervisor.log_level;
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
    /// That before a reload which was under way.
    before: Option<Before>,
}

/// What our predecessor had accepted, else what the file says now. A file that cannot be used leaves the
/// jobs that are known with the settings nobody knows: they are watched and can be stopped.
fn accepted_config(options: &Options, held: Option<OwnedFd>) -> Accepted {
    if let Some((config, before)) = held.and_then(|fd| super::accepted::recall(fd).ok()) {
        return Accepted { config, problem: None, inherited: true, before };
    }
    let Some(path) = &options.config else {
        return Accepted { config: config::empty(), problem: None, inherited: false, before: None };
    };
    match config::load(path, &super::asks::loader_environment()) {
        Ok(config) => Accepted { config, problem: None, inherited: false, before: None },
        Err(errors) => Accepted {
            config: config::empty(),
            problem: Some(format!("the configuration cannot be used: {errors}")),
            inherited: false,
            before: None,
        },
    }
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
    accepted: Accepted,
    listener: Option<OwnedFd>,
) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|e| format!("the runtime: {e}"))?;
    let code = runtime.block_on(supervise(options, init, accepted, listener));
    // A stop command may still run on a blocking thread; nobody waits for it.
    runtime.shutdown_background();
    code
}

async fn supervise(
    options: &Options,
    init: InitLink,
    accepted: Accepted,
    held: Option<OwnedFd>,
) -> Result<u8, String> {
    let state_dir = StateDir(options.state_dir.clone());
    let (mut startup, watch_start) =
        Startup::new(state_dir, options.recovery).map_err(|e| format!("the phases of the start: {e}"))?;
    let (send_asks, asks) = mpsc::channel(ASKS_MAX);
    let (send_skips, mut skips) = mpsc::channel(SKIPS_MAX);
    let (view, watch_view) = watch::channel(Arc::new(Supervisor::first_view(first_instance(options, &init))));
    let handle = Handle {
        asks: send_asks,
        skips: send_skips,
        view: watch_view,
        start: watch_start,
        state_dir: options.state_dir.clone(),
    };
    let (end, ending) = watch::channel(false);
    let mut server = None;
    let serve = |listener| server = Some(tokio::spawn(control::serve(listener, handle, ending)));
    let Accepted { config, problem, .. } = &accepted;
    let given = Given { options, config, problem: problem.as_deref(), init: &init, held };
    let Early { lock: _lock, memory } = match early::run(&mut startup, given, &mut skips, serve).await {
        Ok(early) => early,
        Err(no) => {
            let Some(code) = no.end_with else {
                startup.give_up();
                return Err(no.why);
            };
            // That is no aborted start, and nothing that another try would change.
            tracing::error!("{}", no.why);
            startup.refuse();
            init.end_instance(true, code);
            return Ok(code);
        }
    };
    let channels = Channels { view, asks, skips };
    let (supervisor, sources) = assemble(options, init, accepted, (memory, startup), channels)?;
    let code = supervisor.run(sources).await;
    let _ = end.send(true);
    if let Some(server) = server {
        let _ = server.await;
    }
    Ok(code)
}

/// The ways to and from the control socket.
struct Channels {
    view: watch::Sender<Arc<View>>,
    asks: mpsc::Receiver<Ask>,
    skips: mpsc::Receiver<Skip>,
}

fn assemble(
    options: &Options,
    init: InitLink,
    accepted: Accepted,
    (memory, mut startup): (Memory, Startup),
    channels: Channels,
) -> Result<(Supervisor, Sources), String> {
    let epoch = Epoch { boot_id: identity::boot_id(), init: identity::init_token() };
    let Memory { journal, mut state, generation, lost, .. } = memory;
    startup.succeeds(state.stays_in_recovery(&epoch, options.born_us));
    let seq = journal.last_seq();
    startup.generation(generation.0);
    let log = EventLog::start(journal).map_err(|e| format!("the event log: {e}"))?;
    let Accepted { config, problem, inherited, before } = choose(accepted, &state);
    if let Some(before) = &before {
        state.set_before(before.config.jobs.clone());
    }
    let degraded = put_in_force(&init, &mut state, (&config, before.as_ref()), problem, inherited);
    let runtime = RuntimeDir(options.runtime_dir.clone());
    let keeper = super::keeper_link::connect(runtime.keeper_socket(), generation);
    let from = (keeper, init.listen().map_err(|e| format!("init's socket: {e}"))?);
    let (sidelines, sources) = sidelines(runtime.clone(), from, (channels.asks, channels.skips));
    let Sidelines { vigils, hooks, host, scrubbing, patterns, tell_stop_command, tell_strays } = sidelines;
    let dirty: BTreeSet<_> = state.awake().map(|(name, _)| name.clone()).collect();
    let known_runs = super::prune::runs_of_the_awake(&state);
    let mut supervisor = Supervisor {
        state,
        log,
        read_only: None,
        generation,
        recovery: startup.recovery_mode().is_some(),
        startup,
        settling: false,
        born_us: options.born_us,
        epoch,
        init,
        keeper: None,
        keeper_pid: None,
        keeper_tells: false,
        pending: BTreeMap::new(),
        next_request: 1,
        config,
        before,
        config_path: options.config.clone(),
        config_changed: false,
        state_dir: StateDir(options.state_dir.clone()),
        slots_changed: false,
        names: BTreeMap::new(),
        runtime,
        socket: options.socket.clone(),
        since: now(),
        view: channels.view,
        dirty,
        degraded,
        lost,
        needs_a_look: BTreeMap::new(),
        stalled: BTreeMap::new(),
        refused: Vec::new(),
        newest: BTreeMap::new(),
        recoveries: Vec::new(),
        scrubbing,
        vigils,
        host,
        alerting: Alerting::new(),
        patterns,
        pace: Pace::new(0),
        hooks,
        known_runs,
        tell_stop_command,
        tell_strays,
        ready_said: false,
        crowded: false,
        seq,
        exit: None,
    };
    show_first(&mut supervisor, inherited);
    Ok((supervisor, sources))
}

/// What is known so far, for readers.
fn show_first(supervisor: &mut Supervisor, inherited: bool) {
    if inherited {
        supervisor.look_at_config();
    }
    supervisor.show_rest();
    supervisor.publish();
}

/// What is done beside the loop.
struct Sidelines {
    vigils: Vigils,
    hooks: Hooks,
    host: Host,
    scrubbing: Scrubbing,
    patterns: Patterns,
    tell_stop_command: mpsc::Sender<(RunId, u32, bool)>,
    tell_strays: mpsc::Sender<Result<Strays, String>>,
}

/// All that is done beside the loop, and where the loop hears of it.
fn sidelines(
    runtime: RuntimeDir,
    (keeper, init): (mpsc::Receiver<News>, mpsc::Receiver<FromInit>),
    (asks, skips): (mpsc::Receiver<Ask>, mpsc::Receiver<Skip>),
) -> (Sidelines, Sources) {
    let (vigils, seen) = Vigils::new();
    let (hooks, hooks_ended) = Hooks::new();
    let (host, host_news) = Host::new(runtime);
    let (scrubbing, scrub) = Scrubbing::new();
    let (patterns, learned) = Patterns::new();
    let (tell_stop_command, stop_commands) = mpsc::channel(64);
    let (tell_strays, strays) = mpsc::channel(1);
    let sidelines = Sidelines { vigils, hooks, host, scrubbing, patterns, tell_stop_command, tell_strays };
    let sources = Sources {
        keeper,
        init,
        asks,
        stop_commands,
        hooks: hooks_ended,
        skips,
        strays,
        scrub,
        seen,
        learned,
        host: host_news,
    };
    (sidelines, sources)
}

/// Of the two configurations around a reload that was under way, the event log says which is in force.
fn choose(accepted: Accepted, state: &State) -> Accepted {
    let Some(before) = accepted.before else { return accepted };
    match state.sagas.in_force(before.saga) {
        Force::Open => Accepted { before: Some(before), ..accepted },
        Force::New => Accepted { before: None, ..accepted },
        Force::Old => Accepted { config: before.config, before: None, ..accepted },
    }
}

/// The configuration to go on with is kept for our successor, and what is wrong with it is said.
fn put_in_force(
    init: &InitLink,
    state: &mut State,
    (config, before): (&Config, Option<&Before>),
    problem: Option<String>,
    inherited: bool,
) -> BTreeMap<&'static str, String> {
    if inherited {
        let specs: Vec<_> = config.jobs.iter().cloned().map(Arc::new).collect();
        state.set_specs(&specs);
    }
    if problem.is_none()
        && let Ok(fd) = super::accepted::store(config, before)
    {
        init.hold(HOLD_CONFIG, &fd);
    }
    let mut degraded = BTreeMap::new();
    if let Some(problem) = problem {
        tracing::error!("{problem}");
        degraded.insert("configuration", problem);
    }
    degraded
}

/// Ended runs to remember for each job.
pub(super) fn keep_runs(config: &Config) -> usize {
    usize::try_from(config.supervisor.keep_runs).unwrap_or(usize::MAX)
}

/// What a reader sees before anything is known.
fn first_instance(options: &Options, init: &InitLink) -> Instance {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    Instance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: InstanceState::Recovering,
        roles: Roles {
            init: Role { pid: init.pid },
            keeper: Role { pid: None },
            supervisor: Role { pid: Some(own) },
        },
        since: now().rfc3339(),
        generation: 0,
        state_dir: options.state_dir.display().to_string(),
        config: options.config.as_ref().map(|path| path.display().to_string()),
        config_changed: false,
        degraded: Vec::new(),
        degraded_resources: Vec::new(),
        recovery_mode: None,
    }
}

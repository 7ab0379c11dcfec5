//! The phases of a start before the loop: until the control socket answers and the event log is read. They
//! run as soon as what they depend on is over, at the same time where they can, and are tried again.

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::handle::{AskError, Skip};
use super::init_link::InitLink;
use super::memory::{Memory, NoMemory, Reader};
use super::start::Options;
use super::startup::{Earlier, Startup};
use crate::config::Config;
use crate::control;
use crate::state_dir::layout::StateDir;
use crate::sys::{clock, flock, pidfd};
use crate::wire::init::HOLD_LISTENER;

/// The phases that run here.
const EARLY: [&str; 5] = ["lock", "configuration", "marker", "socket", "journal"];

/// What they work with.
pub(super) struct Given<'a> {
    pub(super) options: &'a Options,
    pub(super) config: &'a Config,
    /// What is wrong with it.
    pub(super) problem: Option<&'a str>,
    pub(super) init: &'a InitLink,
    /// The socket that our predecessor listened on.
    pub(super) held: Option<OwnedFd>,
}

/// What they make.
pub(super) struct Early {
    /// Held for life.
    pub(super) lock: flock::Lock,
    pub(super) memory: Memory,
}

enum Made {
    Lock(flock::Lock),
    Earlier(Earlier),
    Memory(Box<Memory>),
}

struct Failed {
    why: String,
    again: bool,
    end_with: Option<u8>,
}

/// Why there is no start.
pub(super) struct NoStart {
    pub(super) why: String,
    /// The instance is to end, with this exit code, and to leave everything as it is.
    pub(super) end_with: Option<u8>,
}

impl NoStart {
    const fn failed(why: String) -> Self {
        Self { why, end_with: None }
    }
}

type Work = JoinSet<(&'static str, Result<Made, Failed>)>;

/// Runs them. `serve` gets the control socket as soon as it is there.
pub(super) async fn run(
    startup: &mut Startup,
    mut given: Given<'_>,
    skips: &mut mpsc::Receiver<Skip>,
    serve: impl FnOnce(UnixListener),
) -> Result<Early, NoStart> {
    let mut serve = Some(serve);
    let mut work = Work::new();
    let (mut lock, mut memory, mut end_with) = (None, None, None);
    loop {
        for name in startup.due().into_iter().filter(|name| EARLY.contains(name)) {
            startup.begin(name);
            match name {
                "configuration" => match given.problem {
                    Some(problem) => startup.fail(name, problem, false),
                    None => startup.done(name),
                },
                "socket" => match control_socket(&mut given) {
                    Ok(listener) => {
                        if let Some(serve) = serve.take() {
                            serve(listener);
                        }
                        startup.done(name);
                    }
                    Err(why) => startup.fail(name, &why, true),
                },
                _ => send_off(&mut work, name, &given),
            }
        }
        if let Some((name, why)) = startup.progress().failed() {
            return Err(NoStart { why: format!("{name}: {why}"), end_with });
        }
        if EARLY.iter().all(|name| !startup.is_pending(name)) {
            break;
        }
        // What has just been done may have made others due.
        if startup.due().iter().any(|name| EARLY.contains(name)) {
            continue;
        }
        let next_try = startup.progress().next_try().map(|at| at.boot_us);
        tokio::select! {
            Some(made) = work.join_next() => match made {
                Ok((name, Ok(Made::Lock(held)))) => {
                    lock = Some(held);
                    startup.done(name);
                }
                Ok((name, Ok(Made::Earlier(earlier)))) => {
                    match startup.mark(earlier, given.options.recovery_after > 0) {
                        Ok(()) => startup.done(name),
                        Err(error) => startup.fail(name, &error.to_string(), false),
                    }
                }
                Ok((name, Ok(Made::Memory(read)))) => {
                    read.tell(startup);
                    memory = Some(read);
                    startup.done(name);
                }
                Ok((name, Err(failed))) => {
                    end_with = end_with.or(failed.end_with);
                    startup.fail(name, &failed.why, failed.again);
                }
                Err(error) => return Err(NoStart::failed(format!("a phase ended on its own: {error}"))),
            },
            () = pause(next_try) => {}
            Some(skip) = skips.recv() => skip_one(startup, skip),
        }
    }
    let (Some(lock), Some(memory)) = (lock, memory) else {
        return Err(NoStart::failed("a phase is missing".to_owned()));
    };
    Ok(Early { lock, memory: *memory })
}

/// Waits until a moment of the boot clock, or for ever.
async fn pause(until_us: Option<u64>) {
    match until_us.map(|until| until.saturating_sub(clock::boot_us())) {
        Some(us) => tokio::time::sleep(std::time::Duration::from_micros(us)).await,
        None => std::future::pending().await,
    }
}

/// Leaves a phase out, if it may be.
pub(super) fn skip_one(startup: &mut Startup, skip: Skip) {
    let Skip { phase, peer, reply } = skip;
    let result = startup.skip(&phase, &format!("skipped by user {}", peer.uid));
    let _ = reply.send(result.map_err(|error| match error {
        crate::core::phases::CannotSkip::Unknown(_) => AskError::NotFound(error.to_string()),
        _ => AskError::Conflict(error.to_string()),
    }));
}

/// Whatever may take its time is done on a thread of its own.
fn send_off(work: &mut Work, name: &'static str, given: &Given<'_>) {
    let state_dir = StateDir(given.options.state_dir.clone());
    let reader = Reader::new(given.options, given.config, given.problem.is_some());
    work.spawn_blocking(move || {
        let failed = |why: String| Failed { why, again: true, end_with: None };
        let made = match name {
            "lock" => take_lock(&state_dir).map(Made::Lock).map_err(|e| failed(e.to_string())),
            "marker" => Startup::look_back(&state_dir).map(Made::Earlier).map_err(|e| failed(e.to_string())),
            _ => reader.read().map(|memory| Made::Memory(Box::new(memory))).map_err(|no| match no {
                NoMemory::Failed { why, again } => Failed { why, again, end_with: None },
                NoMemory::End { why, code } => Failed { why, again: false, end_with: Some(code) },
            }),
        };
        (name, made)
    });
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
fn control_socket(given: &mut Given<'_>) -> Result<UnixListener, String> {
    let (options, settings) = (given.options, &given.config.supervisor);
    let listener = match given.held.take() {
        Some(fd) if options.socket.exists() => std::os::unix::net::UnixListener::from(fd),
        _ => {
            let group = settings.socket_group.as_deref().map(super::launching::group_id);
            let group = group.transpose()?;
            control::bind(&options.socket, settings.socket_mode, group)
                .map_err(|e| format!("the control socket {}: {e}", options.socket.display()))?
        }
    };
    let failed = |e: io::Error| format!("the control socket: {e}");
    listener.set_nonblocking(true).map_err(failed)?;
    let copy: OwnedFd = listener.try_clone().map_err(failed)?.into();
    given.init.hold(HOLD_LISTENER, &copy);
    UnixListener::from_std(listener).map_err(failed)
}

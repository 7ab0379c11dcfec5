//! Starting a run: its directories, its FIFOs, the child, its sentinel. All of this happens in one of the
//! threads of [`super::launcher`], and touches nothing that the keeper's loop owns.
//!
//! The directories are made first, and only if they are not there: that is how a run id that was ever seen
//! is refused, also by a keeper that has seen nothing yet. Whatever fails before the child exists leaves
//! an exit record that says so, or at least an answer.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};

use super::end::captures;
use super::init_link::InitLink;
use super::main_loop::now;
use crate::core::identity::{Epoch, Identity};
use crate::core::ids::{JobName, RunId};
use crate::core::spec::{OutputMode, Rlimit, Stdin};
use crate::core::time::Stamp;
use crate::state_dir::exit::ExitSlot;
use crate::state_dir::layout::{RunRuntime, RuntimeDir, StateDir};
use crate::state_dir::records::{EnvNote, RunRecord, RunUser, Sentinel};
use crate::sys::datagram::{self, Address};
use crate::sys::spawn::{self, Plan, Register, Spawned, Spawner, Stdio};
use crate::sys::{cgroup, identity, pidfd, proc};
use crate::wire::init::{HELD, PID_AT};
use crate::wire::keeper::{GroupLimits, Launch, Listen};

/// Wanted capacity of an output pipe in bytes; what an unprivileged user's quota gives is enough.
const PIPE_BYTES: usize = 256 * 1024;

/// Where programs without a path are looked for when the job has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where `sd_notify(3)` finds the socket.
const NOTIFY_VARIABLE: &[u8] = b"NOTIFY_SOCKET=";

/// Why a run was not launched.
#[derive(Debug)]
pub(super) enum NotLaunched {
    /// The run id was seen before.
    Seen,
    /// Its directories and files could not be made; no record of it exists.
    Files { what: String, errno: i32 },
}

/// The keeper's ends of a run's FIFOs, and the socket that it tells things to.
#[derive(Debug, Default)]
pub(super) struct Fifos {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) notify: Option<OwnedFd>,
    pub(super) ready: Option<OwnedFd>,
}

fn step<T>(what: &str, result: io::Result<T>) -> Result<T, NotLaunched> {
    result.map_err(|error| NotLaunched::Files {
        what: what.to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EINVAL),
    })
}

/// What every start needs to know, the same for all of them.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) state: StateDir,
    pub(super) runtime: RuntimeDir,
    pub(super) epoch: Epoch,
    /// Init's process id, also after its death.
    pub(super) init: i32,
    /// Where each run gets a control group, if a tree is delegated to us.
    pub(super) cgroups: Option<PathBuf>,
    /// The limit on open descriptors before any of us raised it; runs get it back.
    pub(super) descriptor_limit: Option<(u64, u64)>,
}

/// A run whose child was made, as far as that got.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) at: Stamp,
    pub(super) slot: ExitSlot,
    pub(super) fifos: Fifos,
    pub(super) child: Spawned,
}

impl Site {
    /// Starts a run. `init` is the socket to register by, while init lives.
    pub(super) fn launch(
        &self,
        spawner: &Spawner,
        launch: &Launch,
        init: Option<BorrowedFd<'_>>,
    ) -> Result<Started, NotLaunched> {
        self.make_directories(launch.run)?;
        self.start(spawner, launch, init).inspect_err(|_| {
            // Nothing runs. Whoever might still claim the start finds no place to do so.
            let _ = std::fs::remove_dir_all(&self.runtime.run(launch.run).0);
        })
    }

    /// The two directories of a run; neither may be there. The runtime directory comes first: a run
    /// directory without an exit record then always has a runtime directory beside it, in which the next
    /// keeper finds out (or decides) whether the run was started.
    fn make_directories(&self, run: RunId) -> Result<(), NotLaunched> {
        let make = |what: &str, path: &Path| match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(NotLaunched::Seen),
            other => step(what, other),
        };
        let runtime = self.runtime.run(run).0;
        make("making the runtime directory", &runtime)?;
        make("making the run directory", &self.state.run(run).0).inspect_err(|_| {
            let _ = std::fs::remove_dir(&runtime);
        })
    }

    /// Everything up to the process. An error means that there is none.
    fn start(
        &self,
        spawner: &Spawner,
        launch: &Launch,
        init: Option<BorrowedFd<'_>>,
    ) -> Result<Started, NotLaunched> {
        let at = now();
        let dir = self.state.run(launch.run);
        step("writing run.json", dir.write_run(&run_record(launch, at)))?;
        let slot = step("reserving exit.json", ExitSlot::prepare(&dir))?;
        if let Some(elsewhere) = &launch.output.dir {
            let target = Path::new(elsewhere).join(launch.job.as_str()).join(launch.run.to_string());
            step("making the output directory", dir.link_output(&target))?;
        }
        let fifos = step("making the FIFOs", self.make_fifos(launch))?;
        let plan = step("reading the arguments", self.plan(launch, &fifos, init))?;
        let mut child = step("making the process", spawner.spawn(&plan))?;
        child.pidfd = child.pidfd.or_else(|| pidfd::open(child.pid).ok());
        Ok(Started { at, slot, fifos, child })
    }

    /// Makes the files about a running run. None of them decides anything: the claim and init's table do.
    pub(super) fn settle(&self, launch: &Launch, started: &Started) -> Identity {
        let identity = identify(&self.epoch, started.child.pid, started.child.pidfd.as_ref());
        if started.child.failed.is_some() {
            return identity;
        }
        paperwork(&self.state, launch.run, &launch.job, &identity, started.at);
        identity
    }

    fn make_fifos(&self, launch: &Launch) -> io::Result<Fifos> {
        let runtime = self.runtime.run(launch.run);
        let owner = launch.user.as_ref().map(|user| (user.uid, user.gid));
        let mut fifos = Fifos::default();
        if captures(launch.output.mode) {
            for path in [runtime.stdout(), runtime.stderr()] {
                make_fifo(&path, owner)?;
            }
            fifos.stdout = Some(open_output(&runtime.stdout())?);
            fifos.stderr = Some(open_output(&runtime.stderr())?);
        }
        if launch.stdin == Stdin::Keep {
            make_fifo(&runtime.stdin(), owner)?;
            fifos.stdin = Some(open_stdin(&runtime.stdin())?);
        }
        if launch.listen.notify {
            fifos.notify = Some(datagram::bind(&notify_address(&runtime, launch.run, owner))?);
        }
        if let Some(number) = launch.listen.ready_fd {
            if !(Listen::READY_FD_MIN..=Listen::READY_FD_MAX).contains(&number) {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            make_fifo(&runtime.ready(), owner)?;
            fifos.ready = Some(open_fifo(&runtime.ready())?);
        }
        Ok(fifos)
    }

    fn plan<'a>(&self, launch: &Launch, fifos: &Fifos, init: Option<BorrowedFd<'a>>) -> io::Result<Plan<'a>> {
        let runtime = self.runtime.run(launch.run);
        let argv = strings(launch.argv.iter().map(String::as_bytes))?;
        let owner = launch.user.as_ref().map(|user| (user.uid, user.gid));
        let address = launch.listen.notify.then(|| notify_address(&runtime, launch.run, owner));
        let told = address.map(|address| [NOTIFY_VARIABLE, &address.to_bytes()].concat());
        let given = launch.env.iter().map(Vec::as_slice);
        // There is one way to tell us things, or none that is not another's.
        let env = strings(
            given.filter(|pair| told.is_none() || !pair.starts_with(NOTIFY_VARIABLE)).chain(told.as_deref()),
        )?;
        let ready =
            launch.listen.ready_fd.map(|number| Ok::<_, io::Error>((c_path(&runtime.ready())?, number)));
        let path = launch.env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let program = argv.first().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let boot_id = if self.epoch.boot_id.is_empty() { "-" } else { &self.epoch.boot_id };
        Ok(Plan {
            programs: spawn::programs(program, path),
            argv,
            env,
            cwd: CString::new(launch.cwd.as_str())?,
            stdio: stdio(launch, &runtime)?,
            user: launch.user.as_ref().map(|user| (user.uid, user.gid, user.groups.clone())),
            extra: ready.transpose()?,
            umask: launch.umask,
            rlimits: self.rlimits(&launch.rlimits)?,
            nice: launch.nice,
            oom_score_adj: launch.oom_score_adj.map(|score| CString::new(score.to_string())).transpose()?,
            cgroup: self.make_group(launch)?,
            register: init.map(|socket| registration(launch.run, fifos, socket)),
            init: self.init,
            claim: spawn::Claim {
                temporary: c_path(&runtime.0.join("claim"))?,
                decision: c_path(&runtime.decision())?,
                prefix: format!("exec {boot_id} {} ", self.epoch.init).into_bytes(),
            },
        })
    }

    /// The run's control group; the path of its member list.
    fn make_group(&self, launch: &Launch) -> io::Result<Option<CString>> {
        let Some(group) = self.cgroups.as_ref().map(|base| base.join(launch.run.to_string())) else {
            return Ok(None);
        };
        std::fs::create_dir(&group)?;
        if !launch.limits.is_none() {
            let GroupLimits { memory, pids, cpu_percent } = launch.limits;
            // What the kernel will not hold it to, the supervisor sees when it looks.
            let _ = cgroup::limit(&group, cgroup::Limits { memory, pids, cpu_percent });
        }
        c_path(&group.join("cgroup.procs")).map(Some)
    }

    /// The job's limits; the limit on descriptors that we raised for ourselves goes back to what it was.
    fn rlimits(&self, wanted: &[(String, Rlimit)]) -> io::Result<Vec<(u32, u64, u64)>> {
        let mut limits = Vec::new();
        for (name, limit) in wanted {
            let resource = resource(name).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            let infinite = libc::RLIM_INFINITY;
            limits.push((resource, limit.soft.unwrap_or(infinite), limit.hard.unwrap_or(infinite)));
        }
        if let Some((soft, hard)) = self.descriptor_limit
            && !wanted.iter().any(|(name, _)| name == "nofile")
        {
            limits.push((libc::RLIMIT_NOFILE, soft, hard));
        }
        Ok(limits)
    }
}

/// Sentinel, pid file, and the link to the latest run of a job.
pub(super) fn paperwork(state: &StateDir, run: RunId, job: &JobName, identity: &Identity, started: Stamp) {
    let sentinel = Sentinel {
        v: crate::state_dir::records::VERSION,
        run,
        job: job.clone(),
        identity: identity.clone(),
        started,
        keeper_pid: rustix::process::getpid().as_raw_nonzero().get(),
    };
    let _ = state.run(run).write_sentinel(&sentinel);
    let _ = state.set_current(job, run);
}

/// How the child tells init of itself, and what it hands over.
fn registration<'a>(run: RunId, fifos: &Fifos, socket: BorrowedFd<'a>) -> Register<'a> {
    let Fifos { stdout, stderr, stdin, notify, ready } = fifos;
    let held = [stdout, stderr, stdin, notify, ready].map(Option::as_ref);
    let message = InitLink::registration(run, 0, true, held.map(|fd| fd.is_some()));
    let mut fds = [-1; HELD];
    for (place, fd) in fds.iter_mut().zip(held.into_iter().flatten()) {
        *place = fd.as_raw_fd();
    }
    Register { socket, message: message.encode(), pid_at: PID_AT, fds }
}

/// The identity of a process that is pinned: held by a descriptor, or nobody's to reap but init's. Of one
/// that was reaped nothing is read that may be another's by now.
pub(super) fn identify(epoch: &Epoch, pid: i32, pidfd: Option<&OwnedFd>) -> Identity {
    let reaped =
        |fd: &OwnedFd| pidfd::signal(fd, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH));
    let stat = proc::stat(pid).filter(|_| !pidfd.is_some_and(reaped));
    Identity {
        pid,
        pidfs: pidfd.map_or(0, identity::pidfs_inode),
        start_ticks: stat.map_or(0, |stat| stat.start_ticks),
        epoch: epoch.clone(),
    }
}

fn strings<'a>(list: impl Iterator<Item = &'a [u8]>) -> io::Result<Vec<CString>> {
    list.map(|bytes| CString::new(bytes).map_err(Into::into)).collect()
}

pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// How the child opens its three descriptors. Output is opened for reading and writing: the job itself
/// keeps a reader, so it never gets `SIGPIPE`, and its bytes wait when nobody pumps.
fn stdio(launch: &Launch, runtime: &RunRuntime) -> io::Result<[Stdio; 3]> {
    let null = |flags| Stdio::Open(c"/dev/null".to_owned(), flags);
    let stdin = match &launch.stdin {
        Stdin::Null => null(libc::O_RDONLY),
        Stdin::Keep => Stdio::Open(c_path(&runtime.stdin())?, libc::O_RDONLY),
        Stdin::File(path) => Stdio::Open(CString::new(path.as_str())?, stdin_flags(path)),
    };
    if launch.output.mode == OutputMode::None {
        return Ok([stdin, null(libc::O_WRONLY), Stdio::LikeStdout]);
    }
    let stdout = Stdio::Open(c_path(&runtime.stdout())?, libc::O_RDWR);
    let stderr = Stdio::Open(c_path(&runtime.stderr())?, libc::O_RDWR);
    Ok([stdin, stdout, stderr])
}

/// How a file is opened to be read. A FIFO as a shell does with `<>`: to open it for reading alone would
/// wait for a writer, and with it its starter.
fn stdin_flags(path: &str) -> i32 {
    use std::os::unix::fs::FileTypeExt;
    let is_fifo = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    if is_fifo { libc::O_RDWR } else { libc::O_RDONLY }
}

/// Makes a FIFO that belongs to the job's user, so that it may open `/dev/stdout` again.
fn make_fifo(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from(0o600), 0)?;
    if let Some((uid, gid)) = owner {
        rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// Our end of a FIFO: for reading only, so that it tells when nobody holds the other end.
pub(super) fn open_fifo(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

/// The name of the socket that a run tells things to. The directory is ours alone: a job of another user does
/// not get through to a file in it. Whatever the name, every sender is looked at.
pub(super) fn notify_address(runtime: &RunRuntime, run: RunId, owner: Option<(u32, u32)>) -> Address {
    let name = format!("outlive/{run}");
    if owner.is_some_and(|(uid, _)| uid != rustix::process::geteuid().as_raw()) {
        return Address::Abstract(name);
    }
    Address::path_or(runtime.notify(), name)
}

/// Our end of an output FIFO.
pub(super) fn open_output(path: &Path) -> io::Result<OwnedFd> {
    let fd = open_fifo(path)?;
    let _ = rustix::pipe::fcntl_setpipe_size(fd.as_fd(), PIPE_BYTES);
    Ok(fd)
}

/// Our end of a stdin FIFO. For reading too, because there is no reader yet; nobody but us writes, so the
/// job reads end-of-file when this and init's copy are closed.
pub(super) fn open_stdin(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

fn run_record(launch: &Launch, requested_at: Stamp) -> RunRecord {
    RunRecord {
        v: crate::state_dir::records::VERSION,
        run: launch.run,
        job: launch.job.clone(),
        attempt: launch.attempt,
        argv: launch.argv.clone(),
        env: launch.env.iter().map(|pair| EnvNote::from_pair(pair)).collect(),
        cwd: launch.cwd.clone(),
        user: launch.user.as_ref().map(|user| RunUser {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
        }),
        umask: launch.umask,
        rlimits: launch.rlimits.clone(),
        nice: launch.nice,
        oom_score_adj: launch.oom_score_adj,
        stdin: launch.stdin.clone(),
        output: launch.output.clone(),
        on_supervisor_death: launch.on_supervisor_death,
        requested_at,
        notify: launch.listen.notify,
        ready_fd: launch.listen.ready_fd,
    }
}

/// The number of a limit by its name in `setrlimit(2)`, lower case, without `RLIMIT_`.
fn resource(name: &str) -> Option<u32> {
    Some(match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

//! Starting a run: its directories, its FIFOs, the child, its sentinel.
//!
//! The directories are made first, and only if they are not there: that is how a run id that was ever seen
//! is refused, also by a keeper that has seen nothing yet. Whatever fails before the child exists leaves
//! an exit record that says so, or at least an answer.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};

use super::capture::{AddRun, Totals};
use super::end::captures;
use super::init_link::InitLink;
use super::main_loop::{Keeper, now};
use super::run::{End, Leftovers, Phase, Run};
use crate::core::identity::Identity;
use crate::core::ids::RunId;
use crate::core::outcome::{Asked, Outcome, Source};
use crate::core::spec::{OutputMode, Rlimit, Stdin};
use crate::core::time::Stamp;
use crate::state_dir::exit::ExitSlot;
use crate::state_dir::layout::RunRuntime;
use crate::state_dir::records::{EnvNote, RunRecord, RunUser, Sentinel};
use crate::sys::spawn::{self, Plan, Register, Stdio, Step};
use crate::sys::{identity, pidfd, proc};
use crate::wire::init::{Message, PID_AT};
use crate::wire::keeper::{Launch, Notice};

/// Wanted capacity of an output pipe in bytes; what an unprivileged user's quota gives is enough.
const PIPE_BYTES: usize = 256 * 1024;

/// Where programs without a path are looked for when the job has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a run was not launched.
#[derive(Debug)]
pub(super) enum NotLaunched {
    /// The run id was seen before.
    Seen,
    /// Its directories and files could not be made; no record of it exists.
    Files { what: String, errno: i32 },
    /// The child did not get to its program; a record says so.
    Child { step: String, errno: i32 },
}

/// The keeper's ends of a run's FIFOs.
#[derive(Debug, Default)]
pub(super) struct Fifos {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
}

fn step<T>(what: &str, result: io::Result<T>) -> Result<T, NotLaunched> {
    result.map_err(|error| NotLaunched::Files {
        what: what.to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EINVAL),
    })
}

impl Keeper {
    pub(super) fn launch(&mut self, launch: &Launch) -> Result<(Identity, Stamp), NotLaunched> {
        if self.runs.contains_key(&launch.run) {
            return Err(NotLaunched::Seen);
        }
        self.make_directories(launch.run)?;
        let at = now();
        let prepared = self.prepare(launch, at);
        let (slot, fifos, spawned) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nothing runs. Whoever might still claim the start finds no place to do so.
                let _ = std::fs::remove_dir_all(&self.runtime.run(launch.run).0);
                return Err(error);
            }
        };
        let identity = self.identify(spawned.pid, spawned.pidfd.as_ref());
        let pidfd = spawned.pidfd.or_else(|| pidfd::open(spawned.pid).ok());
        let run = Run {
            id: launch.run,
            job: launch.job.clone(),
            on_supervisor_death: launch.on_supervisor_death,
            identity: Some(identity.clone()),
            pidfd,
            started: Some(at),
            stdin: fifos.stdin,
            phase: Phase::Live,
            leftovers: Leftovers::default(),
            asked: Asked::Nobody,
            child: self.init.alive().is_some(),
            captured: false,
            stalled: false,
            recorded: false,
            put_away: false,
            forgotten: false,
            slot: Some(slot),
            killed_for_supervisor: false,
        };
        self.runs.insert(launch.run, run);
        if let Some((step, errno)) = spawned.failed {
            self.not_started(launch.run, step, errno);
            return Err(NotLaunched::Child { step: step.as_str().to_owned(), errno });
        }
        self.settle(launch, &identity, at);
        if let (Some(stdout), Some(stderr)) = (fifos.stdout, fifos.stderr) {
            self.begin_capture(launch.run, launch.output.clone(), stdout, stderr, false);
        }
        if self.init.alive().is_none() {
            self.watch_main(launch.run);
        }
        Ok((identity, at))
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
    fn prepare(&self, launch: &Launch, at: Stamp) -> Result<(ExitSlot, Fifos, spawn::Spawned), NotLaunched> {
        let dir = self.state.run(launch.run);
        step("writing run.json", dir.write_run(&run_record(launch, at)))?;
        let slot = step("reserving exit.json", ExitSlot::prepare(&dir))?;
        if let Some(elsewhere) = &launch.output.dir {
            let target = Path::new(elsewhere).join(launch.job.as_str()).join(launch.run.to_string());
            step("making the output directory", dir.link_output(&target))?;
        }
        let fifos = step("making the FIFOs", self.make_fifos(launch))?;
        let spawned = self.spawn(launch, &fifos)?;
        Ok((slot, fifos, spawned))
    }

    /// The files about a running run. None of them decides anything: the claim and init's table do.
    fn settle(&self, launch: &Launch, identity: &Identity, at: Stamp) {
        let dir = self.state.run(launch.run);
        let sentinel = Sentinel {
            v: crate::state_dir::records::VERSION,
            run: launch.run,
            job: launch.job.clone(),
            identity: identity.clone(),
            started: at,
            keeper_pid: rustix::process::getpid().as_raw_nonzero().get(),
        };
        let _ = dir.write_sentinel(&sentinel);
        let _ = self.state.set_current(&launch.job, launch.run);
    }

    pub(super) fn begin_capture(
        &mut self,
        id: RunId,
        settings: crate::core::spec::Output,
        stdout: OwnedFd,
        stderr: OwnedFd,
        resumed: bool,
    ) {
        let output_dir = self.state.run(id).output();
        let added =
            self.capture.capture.add(AddRun { run: id, output_dir, settings, stdout, stderr, resumed });
        match (added, self.runs.get_mut(&id)) {
            (Ok(()), Some(run)) => run.captured = true,
            (Ok(()), None) => self.capture.capture.remove(id),
            // No thread to be had: the bytes wait in the FIFO, and the next keeper takes them.
            (Err(error), _) => {
                let errno = error.raw_os_error().unwrap_or(0);
                self.tell(&Notice::LogStall { run: id, errno, dropped: 0 });
            }
        }
    }

    /// A child that did not get to its program: recorded at once. If it registered with init, init tells
    /// of its end too, and is acknowledged then.
    fn not_started(&mut self, id: RunId, step: Step, errno: i32) {
        let outcome = match step {
            Step::Claim if errno == libc::EEXIST => Outcome::Cancelled,
            _ => Outcome::NotStarted { step: step.as_str().to_owned(), errno },
        };
        let Some(run) = self.runs.get(&id) else { return };
        let end = End { outcome, source: Source::Keeper, rusage: None, at: now() };
        let record = run.record(&end, Totals::default(), true);
        self.write_record(id, &record);
        if let Some(run) = self.runs.get_mut(&id) {
            run.stdin = None;
            run.phase = Phase::Ended { record: Box::new(record.clone()) };
        }
        self.tell(&Notice::Ended { record: Box::new(record), leftovers: false });
        self.put_away_if_over(id);
    }

    pub(super) fn identify(&self, pid: i32, pidfd: Option<&OwnedFd>) -> Identity {
        Identity {
            pid,
            pidfs: pidfd.map_or(0, identity::pidfs_inode),
            start_ticks: proc::stat(pid).map_or(0, |stat| stat.start_ticks),
            epoch: self.epoch.clone(),
        }
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
        Ok(fifos)
    }

    fn spawn(&self, launch: &Launch, fifos: &Fifos) -> Result<spawn::Spawned, NotLaunched> {
        let runtime = self.runtime.run(launch.run);
        let registration = self.init.socket().map(|_| {
            let present = [fifos.stdout.is_some(), fifos.stderr.is_some(), fifos.stdin.is_some()];
            InitLink::registration(launch.run, 0, true, present)
        });
        let plan = self.plan(launch, &runtime, fifos, registration);
        let plan = step("reading the arguments", plan)?;
        step("making the process", self.spawner.spawn(&plan))
    }

    fn plan<'a>(
        &'a self,
        launch: &Launch,
        runtime: &RunRuntime,
        fifos: &Fifos,
        registration: Option<Message>,
    ) -> io::Result<PlanFor<'a>> {
        let argv = strings(launch.argv.iter().map(String::as_bytes))?;
        let env = strings(launch.env.iter().map(Vec::as_slice))?;
        let path = launch.env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let program = argv.first().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let raw = |fd: &Option<OwnedFd>| fd.as_ref().map(AsRawFd::as_raw_fd);
        let mut fds = [-1; 3];
        let held = [raw(&fifos.stdout), raw(&fifos.stderr), raw(&fifos.stdin)];
        for (place, fd) in fds.iter_mut().zip(held.into_iter().flatten()) {
            *place = fd;
        }
        let register = match (self.init.socket(), registration) {
            (Some(socket), Some(message)) => {
                Some(Register { socket, message: message.encode(), pid_at: PID_AT, fds })
            }
            _ => None,
        };
        let (boot_id, init) = (&self.epoch.boot_id, self.epoch.init);
        Ok(Plan {
            programs: spawn::programs(program, path),
            argv,
            env,
            cwd: CString::new(launch.cwd.as_str())?,
            stdio: stdio(launch, runtime)?,
            user: launch.user.as_ref().map(|user| (user.uid, user.gid, user.groups.clone())),
            umask: launch.umask,
            rlimits: self.rlimits(&launch.rlimits)?,
            nice: launch.nice,
            oom_score_adj: launch.oom_score_adj.map(|score| CString::new(score.to_string())).transpose()?,
            cgroup: self.make_group(launch.run)?,
            register,
            init: self.init.pid,
            claim: spawn::Claim {
                temporary: c_path(&runtime.0.join("claim"))?,
                decision: c_path(&runtime.decision())?,
                prefix: format!("exec {} {init} ", if boot_id.is_empty() { "-" } else { boot_id })
                    .into_bytes(),
            },
        })
    }

    /// The run's control group; the path of its member list.
    fn make_group(&self, id: RunId) -> io::Result<Option<CString>> {
        let Some(group) = self.group_of(id) else { return Ok(None) };
        std::fs::create_dir(&group)?;
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

type PlanFor<'a> = Plan<'a>;

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
        Stdin::File(path) => Stdio::Open(CString::new(path.as_str())?, libc::O_RDONLY),
    };
    if launch.output.mode == OutputMode::None {
        return Ok([stdin, null(libc::O_WRONLY), Stdio::LikeStdout]);
    }
    let stdout = Stdio::Open(c_path(&runtime.stdout())?, libc::O_RDWR);
    let stderr = Stdio::Open(c_path(&runtime.stderr())?, libc::O_RDWR);
    Ok([stdin, stdout, stderr])
}

/// Makes a FIFO that belongs to the job's user, so that it may open `/dev/stdout` again.
fn make_fifo(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from(0o600), 0)?;
    if let Some((uid, gid)) = owner {
        rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// Our end of an output FIFO: for reading only, so that it tells when nobody holds the other end.
pub(super) fn open_output(path: &Path) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
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

//! A process under ptrace, from one system call to the next.
//!
//! Everything here happens in one thread of the test: the kernel ties a traced thread to the thread that
//! traces it.
#![allow(unsafe_code, reason = "ptrace(2) has no safe interface")]
#![allow(clippy::disallowed_methods, reason = "only the tracer can wait for what it traces")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, c_long, c_uint, pid_t};
use rustix::process::Signal;

use super::common::procs;

/// Longest wait for anything that traced threads do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at threads of which none has stopped.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// The signal in a stop at a system call, with `PTRACE_O_TRACESYSGOOD`.
const AT_SYSTEM_CALL: c_int = libc::SIGTRAP | 0x80;

/// Whose system calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// All threads of the process itself.
    Own,
    /// The first child that it makes with `vfork`, up to its `execve`.
    Child,
}

/// Why a stretch of tracing is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The wanted system call, of this number, is about to be entered by this thread.
    Reached(pid_t, u64),
    /// Everything was done before that.
    Done,
}

struct Thread {
    stopped: bool,
    /// Whether it stops at system calls.
    counted: bool,
    /// A signal it was about to get.
    signal: c_int,
}

/// Traced threads. Dropping it lets them go.
pub struct Tracer {
    pid: pid_t,
    count: Count,
    options: c_int,
    threads: BTreeMap<pid_t, Thread>,
    /// Whether the child of a start has been seen to get past `execve`.
    executed: bool,
    /// Nothing is counted any more.
    killing: bool,
}

enum Stop {
    Entry(pid_t, u64),
    Other,
}

fn ptrace(request: c_uint, pid: pid_t, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: the caller passes what the request takes; addresses point to local memory that lives on.
    let result =
        unsafe { libc::ptrace(request, pid, address as *mut libc::c_void, data as *mut libc::c_void) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The status of a thread that has stopped or ended, if it has.
fn look(tid: pid_t) -> Option<Option<c_int>> {
    let mut status = 0;
    // SAFETY: writes into a local.
    match unsafe { libc::waitpid(tid, &raw mut status, libc::WNOHANG | libc::__WALL) } {
        0 => None,
        n if n == tid => Some(Some(status)),
        _ => Some(None),
    }
}

/// Number of the system call that a stopped thread is about to enter; `None`: it comes out of one.
fn entering(tid: pid_t) -> Option<u64> {
    // `struct ptrace_syscall_info`: the kind of stop in the first byte, the number after 24 bytes.
    let mut info = [0_u64; 16];
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size_of_val(&info), ptr::from_mut(&mut info) as usize).ok()?;
    (info[0].to_ne_bytes()[0] == libc::PTRACE_SYSCALL_INFO_ENTRY).then_some(info[3])
}

impl Tracer {
    /// Takes all threads of a process. They run on.
    pub fn seize(pid: pid_t, count: Count) -> io::Result<Self> {
        let follow = match count {
            Count::Own => libc::PTRACE_O_TRACECLONE,
            Count::Child => libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACEEXEC,
        };
        let options = libc::PTRACE_O_TRACESYSGOOD | follow;
        let mut tracer =
            Self { pid, count, options, threads: BTreeMap::new(), executed: false, killing: false };
        // A thread made while this looks is either in the next listing or announced by its maker.
        while tracer.seize_listed()? {}
        Ok(tracer)
    }

    fn seize_listed(&mut self) -> io::Result<bool> {
        let mut more = false;
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let Ok(tid) = entry?.file_name().to_string_lossy().parse() else { continue };
            if self.threads.contains_key(&tid) {
                continue;
            }
            match ptrace(libc::PTRACE_SEIZE, tid, 0, usize::try_from(self.options).unwrap()) {
                Ok(_) => {
                    let counted = self.count == Count::Own;
                    self.threads.insert(tid, Thread { stopped: false, counted, signal: 0 });
                    if counted {
                        ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
                    }
                    more = true;
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                // Made by a thread that is traced already: it is traced too, and announced.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && !self.threads.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(more)
    }

    /// Lets everything run, uncounted, until nothing has stopped for this long.
    pub fn quiet(&mut self, length: Duration) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        let mut since = Instant::now();
        while since.elapsed() < length {
            match self.step() {
                Some(Stop::Entry(tid, _)) => {
                    self.resume(tid);
                    since = Instant::now();
                }
                Some(Stop::Other) => since = Instant::now(),
                None => procs::moment(LOOK_EVERY),
            }
            if Instant::now() > end {
                return Err("it does not come to rest".to_owned());
            }
        }
        Ok(())
    }

    /// Lets everything run up to the entry of system call `n`, counted from 1, or until it rests for
    /// `rest` and `done` says that all is done.
    pub fn run_to(&mut self, n: u64, rest: Duration, mut done: impl FnMut() -> bool) -> Result<Over, String> {
        let end = Instant::now() + PATIENCE;
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            match self.step() {
                Some(Stop::Entry(tid, number)) => {
                    seen += 1;
                    if seen == n {
                        return Ok(Over::Reached(tid, number));
                    }
                    self.resume(tid);
                    since = Instant::now();
                }
                Some(Stop::Other) => since = Instant::now(),
                None => {
                    if self.executed || (since.elapsed() >= rest && done()) {
                        return Ok(Over::Done);
                    }
                    if Instant::now() > end {
                        return Err(format!("not done in {PATIENCE:?}, after {seen} system calls"));
                    }
                    procs::moment(LOOK_EVERY);
                }
            }
        }
    }

    /// One stop of one thread, handled. A thread at the entry of a counted call stays stopped in
    /// [`Tracer::run_to`] if it is the wanted one.
    fn step(&mut self) -> Option<Stop> {
        let running: Vec<pid_t> =
            self.threads.iter().filter(|(_, t)| !t.stopped).map(|(tid, _)| *tid).collect();
        for tid in running {
            let Some(status) = look(tid) else { continue };
            let Some(status) = status.filter(|status| libc::WIFSTOPPED(*status)) else {
                self.threads.remove(&tid);
                return Some(Stop::Other);
            };
            return Some(self.stopped(tid, status));
        }
        None
    }

    /// Notes that a thread has stopped, and whom it has made.
    fn note(&mut self, tid: pid_t, status: c_int) {
        let (event, signal) = (status >> 16, libc::WSTOPSIG(status));
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.stopped = true;
            thread.signal = if event == 0 && signal != AT_SYSTEM_CALL { signal } else { 0 };
        }
        if event == libc::PTRACE_EVENT_CLONE || event == libc::PTRACE_EVENT_VFORK {
            let mut new: libc::c_ulong = 0;
            let read = ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, ptr::from_mut(&mut new) as usize);
            if let (Ok(_), Ok(new)) = (read, pid_t::try_from(new)) {
                self.threads.insert(new, Thread { stopped: false, counted: !self.killing, signal: 0 });
            }
        }
    }

    fn stopped(&mut self, tid: pid_t, status: c_int) -> Stop {
        self.note(tid, status);
        let event = status >> 16;
        let counted = self.threads.get(&tid).is_some_and(|thread| thread.counted);
        if event == 0
            && counted
            && libc::WSTOPSIG(status) == AT_SYSTEM_CALL
            && let Some(number) = entering(tid)
        {
            return Stop::Entry(tid, number);
        }
        if event == libc::PTRACE_EVENT_EXEC {
            self.executed = true;
            let _ = ptrace(libc::PTRACE_DETACH, tid, 0, 0);
            self.threads.remove(&tid);
            return Stop::Other;
        }
        self.resume(tid);
        Stop::Other
    }

    fn resume(&mut self, tid: pid_t) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            let how = if thread.counted { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
            // One that is being killed meanwhile cannot be resumed; its end is seen at the next look.
            let _ = ptrace(how, tid, 0, usize::try_from(thread.signal).unwrap());
            thread.stopped = false;
        }
    }

    /// Kills a process with SIGKILL, this one or its child, and lets go of what remains.
    pub fn kill(mut self, victim: pid_t) -> Result<(), String> {
        let Some(handle) = procs::handle(victim) else { return Err(format!("{victim} is gone")) };
        procs::send(&handle, Signal::KILL);
        let gone = |tracer: &Self| {
            if victim == tracer.pid {
                tracer.threads.is_empty()
            } else {
                !tracer.threads.contains_key(&victim)
            }
        };
        self.killing = true;
        for (tid, thread) in &mut self.threads {
            // What stopped before the kill does not stop again: only its end is to come.
            if victim == self.pid || *tid == victim {
                thread.stopped = false;
            }
            thread.counted = false;
        }
        let end = Instant::now() + PATIENCE;
        while !gone(&self) {
            if self.step().is_none() {
                procs::moment(LOOK_EVERY);
            }
            if Instant::now() > end {
                return Err(format!("{victim} does not die"));
            }
        }
        Ok(())
    }

    /// Lets all threads go, and children that come meanwhile.
    fn let_go(&mut self) {
        for (tid, thread) in &self.threads {
            if !thread.stopped {
                let _ = ptrace(libc::PTRACE_INTERRUPT, *tid, 0, 0);
            }
        }
        let end = Instant::now() + PATIENCE;
        while !self.threads.is_empty() && Instant::now() < end {
            let tids: Vec<pid_t> = self.threads.keys().copied().collect();
            for tid in tids {
                let ended = !self.threads[&tid].stopped && self.has_ended(tid);
                let thread = &self.threads[&tid];
                if thread.stopped {
                    let _ = ptrace(libc::PTRACE_DETACH, tid, 0, usize::try_from(thread.signal).unwrap());
                }
                if thread.stopped || ended {
                    self.threads.remove(&tid);
                }
            }
            procs::moment(LOOK_EVERY);
        }
    }

    /// Notes a stop, if there is one, and leaves the thread in it. True if it has ended.
    fn has_ended(&mut self, tid: pid_t) -> bool {
        match look(tid) {
            None => false,
            Some(Some(status)) if libc::WIFSTOPPED(status) => {
                self.note(tid, status);
                false
            }
            Some(_) => true,
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.let_go();
    }
}

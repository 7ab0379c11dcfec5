//! A child that fails on request: the other half of every behaviour test.
//!
//! The command line is a script: words are verbs with their arguments, done one after the other.
//! `misbehave ignore TERM lines 100 1ms exit 3` ignores SIGTERM, writes a hundred numbered lines and
//! exits with code 3. Without `exit` the script ends with code 0. A verb that fails ends it with 98, a
//! word that is no verb with 97, a lock that somebody else holds with 99. The verbs:
//!
//! | verb | what it does |
//! |---|---|
//! | `exit N` | exit with this code |
//! | `signal SIG` | end by this signal: default disposition, unblocked, raised |
//! | `ignore SIG…` | ignore these signals from here on |
//! | `stop-self` | stop as by SIGSTOP; the script goes on after SIGCONT |
//! | `flood BYTES\|forever [LENGTH]` | write as fast as possible, in lines of LENGTH bytes (80) |
//! | `lines N INTERVAL [PREFIX]` | numbered lines to stdout, one write each; N = 0 for ever |
//! | `lines-err N INTERVAL [PREFIX]` | the same to stderr |
//! | `both N INTERVAL` | `out K` to stdout and `err K` to stderr in turn |
//! | `print TEXT`, `print-err TEXT` | these bytes; `\n`, `\t`, `\r`, `\0` and `\xHH` are read |
//! | `daemonise [D]` | leave a grandchild in a session of its own that keeps stdout and stderr open |
//! | `leave-child [D]` | leave a child in the same session and group, its stdio closed |
//! | `stderr-truncate` | open `/dev/stderr` with O_TRUNC and write there, as `> /dev/stderr` does |
//! | `nonblock` | set O_NONBLOCK on its stdio |
//! | `sd-notify TEXT` | send TEXT to NOTIFY_SOCKET, if there is one |
//! | `beat INTERVAL [N]` | send WATCHDOG=1 there every INTERVAL, N times or for ever |
//! | `ready-fd N` | write a newline to descriptor N and close it |
//! | `notify-other SOCKET TEXT` | send TEXT to this socket; `@NAME` for one that is no file |
//! | `read-stdin` | echo lines until end of file, then print `eof` |
//! | `env` `ids` `limits` `fds` `signals` `umask` `cwd` `nice` `oom` | print what was inherited |
//! | `sleep D`, `hang` | wait so long, or for ever |
//! | `gate FILE` | read one byte of this file, usually a FIFO: blocks until somebody lets it through |
//! | `mark FILE [TEXT]` | append one line in one write; `start PID RUN ATTEMPT` without TEXT |
//! | `lock FILE` | hold a record lock on FILE to the end; if held by another, say so in `FILE.overlap` |
//!
//! `{run}`, `{attempt}`, `{job}` and `{pid}` in PREFIX and TEXT are replaced. D is `5s`, `20ms` or `7us`.
#![allow(unsafe_code, reason = "signal dispositions have no safe interface")]

use std::fs::OpenOptions;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const VERBS: &[&str] = &[
    "exit",
    "signal",
    "ignore",
    "stop-self",
    "flood",
    "lines",
    "lines-err",
    "both",
    "print",
    "print-err",
    "daemonise",
    "leave-child",
    "stderr-truncate",
    "nonblock",
    "sd-notify",
    "beat",
    "ready-fd",
    "notify-other",
    "read-stdin",
    "env",
    "ids",
    "limits",
    "fds",
    "signals",
    "umask",
    "cwd",
    "nice",
    "oom",
    "sleep",
    "hang",
    "gate",
    "mark",
    "lock",
    "own-session-then",
];

/// Signal state as it was at `execve`, bit N-1 for signal N. The runtime changes SIGPIPE before `main`.
static IGNORED_AT_START: AtomicU64 = AtomicU64::new(0);
static BLOCKED_AT_START: AtomicU64 = AtomicU64::new(0);

extern "C" fn note_signal_state() {
    let (mut ignored, mut blocked) = (0, 0);
    // SAFETY: plain system calls on local, fully initialised structures.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut mask);
        for signal in 1..=64 {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
            {
                ignored |= 1 << (signal - 1);
            }
            if libc::sigismember(&mask, signal) == 1 {
                blocked |= 1 << (signal - 1);
            }
        }
    }
    IGNORED_AT_START.store(ignored, Ordering::Relaxed);
    BLOCKED_AT_START.store(blocked, Ordering::Relaxed);
}

/// Run by the loader, before the runtime's own start.
// SAFETY: the function has the type that `.init_array` asks for, and touches nothing of the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_signal_state;

type Words = std::iter::Peekable<std::vec::IntoIter<String>>;

fn main() -> ExitCode {
    let mut words: Words = std::env::args().skip(1).collect::<Vec<_>>().into_iter().peekable();
    while let Some(verb) = words.next() {
        match act(&verb, &mut words) {
            Ok(None) => {}
            Ok(Some(code)) => return ExitCode::from(code),
            Err(error) => {
                let _ = writeln!(io::stderr(), "misbehave: {verb}: {error}");
                let code = if error.kind() == io::ErrorKind::InvalidInput { 97 } else { 98 };
                return ExitCode::from(code);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Does one verb. `Some(code)` ends the script.
fn act(verb: &str, words: &mut Words) -> io::Result<Option<u8>> {
    match verb {
        "exit" => return Ok(Some(number(words)?)),
        "signal" => end_by(signal_number(&need(words)?).ok_or_else(|| bad("no such signal"))?),
        "ignore" => ignore(words)?,
        "stop-self" => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?
        }
        "flood" => flood(words)?,
        "lines" => lines(io::stdout().as_fd(), words)?,
        "lines-err" => lines(io::stderr().as_fd(), words)?,
        "both" => both(words)?,
        "print" => put(io::stdout().as_fd(), &unescape(&fill(&need(words)?)))?,
        "print-err" => put(io::stderr().as_fd(), &unescape(&fill(&need(words)?)))?,
        "daemonise" => daemonise(words)?,
        "own-session-then" => own_session_then(words)?,
        "leave-child" => leave_child(words)?,
        "stderr-truncate" => {
            let file = OpenOptions::new().write(true).truncate(true).open("/dev/stderr")?;
            put(file.as_fd(), b"after truncation\n")?;
        }
        "nonblock" => nonblock()?,
        "sd-notify" => sd_notify(&need(words)?)?,
        "beat" => beat(words)?,
        "ready-fd" => ready_fd(number(words)?)?,
        "notify-other" => {
            let socket = need(words)?;
            send_to(&socket, &need(words)?)?;
        }
        "read-stdin" => read_stdin()?,
        "sleep" => nap(duration(&need(words)?)?),
        "hang" => loop {
            nap(Duration::from_secs(3600));
        },
        "gate" => {
            let mut one = [0];
            std::fs::File::open(need(words)?)?.read_exact(&mut one)?;
        }
        "mark" => {
            let file = need(words)?;
            let text = optional(words).unwrap_or_else(|| "start {pid} {run} {attempt}".to_owned());
            append(&file, &fill(&text))?;
        }
        "lock" => return lock(&need(words)?),
        _ => put(io::stdout().as_fd(), report(verb)?.as_bytes())?,
    }
    Ok(None)
}

/// What was inherited, as text.
fn report(what: &str) -> io::Result<String> {
    use rustix::process;
    Ok(match what {
        "env" => {
            let mut lines: Vec<String> = std::env::vars_os()
                .map(|(k, v)| format!("{}={}\n", k.to_string_lossy(), v.to_string_lossy()))
                .collect();
            lines.sort();
            lines.concat()
        }
        "ids" => ids()?,
        "limits" => limits(),
        "fds" => fds()?,
        "signals" => format!(
            "blocked {:016x}\nignored {:016x}\n",
            BLOCKED_AT_START.load(Ordering::Relaxed),
            IGNORED_AT_START.load(Ordering::Relaxed)
        ),
        "umask" => {
            let mask = process::umask(rustix::fs::Mode::empty());
            process::umask(mask);
            format!("umask {:04o}\n", mask.bits())
        }
        "cwd" => format!("cwd {}\n", std::env::current_dir()?.display()),
        "nice" => format!("nice {}\n", process::getpriority_process(None)?),
        "oom" => format!("oom {}\n", std::fs::read_to_string("/proc/self/oom_score_adj")?.trim()),
        _ => return Err(bad("no such verb")),
    })
}

fn ids() -> io::Result<String> {
    use rustix::process;
    let groups: Vec<String> = process::getgroups()?.iter().map(|g| g.as_raw().to_string()).collect();
    let parent = process::getppid().map_or(0, |p| p.as_raw_nonzero().get());
    Ok(format!(
        "uid {}\neuid {}\ngid {}\ngroups {}\npid {}\nppid {parent}\npgid {}\nsid {}\n",
        process::getuid().as_raw(),
        process::geteuid().as_raw(),
        process::getgid().as_raw(),
        groups.join(","),
        process::getpid().as_raw_nonzero(),
        process::getpgrp().as_raw_nonzero(),
        process::getsid(None)?.as_raw_nonzero(),
    ))
}

fn limits() -> String {
    use rustix::process::{Resource, getrlimit};
    let show = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    [
        ("cpu", Resource::Cpu),
        ("fsize", Resource::Fsize),
        ("data", Resource::Data),
        ("stack", Resource::Stack),
        ("core", Resource::Core),
        ("nproc", Resource::Nproc),
        ("nofile", Resource::Nofile),
        ("memlock", Resource::Memlock),
        ("as", Resource::As),
    ]
    .into_iter()
    .map(|(name, resource)| {
        let limit = getrlimit(resource);
        format!("{name} {} {}\n", show(limit.current), show(limit.maximum))
    })
    .collect()
}

fn fds() -> io::Result<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let number: i32 = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| bad("fd"))?;
        let target = std::fs::read_link(&path).unwrap_or_default();
        // The descriptor that lists the directory shows up in its own list.
        if !target.starts_with("/proc/") {
            lines.push((number, target));
        }
    }
    lines.sort();
    Ok(lines.iter().map(|(n, target)| format!("{n} {}\n", target.display())).collect())
}

fn ignore(words: &mut Words) -> io::Result<()> {
    while let Some(signal) = words.peek().and_then(|word| signal_number(word)) {
        words.next();
        // SAFETY: SIG_IGN is a valid disposition for every signal that may have one.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn end_by(signal: i32) {
    // SAFETY: system calls on a local signal set; the process is about to end.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// `TERM`, `SIGTERM` or `15`.
fn signal_number(word: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 16] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("ABRT", libc::SIGABRT),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("SEGV", libc::SIGSEGV),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("CHLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
    ];
    if let Ok(n) = word.parse() {
        return (1..=64).contains(&n).then_some(n);
    }
    let bare = word.strip_prefix("SIG").unwrap_or(word);
    NAMES.iter().find(|(name, _)| *name == bare).map(|(_, n)| *n)
}

fn flood(words: &mut Words) -> io::Result<()> {
    let amount = need(words)?;
    let total: Option<u64> = if amount == "forever" {
        None
    } else {
        Some(amount.parse().map_err(|_| bad("not a number of bytes"))?)
    };
    let length = match words.peek().and_then(|w| w.parse::<usize>().ok()) {
        Some(length) => {
            words.next();
            length.max(1)
        }
        None => 80,
    };
    let mut line = vec![b'x'; length];
    line[length - 1] = b'\n';
    let block = line.repeat((64 * 1024 / length).max(1));
    let mut done = 0;
    while total.is_none_or(|total| done < total) {
        let left = total.map_or(u64::MAX, |total| total - done);
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        put(io::stdout().as_fd(), &block[..part])?;
        done += part as u64;
    }
    Ok(())
}

fn lines(to: BorrowedFd<'_>, words: &mut Words) -> io::Result<()> {
    let count: u64 = number(words)?;
    let interval = duration(&need(words)?)?;
    let prefix = optional(words).map(|p| fill(&p) + " ").unwrap_or_default();
    let mut n = 0;
    while count == 0 || n < count {
        n += 1;
        put(to, format!("{prefix}{n}\n").as_bytes())?;
        if n != count {
            nap(interval);
        }
    }
    Ok(())
}

fn both(words: &mut Words) -> io::Result<()> {
    let count: u64 = number(words)?;
    let interval = duration(&need(words)?)?;
    for n in 1..=count {
        put(io::stdout().as_fd(), format!("out {n}\n").as_bytes())?;
        put(io::stderr().as_fd(), format!("err {n}\n").as_bytes())?;
        nap(interval);
    }
    Ok(())
}

/// Writes all of it, in one write(2) where the kernel takes it whole; waits where it would block.
fn put(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The grandchild is started by a child that first leads a session of its own and then ends.
fn daemonise(words: &mut Words) -> io::Result<()> {
    let mut command = myself()?;
    command.args(["own-session-then", &optional_duration(words)]);
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the middle process failed")) }
}

fn own_session_then(words: &mut Words) -> io::Result<()> {
    rustix::process::setsid()?;
    let mut command = myself()?;
    let child = command.args(wait_script(&need(words)?)).stdin(Stdio::null()).spawn()?;
    put(io::stdout().as_fd(), format!("daemon {}\n", child.id()).as_bytes())
}

fn leave_child(words: &mut Words) -> io::Result<()> {
    let mut command = myself()?;
    command.args(wait_script(&optional_duration(words)));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    put(io::stdout().as_fd(), format!("child {}\n", child.id()).as_bytes())
}

fn wait_script(how_long: &str) -> Vec<&str> {
    if how_long == "forever" { vec!["hang"] } else { vec!["sleep", how_long] }
}

fn optional_duration(words: &mut Words) -> String {
    match words.peek().map(|word| duration(word)) {
        Some(Ok(_)) => words.next().unwrap_or_default(),
        _ => "forever".to_owned(),
    }
}

fn myself() -> io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

fn nonblock() -> io::Result<()> {
    for fd in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let flags = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    }
    Ok(())
}

fn sd_notify(text: &str) -> io::Result<()> {
    let Some(path) = std::env::var("NOTIFY_SOCKET").ok().filter(|p| !p.is_empty()) else { return Ok(()) };
    send_to(&path, text)
}

fn beat(words: &mut Words) -> io::Result<()> {
    let interval = duration(&need(words)?)?;
    let times: Option<u64> = match words.peek().and_then(|word| word.parse().ok()) {
        Some(times) => {
            words.next();
            Some(times)
        }
        None => None,
    };
    let mut sent = 0;
    while times.is_none_or(|times| sent < times) {
        sd_notify("WATCHDOG=1")?;
        sent += 1;
        if times != Some(sent) {
            nap(interval);
        }
    }
    Ok(())
}

fn ready_fd(number: i32) -> io::Result<()> {
    // SAFETY: the descriptor was inherited for this, and nothing here has it. A number at which nothing is
    // open only makes the write fail.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    put(fd, b"\n")?;
    // SAFETY: as above; it is not used again.
    if unsafe { libc::close(number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn send_to(path: &str, text: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    let socket = UnixDatagram::unbound()?;
    match path.strip_prefix('@') {
        Some(name) => {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(text.as_bytes(), &address)?;
        }
        None => {
            socket.send_to(text.as_bytes(), path)?;
        }
    }
    Ok(())
}

fn read_stdin() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        put(io::stdout().as_fd(), &line)?;
        line.clear();
    }
    put(io::stdout().as_fd(), b"eof\n")
}

/// Appends one line in one write, so that lines of several processes never mix.
fn append(file: &str, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o666).open(file)?;
    put(file.as_fd(), format!("{text}\n").as_bytes())
}

/// A record lock belongs to the process and goes with it: two runs that live at once cannot both have it.
fn lock(path: &str) -> io::Result<Option<u8>> {
    use rustix::fs::{FlockOperation, fcntl_lock};
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // Closing any descriptor of the file would drop the lock.
            std::mem::forget(file);
            Ok(None)
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            append(&format!("{path}.overlap"), &fill("overlap {pid} {run} {attempt}"))?;
            Ok(Some(99))
        }
        Err(error) => Err(error.into()),
    }
}

/// Replaces `{run}` and its kin.
fn fill(text: &str) -> String {
    let var = |name| std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    text.replace("{run}", &var("OUTLIVE_RUN_ID"))
        .replace("{attempt}", &var("OUTLIVE_ATTEMPT"))
        .replace("{job}", &var("OUTLIVE_JOB"))
        .replace("{pid}", &std::process::id().to_string())
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [b'x', a, b, more @ ..]) => {
                let hex = [*a, *b];
                let value = std::str::from_utf8(&hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
                bytes.push(value.unwrap_or(b'?'));
                more
            }
            (b'\\', [escape, more @ ..]) => {
                bytes.push(match escape {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'0' => 0,
                    other => *other,
                });
                more
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    bytes
}

fn need(words: &mut Words) -> io::Result<String> {
    words.next().ok_or_else(|| bad("an argument is missing"))
}

/// The next word, unless it is a verb.
fn optional(words: &mut Words) -> Option<String> {
    words.next_if(|word| !VERBS.contains(&word.as_str()))
}

fn number<T: std::str::FromStr>(words: &mut Words) -> io::Result<T> {
    need(words)?.parse().map_err(|_| bad("not a number in range"))
}

fn duration(word: &str) -> io::Result<Duration> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let n: u64 = digits.parse().map_err(|_| bad("not a length of time"))?;
    match &word[digits.len()..] {
        "us" => Ok(Duration::from_micros(n)),
        "ms" => Ok(Duration::from_millis(n)),
        "s" => Ok(Duration::from_secs(n)),
        "" if n == 0 => Ok(Duration::ZERO),
        _ => Err(bad("not a length of time")),
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[expect(clippy::disallowed_methods, reason = "doing nothing for a while is what it was asked for")]
fn nap(how_long: Duration) {
    if !how_long.is_zero() {
        std::thread::sleep(how_long);
    }
}

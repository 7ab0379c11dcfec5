//! Looking at the host and at ourselves.
//!
//! What `/proc` tells is read in one task. A file system gets a thread of its own each time: one that hangs takes
//! nothing with it but that thread, and none of those that others need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::super::main_loop::Supervisor;
use super::super::vigils;
use super::super::vigils::probe::{self, NoYes};
use super::HostNews;
use crate::core::host::{Begin, Kind, Look, Reading, Share};
use crate::core::watch::ProbeAsk;
use crate::sys::{host, thread};

/// How long our own control socket may take to answer: it has nothing to do for that.
const CONTROL: Duration = Duration::from_secs(2);

/// Bytes of stack for a thread that makes one system call.
const STACK: usize = 128 * 1024;

type Tell = mpsc::Sender<HostNews>;

impl Supervisor {
    /// Begins to look. What needs no waiting is answered at once.
    pub(super) fn begin_looks(&self, begin: Vec<Begin>) {
        let mut cheap = Vec::new();
        for begin in begin {
            let tell = self.host.tell.clone();
            match &begin.look {
                Look::At(Kind::Control) => {
                    let socket = self.socket.clone();
                    tokio::spawn(async move {
                        let answer = tokio::time::timeout(CONTROL, ask_ourselves(&socket)).await;
                        let answer = answer.unwrap_or_else(|_| Err("no answer within 2000 ms".to_owned()));
                        let _ = tell.send(told(begin, answer)).await;
                    });
                }
                Look::At(Kind::Keeper) => {
                    let answer = match &self.keeper {
                        Some(_) => Ok(yes("connected")),
                        None => Err("the keeper is not connected".to_owned()),
                    };
                    let _ = tell.try_send(told(begin, answer));
                }
                Look::At(Kind::EventLog) => match &self.read_only {
                    Some(read_only) => drop(tell.try_send(told(begin, Err(read_only.why.clone())))),
                    None => {
                        let dir = self.state_dir.0.clone();
                        aside(begin, tell, move || look_at_journal(&dir));
                    }
                },
                Look::On(kind, path) => {
                    let (kind, path) = (*kind, PathBuf::from(path));
                    aside(begin, tell, move || look_at_disk(kind, &path));
                }
                Look::Ask(ProbeAsk::Exec(argv)) => {
                    let command = self.command_of_check(&begin.name, argv);
                    let time = Duration::from_millis(begin.timeout_ms);
                    aside_as_we_are(begin, tell, move || {
                        probe::succeeds(command, time).map(|()| yes("exit 0")).map_err(NoYes::words)
                    });
                }
                Look::Ask(ask) => {
                    let (ask, time) = (ask.clone(), Duration::from_millis(begin.timeout_ms));
                    tokio::spawn(async move {
                        let answer = probe::ask(&ask, time).await;
                        let answer = answer.map(|()| yes("answers")).map_err(NoYes::words);
                        let _ = tell.send(told(begin, answer)).await;
                    });
                }
                Look::At(kind) => cheap.push((*kind, begin)),
            }
        }
        if !cheap.is_empty() {
            let tell = self.host.tell.clone();
            // Without a thread, each fails when its time is over.
            vigils::aside(move || {
                for (kind, begin) in cheap {
                    let _ = tell.blocking_send(told(begin, look_at_host(kind)));
                }
            });
        }
    }

    /// A command with our own environment, which can find us.
    pub(super) fn command_of_check(&self, check: &str, argv: &[String]) -> Command {
        let mut command = Command::new(argv.first().map_or("", String::as_str));
        command.args(argv.get(1..).unwrap_or_default());
        command.env("OUTLIVE_HELPER", "health").env("OUTLIVE_CHECK", check);
        command.env("OUTLIVE_SOCKET", &self.socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

fn told(begin: Begin, answer: Result<Reading, String>) -> HostNews {
    HostNews::Told { name: begin.name, serial: begin.serial, answer }
}

fn yes(text: &str) -> Reading {
    Reading { text: text.to_owned(), ..Reading::default() }
}

/// Looks in a thread of its own that no signal disturbs.
fn aside(begin: Begin, tell: Tell, look: impl FnOnce() -> Result<Reading, String> + Send + 'static) {
    aside_as_we_are(begin, tell, || {
        let _ = thread::block_signals();
        look()
    });
}

/// Looks in a thread of its own, with the signal mask that a command may inherit. Without one, nobody looks.
fn aside_as_we_are(
    begin: Begin,
    tell: Tell,
    look: impl FnOnce() -> Result<Reading, String> + Send + 'static,
) {
    let (name, serial, again) = (begin.name.clone(), begin.serial, tell.clone());
    let started = std::thread::Builder::new().name("health".to_owned()).stack_size(STACK).spawn(move || {
        let answer = look();
        let _ = tell.blocking_send(told(begin, answer));
    });
    if let Err(error) = started {
        let _ = again.try_send(HostNews::Told { name, serial, answer: Err(format!("no thread: {error}")) });
    }
}

fn look_at_host(kind: Kind) -> Result<Reading, String> {
    let bytes = |n: u64| format!("{} MiB", n >> 20);
    let count = |n: u64| n.to_string();
    let of = |read: Option<(u64, u64)>, words: &dyn Fn(u64) -> String| {
        // Where the kernel does not tell, nothing is wrong.
        let Some((used, all)) = read else { return Ok(yes("not known on this host")) };
        let share = Share::of(used, all);
        let text = format!("{share} in use ({} of {})", words(used), words(all));
        Ok(Reading { share: Some(share), text, device: None })
    };
    match kind {
        Kind::Memory => of(host::memory(), &bytes),
        Kind::OpenFiles => of(host::open_files(), &count),
        Kind::Pids => of(host::pids(), &count),
        Kind::Pressure => Ok(pressure(host::pressure())),
        Kind::Inotify => match (host::inotify(), host::try_inotify()) {
            (None, _) => Ok(yes("not known on this host")),
            (Some(limits), Ok(())) => {
                Ok(yes(&format!("up to {} watches and {} instances", limits.watches, limits.instances)))
            }
            (Some(_), Err(error)) => Err(format!("no file can be watched: {error}")),
        },
        Kind::Disk | Kind::Inodes | Kind::Control | Kind::EventLog | Kind::Keeper => Ok(Reading::default()),
    }
}

/// The largest share of the last ten seconds in which a task waited for something.
fn pressure(found: Option<host::Pressure>) -> Reading {
    let Some(found) = found else { return yes("not known on this host") };
    let all = [("memory", found.memory), ("disks", found.io), ("a CPU", found.cpu)];
    let stalls = all.into_iter().filter_map(|(what, stall)| Some((stall?.some, what)));
    let Some((percent, what)) = stalls.max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return yes("not known on this host");
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10000")]
    let share = Share((percent.clamp(0.0, 100.0) * 100.0).round() as u32);
    Reading { share: Some(share), text: format!("waited for {what} in {share} of the time"), device: None }
}

fn look_at_disk(kind: Kind, path: &Path) -> Result<Reading, String> {
    let disk = match host::disk(path) {
        Ok(disk) => disk,
        // A directory for output is made by the first run that writes there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(yes("not there yet")),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let at = path.display();
    let (share, text) = if kind == Kind::Inodes {
        let share = Share::of(disk.inodes.saturating_sub(disk.inodes_free), disk.inodes);
        (share, format!("{share} of the files of {at} in use"))
    } else {
        let share = Share::of(disk.used, disk.used.saturating_add(disk.available));
        (share, format!("{share} of {at} in use, {} MiB left", disk.available >> 20))
    };
    Ok(Reading { share: Some(share), text, device: Some(disk.device) })
}

/// Whether the disk of the event log answers, for all that is not answered out of memory.
fn look_at_journal(dir: &Path) -> Result<Reading, String> {
    let answer = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    answer.map(|()| yes("its disk answers")).map_err(|error| format!("{}: {error}", dir.display()))
}

/// Gets what costs nothing from our own control socket.
async fn ask_ourselves(socket: &Path) -> Result<Reading, String> {
    let words = |error: std::io::Error| error.to_string();
    let mut stream = UnixStream::connect(socket).await.map_err(words)?;
    let request = b"GET /v1/version HTTP/1.1\r\nHost: outlive\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(words)?;
    let mut answer = Vec::with_capacity(512);
    while answer.len() < 16 {
        if stream.read_buf(&mut answer).await.map_err(words)? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default());
    match line.strip_prefix("HTTP/1.1 200") {
        Some(_) => Ok(yes("answers")),
        None => Err(format!("answered {line:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::host::{Pressure, Stall};

    #[test]
    fn the_worst_pressure_counts() {
        let stall = |some| Some(Stall { some, full: 0.0 });
        let found = Pressure { cpu: stall(1.0), memory: None, io: stall(12.34) };
        let reading = pressure(Some(found));
        assert_eq!(reading.share, Some(Share(1234)));
        assert_eq!(reading.text, "waited for disks in 12.34 % of the time");
        assert_eq!(pressure(None).share, None);
    }

    #[test]
    fn a_path_that_is_not_there_yet_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let there = look_at_disk(Kind::Disk, dir.path()).unwrap();
        assert!(there.share.is_some() && there.device.is_some());
        assert_eq!(look_at_disk(Kind::Disk, &dir.path().join("x")).unwrap().share, None);
        assert!(look_at_journal(dir.path()).is_ok());
        assert!(look_at_journal(&dir.path().join("x")).is_err());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_answers_at_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask_ourselves(&dir.path().join("socket")).await.is_err());
    }
}

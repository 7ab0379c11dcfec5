//! Taking the place of another keeper, and giving up ours.
//!
//! There is one keeper, and its lock says so. A new one that finds the lock held asks the holder to hand
//! over: the old keeper finishes what it has begun to record, sends the descriptors that cannot be opened
//! again by name (processes, stdin ends, sockets), and ends when it is told that they have arrived. One that does
//! not answer within two seconds is killed, by a descriptor opened while it held the lock: nothing is
//! lost by that but what only it could have seen.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::launch::{open_fifo, open_output};
use super::main_loop::Keeper;
use super::run::Phase;
use super::survive::Handed;
use crate::core::ids::RunId;
use crate::state_dir::layout::{RuntimeDir, StateDir};
use crate::sys::{clock, flock, pidfd};
use crate::wire::frame;
use crate::wire::keeper::{Answer, FromKeeper, Numbered, Refusal, Request};

/// How long the old keeper may take for anything.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long ends that are being recorded may hold up the hand-over, in microseconds.
const ENDS_US: u64 = 500_000;

type Hand = BTreeMap<RunId, Handed>;

/// Gets the keeper's lock, from another keeper if need be.
pub(super) fn take_place(state: &StateDir, runtime: &RuntimeDir) -> io::Result<(flock::Lock, Hand)> {
    let (mut lock, mut holder) = match flock::open(&state.keeper_lock())? {
        flock::Tried::Held(lock) => return Ok((lock, Hand::new())),
        flock::Tried::Busy(lock, holder) => (lock, holder),
    };
    let handed = ask(runtime).unwrap_or_default();
    for n in 0..100 {
        // Or it was by a child of a dead keeper, on its way: such a one has held up our question, and is gone.
        if holder.pid == 0 && n > 0 {
            return Err(io::Error::other("the keeper's lock is held in another pid namespace"));
        }
        let process = pidfd::open(holder.pid);
        // Still held, so the descriptor is the holder's: a record lock is gone before its owner's pid is.
        (lock, holder) = match flock::retry(lock)? {
            flock::Tried::Held(lock) => return Ok((lock, handed)),
            flock::Tried::Busy(lock, now) if now == holder => {
                if let Ok(process) = process
                    && !pidfd::wait_ended(&process, 2000)
                {
                    let _ = pidfd::signal(&process, libc::SIGKILL);
                    let _ = pidfd::wait_ended(&process, 2000);
                }
                (lock, now)
            }
            flock::Tried::Busy(lock, now) => (lock, now),
        };
    }
    Err(io::Error::other(format!("process {} keeps the keeper's lock", holder.pid)))
}

/// Asks the old keeper for its descriptors.
fn ask(runtime: &RuntimeDir) -> io::Result<Hand> {
    let mut stream = UnixStream::connect(runtime.keeper_socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    frame::encode(&Numbered { id: 1, request: Request::HandOver }, &mut request).map_err(io::Error::other)?;
    stream.write_all(&request)?;
    let mut decoder = frame::Decoder::default();
    let (runs, sockets) = loop {
        // One byte at a time, so as not to take the descriptors' messages along.
        let mut byte = [0];
        io::Read::read_exact(&mut stream, &mut byte)?;
        decoder.feed(&byte);
        match decoder.take().map_err(io::Error::other)? {
            Some(FromKeeper::Reply { result: Ok(Answer::HandingOver { runs, sockets }), .. }) => {
                break (runs, sockets);
            }
            Some(FromKeeper::Reply { result: Err(refusal), .. }) => return Err(io::Error::other(refusal)),
            Some(_) | None => {}
        }
    };
    let mut handed = Hand::new();
    for (run, has_stdin) in runs {
        let mut fds = receive(&stream, run)?.into_iter();
        let pidfd = fds.next();
        let stdin = if has_stdin { fds.next() } else { None };
        let notify = if sockets.contains(&run) { fds.next() } else { None };
        // Opened while the old keeper still holds them: what the pipes hold is never without a reader.
        let fifos = runtime.run(run);
        let (stdout, stderr) = (open_output(&fifos.stdout()).ok(), open_output(&fifos.stderr()).ok());
        let ready = open_fifo(&fifos.ready()).ok();
        handed.insert(run, Handed { pidfd, stdin, stdout, stderr, notify, ready });
    }
    stream.write_all(&[1])?;
    Ok(handed)
}

fn receive(stream: &UnixStream, expected: RunId) -> io::Result<Vec<OwnedFd>> {
    let mut bytes = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = part {
            fds.extend(came);
        }
    }
    if received.bytes == 16 && &bytes == expected.as_bytes() {
        Ok(fds)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "out of step"))
    }
}

impl Keeper {
    /// A new keeper asks for our place. It has an init, and we have none: otherwise it would not have
    /// been started. Nothing is captured from here on; if it dies before it has everything, we go on.
    pub(super) fn hand_over(&mut self, number: u64, id: u64) {
        if self.init.alive().is_some() {
            let why = "this keeper's init lives".to_owned();
            self.say(number, &FromKeeper::Reply { id, result: Err(Refusal::Bad { why }) });
            return;
        }
        self.finish_launches();
        self.finish_ends();
        let list: Vec<(RunId, bool)> = self
            .runs
            .values()
            .filter(|run| run.captured || (run.is_live() && run.pidfd.is_some()))
            .map(|run| (run.id, run.stdin.is_some()))
            .collect();
        let sockets = list.iter().map(|(id, _)| *id).filter(|id| self.words(*id)[0].is_some()).collect();
        let result = Ok(Answer::HandingOver { runs: list.clone(), sockets });
        self.say(number, &FromKeeper::Reply { id, result });
        self.quit = self.send_all(number, &list).is_ok();
    }

    /// Ends that wait for a worker are recorded: when it has taken what the pipe held, or after a while
    /// without that. Then the rest stays in the FIFO, which is handed over.
    pub(super) fn finish_ends(&mut self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let until = clock::boot_us() + ENDS_US;
        while self.runs.values().any(|run| matches!(run.phase, Phase::Ending { .. })) {
            let left = until.saturating_sub(clock::boot_us());
            if left == 0 {
                break;
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: i64::try_from(left * 1000).unwrap_or(0) };
            let _ = poll(&mut [PollFd::new(&self.capture.bell(), PollFlags::IN)], Some(&wait));
            self.capture_news();
        }
        self.finish_late_drains(u64::MAX);
    }

    fn send_all(&self, number: u64, list: &[(RunId, bool)]) -> io::Result<()> {
        let Some(connection) = self.links.get(number) else { return Err(io::ErrorKind::NotConnected.into()) };
        let stream = UnixStream::from(connection.fd().try_clone_to_owned()?);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        for (id, _) in list {
            let Some(run) = self.runs.get(id) else { continue };
            let fds = [run.pidfd.as_ref(), run.stdin.as_ref()].map(|fd| fd.map(AsFd::as_fd));
            let fds: Vec<_> = fds.into_iter().chain([self.words(*id)[0]]).flatten().collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // An ended run has no more than its FIFOs, which have names.
            let _ = !fds.is_empty() && control.push(SendAncillaryMessage::ScmRights(&fds));
            sendmsg(&stream, &[IoSlice::new(id.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        }
        let mut byte = [0];
        let answered = io::Read::read_exact(&mut &stream, &mut byte);
        // The description is shared with the loop, which goes on if this failed.
        stream.set_nonblocking(true)?;
        answered
    }
}

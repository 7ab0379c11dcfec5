//! What init and its two children say to each other: fixed-size messages on sequenced-packet sockets.
//!
//! Fixed size and plain integers, so that init reads and writes them without allocating. Descriptors
//! travel beside a message where [`FDS_STDOUT`] and its neighbours say so, in the order of their bits: who
//! does not know a bit does not miss what comes before it.
//!
//! Version 1. A message of an unknown kind is ignored.

pub use crate::core::ids::RunId;

/// Length of every message in bytes.
pub const BYTES: usize = 64;
/// Where the pid stands in a message; the child of a start writes its own there.
pub const PID_AT: usize = 4;

/// The read end of the stdout FIFO travels with the message.
pub const FDS_STDOUT: u8 = 1;
/// The read end of the stderr FIFO travels with the message.
pub const FDS_STDERR: u8 = 2;
/// The keeper's end of the stdin FIFO travels with the message.
pub const FDS_STDIN: u8 = 4;
/// A descriptor of the main process travels with the message: of a run that is no child of init, so that
/// how it ends can be told though the keeper dies at that moment (Linux 6.15).
pub const FDS_PIDFD: u8 = 8;
/// The socket that the run tells things to travels with the message.
pub const FDS_NOTIFY: u8 = 16;
/// The read end of the FIFO by which the run says that it is ready travels with the message.
pub const FDS_READY: u8 = 32;

/// Descriptors of one run that init holds: all of the above but that of its process, in their order.
pub const HELD: usize = 5;

/// Slot for the accepted configuration, a memory file.
pub const HOLD_CONFIG: i32 = 0;
/// Slot for the listening control socket: clients that connect while there is no supervisor wait for the
/// next one instead of being refused.
pub const HOLD_LISTENER: i32 = 1;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A child about to claim its start (or a keeper that adopted a run) → init: hold this.
    Register = 1,
    /// Keeper → init: the end of this run is recorded, reap it.
    Ack = 2,
    /// Keeper → init: nothing of this run is left, let go of its descriptors.
    Release = 3,
    /// Init → a new keeper: a run that is held, with its descriptors.
    Entry = 4,
    /// Init → a new keeper: that was all.
    EntriesEnd = 5,
    /// Init → keeper: this run's main process has ended and waits to be reaped.
    Exited = 6,
    /// Init → supervisor: an operator's signal asks for the instance to end.
    Shutdown = 7,
    /// Init → supervisor: an operator's signal asks for the configuration to be read again.
    Reload = 8,
    /// Supervisor → init: end the instance with the exit code in `status`; the jobs are stopped, or to be
    /// kept if `code` is 1.
    Exit = 9,
    /// Supervisor → init: it is at work; deaths before this count as failed starts.
    Ready = 10,
    /// Supervisor → init: hold this descriptor for the next supervisor, in the slot `status`
    /// ([`HOLD_CONFIG`], [`HOLD_LISTENER`]). Replaces what the slot held.
    Hold = 11,
    /// Init → keeper: end; the instance is over.
    Quit = 12,
    /// Supervisor → init: replace yourself by a fresh copy of the same executable.
    Reexec = 13,
}

/// One message. Fields that a kind does not use are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// Which descriptors travel with it.
    pub fds: u8,
    /// Bits for `Register` and `Entry`: 1 = a child of init, 2 = its end has been acknowledged.
    pub flags: u8,
    /// Main process.
    pub pid: i32,
    /// The run.
    pub run: RunId,
    /// `CLD_EXITED`, `CLD_KILLED`, `CLD_DUMPED`.
    pub code: i32,
    /// Exit code or signal.
    pub status: i32,
    /// User CPU time, microseconds.
    pub user_us: u64,
    /// System CPU time, microseconds.
    pub system_us: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
}

/// Flag: a child of this init.
pub const CHILD: u8 = 1;
/// Flag: its end has been acknowledged and it was reaped.
pub const ACKED: u8 = 2;

impl Message {
    /// A message with everything else 0.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            fds: 0,
            flags: 0,
            pid: 0,
            run: RunId::from_bytes([0; 16]),
            code: 0,
            status: 0,
            user_us: 0,
            system_us: 0,
            max_rss_kib: 0,
        }
    }

    /// A message about a run.
    #[must_use]
    pub const fn about(kind: Kind, run: RunId, pid: i32) -> Self {
        let mut message = Self::new(kind);
        message.run = run;
        message.pid = pid;
        message
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] = self.fds;
        bytes[2] = self.flags;
        bytes[PID_AT..8].copy_from_slice(&self.pid.to_le_bytes());
        bytes[8..24].copy_from_slice(self.run.as_bytes());
        bytes[24..28].copy_from_slice(&self.code.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.status.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.user_us.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.system_us.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.max_rss_kib.to_le_bytes());
        bytes
    }

    /// From bytes; `None` for another length or an unknown kind.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let kind = match bytes[0] {
            1 => Kind::Register,
            2 => Kind::Ack,
            3 => Kind::Release,
            4 => Kind::Entry,
            5 => Kind::EntriesEnd,
            6 => Kind::Exited,
            7 => Kind::Shutdown,
            8 => Kind::Reload,
            9 => Kind::Exit,
            10 => Kind::Ready,
            11 => Kind::Hold,
            12 => Kind::Quit,
            13 => Kind::Reexec,
            _ => return None,
        };
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let long = |at: usize| {
            let (low, high) = (u32::from_le_bytes(word(at)), u32::from_le_bytes(word(at + 4)));
            u64::from(low) | u64::from(high) << 32
        };
        let mut run = [0; 16];
        run.copy_from_slice(&bytes[8..24]);
        Some(Self {
            kind,
            fds: bytes[1],
            flags: bytes[2],
            pid: i32::from_le_bytes(word(PID_AT)),
            run: RunId::from_bytes(run),
            code: i32::from_le_bytes(word(24)),
            status: i32::from_le_bytes(word(28)),
            user_us: long(32),
            system_us: long(40),
            max_rss_kib: long(48),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_survives_and_garbage_is_nothing() {
        let message = Message {
            kind: Kind::Exited,
            fds: 7,
            flags: 3,
            pid: -5,
            run: RunId::from_bytes([9; 16]),
            code: 1,
            status: 137,
            user_us: u64::MAX,
            system_us: 1 << 40,
            max_rss_kib: 77,
        };
        assert_eq!(Message::decode(&message.encode()), Some(message));
        assert_eq!(Message::decode(&[0; BYTES]), None);
        assert_eq!(Message::decode(&[255; BYTES]), None);
        assert_eq!(Message::decode(b"short"), None);
    }
}

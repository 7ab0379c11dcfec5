//! A file whose every write and flush is recorded: the backing of a loop device.
//!
//! It lies in memory and is served by FUSE, as much of that as one file needs. The kernel's loop driver turns
//! each block that is written into a write of this file and each flush into a sync of it, so the record is
//! what a disk would have seen, in order.
#![allow(unsafe_code, reason = "mount(2) with a descriptor has no safe interface here")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::common::{Daemon, skip};

/// Something that the disk has seen, or that was answered by then.
#[derive(Debug, Clone)]
pub enum Op {
    Write(usize, Vec<u8>),
    Flush,
    /// So many answers had been given.
    Answers(usize),
}

#[derive(Debug, Default)]
struct Tape {
    bytes: Vec<u8>,
    /// Since recording began.
    ops: Option<Vec<Op>>,
}

/// The file, and what happened to it.
#[derive(Debug, Clone)]
pub struct Recorder {
    tape: Arc<Mutex<Tape>>,
    /// Where the file is.
    pub file: PathBuf,
}

const ROOT: u64 = 1;
const NODE: u64 = 2;
const NAME: &[u8] = b"disk\0";
/// Longest write in one request.
const WRITE_MAX: usize = 128 << 10;

// What the kernel asks for.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const RELEASEDIR: u32 = 29;
const BATCH_FORGET: u32 = 42;

impl Recorder {
    /// Serves a file with this content in the instance's directory. `None` where FUSE cannot be had.
    pub fn serve(daemon: &mut Daemon, content: Vec<u8>) -> Option<Self> {
        let device = match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Ok(device) => device,
            Err(error) => {
                skip(&format!("/dev/fuse: {error}"));
                return None;
            }
        };
        let at = daemon.path("recorder");
        fs::create_dir(&at).unwrap();
        if let Err(error) = mount(&device, &at) {
            skip(&format!("FUSE cannot be mounted here: {error}"));
            return None;
        }
        daemon.unmount.insert(0, at.clone());
        let this =
            Self { tape: Arc::new(Mutex::new(Tape { bytes: content, ops: None })), file: at.join("disk") };
        let server = this.clone();
        // Ends when the file system is unmounted, which nobody has to wait for.
        std::thread::spawn(move || server.answer(device));
        Some(this)
    }

    fn lock(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to record; what is there by now.
    pub fn record(&self) -> Vec<u8> {
        let mut tape = self.lock();
        tape.ops = Some(Vec::new());
        tape.bytes.clone()
    }

    /// Notes that so many answers have been given.
    pub fn answered(&self, count: usize) {
        if let Some(ops) = &mut self.lock().ops {
            ops.push(Op::Answers(count));
        }
    }

    /// Ends recording.
    pub fn take(&self) -> Vec<Op> {
        self.lock().ops.take().unwrap_or_default()
    }

    fn answer(&self, mut device: File) {
        let mut request = vec![0; WRITE_MAX + 4096];
        while let Ok(length) = device.read(&mut request) {
            let Some((head, body)) = request[..length].split_at_checked(40) else { return };
            let (opcode, unique, node) = (number32(head, 4), number64(head, 8), number64(head, 16));
            if matches!(opcode, FORGET | BATCH_FORGET) {
                continue;
            }
            let (error, body) = match self.one(opcode, node, body) {
                Ok(body) => (0, body),
                Err(error) => (error, Vec::new()),
            };
            let mut reply = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
            reply.extend((-error).to_ne_bytes());
            reply.extend(unique.to_ne_bytes());
            reply.extend(body);
            // The request may have been given up meanwhile.
            let _ = device.write(&reply);
        }
    }

    fn one(&self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        match opcode {
            INIT => Ok(init()),
            LOOKUP if body == NAME => {
                let mut entry = Vec::new();
                entry.extend([NODE, 0, 0, 0, 0].iter().flat_map(|n| n.to_ne_bytes()));
                entry.extend(self.attributes(NODE));
                Ok(entry)
            }
            LOOKUP => Err(libc::ENOENT),
            GETATTR | SETATTR => {
                let mut reply = vec![0; 16];
                reply.extend(self.attributes(node));
                Ok(reply)
            }
            OPEN | OPENDIR => Ok(vec![0; 16]),
            READ => {
                let tape = self.lock();
                let from = usize::try_from(number64(body, 8)).unwrap().min(tape.bytes.len());
                let to = (from + number32(body, 16) as usize).min(tape.bytes.len());
                Ok(tape.bytes[from..to].to_vec())
            }
            WRITE => {
                let (from, data) = (usize::try_from(number64(body, 8)).unwrap(), &body[40..]);
                let mut tape = self.lock();
                let place = tape.bytes.get_mut(from..from + data.len()).ok_or(libc::ENOSPC)?;
                place.copy_from_slice(data);
                if let Some(ops) = &mut tape.ops {
                    ops.push(Op::Write(from, data.to_vec()));
                }
                Ok((data.len() as u64).to_ne_bytes().to_vec())
            }
            FSYNC => {
                if let Some(ops) = &mut self.lock().ops {
                    ops.push(Op::Flush);
                }
                Ok(Vec::new())
            }
            RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        }
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let size = if node == ROOT { 0 } else { self.lock().bytes.len() as u64 };
        let mode = if node == ROOT { libc::S_IFDIR | 0o700 } else { libc::S_IFREG | 0o600 };
        let mut bytes: Vec<u8> =
            [node, size, size.div_ceil(512), 0, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        bytes.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].iter().flat_map(|n: &u32| n.to_ne_bytes()));
        bytes
    }
}

/// `struct fuse_init_out`: version 7.31, writes of more than one page.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let pages = u16::try_from(WRITE_MAX / 4096).unwrap();
    let mut out: Vec<u8> =
        [7, 31, 0, BIG_WRITES | MAX_PAGES].iter().flat_map(|n: &u32| n.to_ne_bytes()).collect();
    out.extend([16_u16, 12].iter().flat_map(|n| n.to_ne_bytes()));
    out.extend([u32::try_from(WRITE_MAX).unwrap(), 1].iter().flat_map(|n| n.to_ne_bytes()));
    out.extend([pages, 0].iter().flat_map(|n| n.to_ne_bytes()));
    out.resize(64, 0);
    out
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn mount(device: &File, at: &Path) -> std::io::Result<()> {
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let text = |text: &str| CString::new(text).unwrap();
    let (source, at, kind, options) =
        (text("recorder"), text(at.to_str().unwrap()), text("fuse"), text(&options));
    // SAFETY: all are strings that live on.
    let done = unsafe {
        libc::mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), libc::MS_NODEV, options.as_ptr().cast())
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// What the disk holds after the first `count` operations.
pub fn play(base: &[u8], ops: &[Op], mut keep: impl FnMut(usize) -> Kept) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for (n, op) in ops.iter().enumerate() {
        if let Op::Write(from, data) = op {
            match keep(n) {
                Kept::All => bytes[*from..from + data.len()].copy_from_slice(data),
                Kept::Some(sectors) => {
                    let length = (sectors * 512).min(data.len());
                    bytes[*from..from + length].copy_from_slice(&data[..length]);
                }
            }
        }
    }
    bytes
}

/// How much of a write has reached the disk.
#[derive(Debug, Clone, Copy)]
pub enum Kept {
    All,
    /// So many sectors from its beginning.
    Some(usize),
}

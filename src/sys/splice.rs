//! Moving bytes out of a pipe without ever holding them.
//!
//! `splice(2)` from a pipe to a file writes the pipe's pages to the file and only then takes them off the
//! pipe, within one call that a signal cannot split: a process killed at any instruction has either moved a
//! byte or not. (A read followed by a write loses what lies between the two.) The file position must be
//! given, because a file opened with `O_APPEND` is refused with `EINVAL`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, splice, tee};

/// What moved, or what there was to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The pipe is empty and somebody can still write to it.
    Nothing,
    /// The pipe is empty and nobody has it open for writing.
    End,
}

impl Moved {
    fn from(result: rustix::io::Result<usize>) -> io::Result<Self> {
        match result {
            Ok(0) => Ok(Self::End),
            Ok(n) => Ok(Self::Bytes(n)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Self::Nothing),
            Err(e) => Err(e.into()),
        }
    }
}

/// Moves up to `len` bytes from the pipe to position `offset` of the file.
///
/// An error says that the file took nothing at all (no space, read-only, …); the bytes are still in the pipe.
/// Fewer bytes than asked for mean that the pipe is empty now, or that the file refused the rest.
pub fn to_file(pipe: impl AsFd, file: impl AsFd, offset: u64, len: usize) -> io::Result<Moved> {
    let mut at = offset;
    Moved::from(splice(pipe, None, file, Some(&mut at), len, SpliceFlags::NONBLOCK))
}

/// Throws up to `len` bytes away. `null` is `/dev/null`, open for writing.
pub fn to_null(pipe: impl AsFd, null: impl AsFd, len: usize) -> io::Result<Moved> {
    Moved::from(splice(pipe, None, null, None, len, SpliceFlags::NONBLOCK))
}

/// A look at what waits in a pipe, without taking it.
#[derive(Debug)]
pub struct Peek {
    out: File,
    into: OwnedFd,
    buf: Vec<u8>,
}

impl Peek {
    /// How much can be seen at once, in bytes: the default capacity of a pipe.
    pub const MAX: usize = 64 * 1024;

    /// Makes the private pipe that looks go through.
    pub fn new() -> io::Result<Self> {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { out: out.into(), into, buf: vec![0; Self::MAX] })
    }

    /// How many of the first `max` waiting bytes make up the rest of a line, its line end included.
    ///
    /// Without a line end in sight it is all that can be seen. Only a sole reader may rely on the answer.
    pub fn line_end(&mut self, pipe: impl AsFd, max: usize) -> io::Result<Moved> {
        let len = match Moved::from(tee(pipe, &self.into, max.min(Self::MAX), SpliceFlags::NONBLOCK))? {
            Moved::Bytes(n) => n,
            other => return Ok(other),
        };
        // The private pipe holds exactly these bytes: nobody else writes to it, and it is empty between looks.
        let seen = self.buf.get_mut(..len).unwrap_or(&mut []);
        (&self.out).read_exact(seen)?;
        let line = seen.iter().position(|&b| b == b'\n').map_or(len, |at| at + 1);
        Ok(Moved::Bytes(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peek_takes_nothing_and_finds_the_line_end() {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut peek = Peek::new().unwrap();
        assert_eq!(peek.line_end(&out, 100).unwrap(), Moved::Nothing);
        rustix::io::write(&into, b"ab\ncd").unwrap();
        for _ in 0..3 {
            assert_eq!(peek.line_end(&out, 100).unwrap(), Moved::Bytes(3));
        }
        assert_eq!(peek.line_end(&out, 2).unwrap(), Moved::Bytes(2));
        let file = tempfile::tempfile().unwrap();
        assert_eq!(to_file(&out, &file, 0, 3).unwrap(), Moved::Bytes(3));
        assert_eq!(peek.line_end(&out, 100).unwrap(), Moved::Bytes(2));
        drop(into);
        let null = crate::sys::disk::open_rw(std::path::Path::new("/dev/null")).unwrap();
        assert_eq!(to_null(&out, &null, 100).unwrap(), Moved::Bytes(2));
        assert_eq!(to_null(&out, &null, 100).unwrap(), Moved::End);
    }
}

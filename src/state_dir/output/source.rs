//! The bytes of one segment, plain or compressed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::Series;
use crate::sys::disk;

/// An open segment. It stays readable after its file was deleted.
pub(super) enum Source {
    /// As written.
    Plain(File),
    /// A decompressor that has given `at` bytes so far. It can only go on, and reading it in order costs
    /// no more than decompressing once.
    Packed { at: u64, bytes: Box<MultiGzDecoder<BufReader<File>>> },
}

impl Source {
    /// Opens the plain file, or else the compressed one; `None` if neither is there.
    pub(super) fn open(dir: &Path, series: Series, start: u64) -> io::Result<Option<Self>> {
        match disk::open_read(&series.plain(dir, start)) {
            Ok(file) => return Ok(Some(Self::Plain(file))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        match disk::open_read(&series.compressed(dir, start)) {
            Ok(file) => {
                let bytes = Box::new(MultiGzDecoder::new(BufReader::new(file)));
                Ok(Some(Self::Packed { at: 0, bytes }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether a read at `skip` needs no second opening.
    pub(super) fn can_go_to(&self, skip: u64) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Packed { at, .. } => *at <= skip,
        }
    }

    /// Up to `max` bytes from `skip` on; empty at the end.
    pub(super) fn read(&mut self, skip: u64, max: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(file) => {
                let left = file.metadata()?.len().saturating_sub(skip);
                let mut data = vec![0; max.min(usize::try_from(left).unwrap_or(max))];
                let mut got = 0;
                while got < data.len() {
                    match file.read_at(&mut data[got..], skip + got as u64) {
                        Ok(0) => break,
                        Ok(n) => got += n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                data.truncate(got);
                Ok(data)
            }
            Self::Packed { at, bytes } => {
                if *at < skip {
                    *at += io::copy(&mut bytes.by_ref().take(skip - *at), &mut io::sink())?;
                }
                let mut data = Vec::new();
                if *at == skip {
                    *at += bytes.by_ref().take(max as u64).read_to_end(&mut data)? as u64;
                }
                Ok(data)
            }
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(file) => f.debug_tuple("Plain").field(file).finish(),
            Self::Packed { at, .. } => f.debug_struct("Packed").field("at", at).finish_non_exhaustive(),
        }
    }
}

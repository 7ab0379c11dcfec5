//! The only way from here to files, so that a test can put a disk in between that loses what was not
//! synced and refuses whatever it likes.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use crate::sys::disk;

/// What the event log and its checkpoints ask of a file system.
pub trait Fs: Debug + Send + Sync {
    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// If it cannot be read, or is not there.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// If it cannot be read, or is not there.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// A file from its beginning.
    ///
    /// # Errors
    /// If it cannot be read, or is not there.
    fn reader(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>>;

    /// A file to read here and there.
    ///
    /// # Errors
    /// If it cannot be read, or is not there.
    fn random(&self, path: &Path) -> io::Result<Box<dyn ReadAt>>;

    /// The length of a file.
    ///
    /// # Errors
    /// If it is not there.
    fn size(&self, path: &Path) -> io::Result<u64>;

    /// A new, empty file to append to; one that has the name is emptied.
    ///
    /// # Errors
    /// If the disk refuses.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appending>>;

    /// Makes the content of a file durable that another process has written.
    ///
    /// # Errors
    /// If the disk refuses.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// If the disk refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// If the disk refuses, or it is not there.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// If the disk refuses.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// If the file system does not tell.
    fn free(&self, dir: &Path) -> io::Result<u64>;

    /// Makes a directory, with a durable name; fine if it is there.
    ///
    /// # Errors
    /// If the disk refuses.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is read here and there. It stays readable when its name is gone.
pub trait ReadAt: Debug + Send + Sync {
    /// Reads at an offset, like `pread(2)`: how many bytes; 0 at the end.
    ///
    /// # Errors
    /// If the disk refuses.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A file that grows.
pub trait Appending: Debug + Send {
    /// Puts bytes at the end. A part of them may be there after an error.
    ///
    /// # Errors
    /// If the disk refuses any of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// If the disk refuses. What was appended since the last sync is then nowhere for sure, and another
    /// sync proves nothing.
    fn sync(&mut self) -> io::Result<()>;

    /// Takes space for the first `len` bytes; the file grows to that length.
    ///
    /// # Errors
    /// If there is not enough.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl RealFs {
    /// When a file was last written, in microseconds since 1970.
    pub(super) fn modified_us(path: &Path) -> Option<i64> {
        let at = std::fs::metadata(path).ok()?.modified().ok()?;
        i64::try_from(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_micros()).ok()
    }
}

impl Fs for RealFs {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn reader(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(disk::open_read(path)?))
    }

    fn random(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(disk::open_read(path)?))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        Ok(Box::new(RealFile(disk::create_or_truncate(path, 0o600)?)))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        disk::sync_data(&disk::open_rw(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        disk::sync_dir(dir)
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        disk::free(dir)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => dir.parent().map_or(Ok(()), disk::sync_dir),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl ReadAt for std::fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
}

#[derive(Debug)]
struct RealFile(std::fs::File);

impl Appending for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.0, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        disk::sync_data(&self.0)
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        disk::preallocate(&self.0, len)
    }
}

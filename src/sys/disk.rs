//! Files and directories: the calls that the standard library does not have, or whose flags matter.
//!
//! Everything is opened close-on-exec and never through a symbolic link in its last part: our directories
//! are private, so a link there was not put by us.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps};

fn open(path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(fs::open(path, flags, Mode::from_raw_mode(mode))?.into())
}

/// Creates a file for reading and writing. Fails with `AlreadyExists` if anything has that name.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    open(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)
}

/// Opens a file for reading and writing, creating it empty if it is missing and keeping what is in it.
pub fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    open(path, OFlags::RDWR | OFlags::CREATE, mode)
}

/// Creates a file for writing, or empties the one that is there.
pub fn create_or_truncate(path: &Path, mode: u32) -> io::Result<File> {
    open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, mode)
}

/// Opens an existing file for reading and writing.
pub fn open_rw(path: &Path) -> io::Result<File> {
    open(path, OFlags::RDWR, 0)
}

/// Opens an existing file for reading. Never waits, even if the name turns out to be a FIFO.
pub fn open_read(path: &Path) -> io::Result<File> {
    open(path, OFlags::RDONLY | OFlags::NONBLOCK, 0)
}

/// Makes sure that the first `len` bytes can be written on a full disk; the file grows to `len` bytes.
///
/// Where the file system cannot reserve, zeros are written, which reserves as well on anything but a
/// copy-on-write file system.
pub fn preallocate(file: &File, len: u64) -> io::Result<()> {
    match fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0u8; usize::try_from(len).unwrap_or(0)];
            std::os::unix::fs::FileExt::write_all_at(file, &zeros, 0)
        }
        Err(e) => Err(e.into()),
    }
}

/// Which kind of file system a path is on: the number that statfs(2) gives.
pub fn kind(path: &Path) -> io::Result<i64> {
    // The type of the field differs from one architecture to the next.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "see above")]
    let kind = i64::try_from(fs::statfs(path)?.f_type).unwrap_or(-1);
    Ok(kind)
}

/// The options of the file system that a path is on, as mountinfo has them.
pub fn mount_options(path: &Path) -> io::Result<String> {
    let device = fs::stat(path)?.st_dev;
    let device = format!("{}:{}", fs::major(device), fs::minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(options_of(&table, &device).unwrap_or_default().to_owned())
}

/// The last field of the line of mountinfo with this device.
fn options_of<'t>(table: &'t str, device: &str) -> Option<&'t str> {
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    line.rsplit(' ').next()
}

/// Gives the blocks of the first `len` bytes back to the disk; the size stays and the bytes read as zero.
pub fn punch_head(file: &File, len: u64) -> io::Result<()> {
    Ok(fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, len)?)
}

/// Sets the modification time of `path` to now, without changing its content.
pub fn touch(path: &Path) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    Ok(fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the modification time of `path`, in microseconds since 1970.
pub fn set_modified_us(path: &Path, us: u64) -> io::Result<()> {
    let at = Timespec {
        tv_sec: i64::try_from(us / 1_000_000).unwrap_or(0),
        tv_nsec: i64::try_from(us % 1_000_000).unwrap_or(0) * 1000,
    };
    let same = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    let times = Timestamps { last_access: same, last_modification: at };
    Ok(fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The modification time of `path`, in microseconds since 1970.
pub fn modified_us(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let meta = path.symlink_metadata()?;
    let (seconds, nanos) = (u64::try_from(meta.mtime()), u64::try_from(meta.mtime_nsec()));
    Ok(seconds.unwrap_or(0).saturating_mul(1_000_000).saturating_add(nanos.unwrap_or(0) / 1000))
}

/// Waits until the content of a file, and its size, are on the disk.
pub fn sync_data(file: impl AsFd) -> io::Result<()> {
    Ok(fs::fdatasync(file)?)
}

/// Waits until the names in a directory are on the disk.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fs::fsync(dir)?)
}

/// Bytes that can still be written to the file system of this directory.
pub fn free(dir: &Path) -> io::Result<u64> {
    let stat = fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Renames, and fails with `AlreadyExists` rather than replace anything.
///
/// Where the file system does not know how to refuse (some network ones), the check and the rename are two
/// steps.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(from, to)
        }
        Err(e) => Err(e.into()),
    }
}

/// Our effective user id.
#[must_use]
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_device() {
        let table = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                     30 22 0:27 / /x rw shared:3 - overlay overlay rw,lowerdir=/a,volatile\n";
        assert_eq!(options_of(table, "0:27"), Some("rw,lowerdir=/a,volatile"));
        assert_eq!((options_of(table, "254:0"), options_of(table, "0:2")), (Some("rw,discard"), None));
        let here = std::env::temp_dir();
        assert!(kind(&here).unwrap() > 0 && mount_options(&here).is_ok());
    }

    use std::os::unix::fs::MetadataExt;

    #[test]
    fn create_new_refuses_names_in_use_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        create_new(&path, 0o600).unwrap();
        assert_eq!(create_new(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let link = dir.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open_or_create(&link, 0o600).is_err());
        assert_eq!(rename_new(&link, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn preallocated_bytes_can_be_punched_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = create_new(&dir.path().join("a"), 0o600).unwrap();
        preallocate(&file, 8192).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
        punch_head(&file, 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
    }

    #[test]
    fn touch_moves_the_modification_time_to_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = create_new(&path, 0o600).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(path.metadata().unwrap().mtime(), 0);
        touch(&path).unwrap();
        assert!(path.metadata().unwrap().mtime() > 1_600_000_000);
        assert!(touch(&dir.path().join("missing")).is_err());
    }
}

//! Replacing a whole file: a reader sees the old content or the new one, never a part.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::disk;

/// Writes `bytes` to `path`, durably: after an `Ok` the new content survives a power cut.
///
/// Temporary file in the same directory, data sync, rename, directory sync. On an error the old content is
/// untouched, unless only the last sync failed: then either content may be there after a power cut.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put(path, &temp_for(path, "")?, bytes, mode, true)?;
    disk::sync_dir(parent(path))
}

/// The same for a file that several processes may write at the same time: each has a temporary file of its
/// own, and the last one is right.
pub fn write_among_others(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let own = std::process::id().to_string();
    put(path, &temp_for(path, &own)?, bytes, mode, true)?;
    disk::sync_dir(parent(path))
}

/// The same without syncs, for files that need to survive only the death of processes: a power cut may
/// leave the old content, or an empty file.
pub fn write_unsynced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put(path, &temp_for(path, "")?, bytes, mode, false)
}

/// Longest file that [`write_new`] writes in place: one page, which no signal can split.
const IN_PLACE: usize = 4096;

/// Writes a file that should not be there yet, for readers of our own, who take an empty file for none.
///
/// Saves the temporary file and the renaming. Who dies in the middle of it leaves an empty file.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if bytes.len() <= IN_PLACE {
        match disk::create_new(path, mode) {
            Ok(mut file) => {
                return file.write_all(bytes).inspect_err(|_| {
                    let _ = std::fs::remove_file(path);
                });
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    put(path, &temp_for(path, "")?, bytes, mode, false)
}

/// Makes `link` point to `target`, replacing the link that is there in one step.
pub fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    match std::os::unix::fs::symlink(target, link) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let temp = temp_for(link, "")?;
    match std::fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &temp)?;
    std::fs::rename(&temp, link)
}

fn put(path: &Path, temp: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let written = (|| {
        let mut file = disk::create_or_truncate(temp, mode)?;
        file.write_all(bytes)?;
        if sync {
            disk::sync_data(&file)?;
        }
        std::fs::rename(temp, path)
    })();
    if written.is_err() {
        // Space is what is missing most often: give back what the attempt took. The first error matters.
        let _ = std::fs::remove_file(temp);
    }
    written
}

/// `.<name><own>.tmp` beside the file: hidden, and with a fixed name, so that a crash leaves at most one.
fn temp_for(path: &Path, own: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temp = OsString::from(".");
    temp.push(name);
    temp.push(own);
    temp.push(".tmp");
    Ok(path.with_file_name(temp))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_the_whole_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, b"a long first content", 0o600).unwrap();
        write(&path, b"short", 0o600).unwrap();
        write_unsynced(&path, b"shorter still", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"shorter still");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_is_written_in_place_and_one_that_is_there_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for bytes in [vec![1; IN_PLACE], vec![2; 3], vec![3; IN_PLACE + 1]] {
            write_new(&path, &bytes, 0o600).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_left_over_temporary_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        disk::create_new(&dir.path().join(".a.tmp"), 0o600).unwrap().write_all(b"half of a long").unwrap();
        write(&path, b"whole", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x", 0o600).is_err());
        assert!(path.is_dir());
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        assert!(write(Path::new("/"), b"x", 0o600).is_err());
    }

    #[test]
    fn links_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        for target in ["one", "two"] {
            symlink(Path::new(target), &link).unwrap();
            assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}

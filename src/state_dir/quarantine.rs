//! Setting aside what cannot be read: kept and reported, never deleted, never blocking the rest.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::atomic;
use super::layout::StateDir;
use crate::sys::disk;

/// Gives up after this many taken names; nothing of ours fails so often.
const MOST: u32 = 10_000;

/// Moves a file or directory into `quarantine/` and puts `<name>.why` beside it. Returns where it is now.
///
/// The name is that of the directory it was in and its own, joined by a dash: `<run id>-exit.json`. A
/// number follows where that is taken. The reason is written first: who dies in between leaves a reason
/// without a file, and the file where it was.
pub fn set_aside(state: &StateDir, path: &Path, why: &str) -> io::Result<PathBuf> {
    let base = name_for(path)?;
    let dir = state.quarantine();
    super::layout::private_dir_all(&dir)?;
    for n in 0..MOST {
        let mut name = base.clone();
        if n > 0 {
            name.push(format!(".{n}"));
        }
        let to = dir.join(&name);
        if to.symlink_metadata().is_ok() {
            continue;
        }
        name.push(".why");
        let text = format!("{}\n{why}\n", path.display());
        atomic::write_unsynced(&dir.join(&name), text.as_bytes(), 0o600)?;
        match disk::rename_new(path, &to) {
            Ok(()) => return Ok(to),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                let _ = std::fs::remove_file(dir.join(&name));
                return Err(e);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn name_for(path: &Path) -> io::Result<OsString> {
    let own = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut name = OsString::new();
    if let Some(parent) = path.parent().and_then(Path::file_name) {
        name.push(parent);
        name.push("-");
    }
    name.push(own);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_everything_under_unique_names_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("s")).unwrap();
        let bad = state.runs().join("r1/exit.json");
        std::fs::create_dir(state.runs().join("r1")).unwrap();
        let mut places = Vec::new();
        for content in ["one", "two", "three"] {
            atomic::write(&bad, content.as_bytes(), 0o600).unwrap();
            places.push(set_aside(&state, &bad, "no JSON").unwrap());
            assert!(!bad.exists());
        }
        assert_eq!(places[0], state.quarantine().join("r1-exit.json"));
        for (place, content) in places.iter().zip(["one", "two", "three"]) {
            assert_eq!(std::fs::read_to_string(place).unwrap(), content);
            let why = std::fs::read_to_string(format!("{}.why", place.display())).unwrap();
            assert!(why.contains("no JSON") && why.contains("r1/exit.json"), "{why}");
        }
    }

    #[test]
    fn what_is_not_there_cannot_be_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("s")).unwrap();
        let e = set_aside(&state, &state.runs().join("missing"), "x").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
        assert_eq!(state.quarantine().read_dir().unwrap().count(), 0);
    }
}

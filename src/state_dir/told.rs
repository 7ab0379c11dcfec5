//! The latest beat of a run, kept in the modification time of its `told.json`.
//!
//! A run may say that it is well many times a second, and each time has to outlive us. So no file is written
//! for it: the modification time becomes the boot clock at the beat. A file that has just been written has
//! the time of day there, which is decades ahead of a boot clock; then the beat is in the file.

use std::io;

use super::layout::RunRuntime;
use crate::core::time::Stamp;
use crate::sys::disk;

impl RunRuntime {
    /// Keeps a beat of this moment, in microseconds of the boot clock. The file must be there.
    pub fn mark_beat(&self, boot_us: u64) -> io::Result<()> {
        disk::set_modified_us(&self.told(), boot_us)
    }

    /// The beat that was kept since the file was last written, if one was. One that would be later than
    /// `now` is of another boot.
    #[must_use]
    pub fn marked_beat(&self, now: Stamp) -> Option<Stamp> {
        let boot_us = disk::modified_us(&self.told()).ok()?;
        let ago = i64::try_from(now.boot_us.checked_sub(boot_us)?).ok()?;
        Some(Stamp { boot_us, wall_us: now.wall_us - ago })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::atomic;

    #[test]
    fn a_beat_is_kept_until_the_file_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunRuntime(dir.path().to_owned());
        let now = Stamp { boot_us: 5_000_011, wall_us: 1_700_000_000_000_017 };
        assert!(run.mark_beat(5_000_001).is_err(), "there is no file");
        assert_eq!(run.marked_beat(now), None);
        atomic::write_unsynced(&run.told(), b"{}", 0o600).unwrap();
        assert_eq!(run.marked_beat(now), None);
        run.mark_beat(5_000_001).unwrap();
        assert_eq!(std::fs::read(run.told()).unwrap(), b"{}");
        let beat = Stamp { boot_us: 5_000_001, wall_us: 1_700_000_000_000_007 };
        assert_eq!(run.marked_beat(now), Some(beat));
        assert_eq!(run.marked_beat(Stamp { boot_us: 5_000_000, wall_us: 0 }), None);
        atomic::write_unsynced(&run.told(), b"{}", 0o600).unwrap();
        assert_eq!(run.marked_beat(now), None);
    }
}

//! How much of the host is in use.

use std::path::Path;

/// How full the file system of a path is for those without privileges, in percent. Blocks where the disk does not
/// answer.
#[must_use]
pub fn disk_used_percent(path: &Path) -> Option<f64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let used = stat.f_blocks.checked_sub(stat.f_bfree)?;
    percent(used, used.checked_add(stat.f_bavail)?)
}

/// How much of the memory is in use and cannot be given back, in percent: what `MemAvailable` leaves.
#[must_use]
pub fn memory_used_percent() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let total = field("MemTotal:")?;
    percent(total.checked_sub(field("MemAvailable:")?)?, total)
}

fn percent(part: u64, of: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    (of > 0).then(|| part as f64 * 100.0 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_between_nothing_and_all() {
        for percent in [disk_used_percent(Path::new("/")), memory_used_percent()] {
            let percent = percent.unwrap();
            assert!((0.0..=100.0).contains(&percent), "{percent}");
        }
        assert_eq!(disk_used_percent(Path::new("/no/such/path")), None);
    }
}

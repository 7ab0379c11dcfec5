//! What the state directory stands on: where the kernel cannot keep what we were told is durable, that is said
//! once, at the start.

use std::path::Path;

use crate::sys::disk;

const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
const OVERLAYFS: i64 = 0x794c_7630;
const NFS: i64 = 0x6969;
const FUSE: i64 = 0x6573_5546;
const SMB: [i64; 2] = [0xff53_4d42, 0xfe53_4d42];

/// What is doubtful about it, in words.
pub(super) fn look(state_dir: &Path) -> Option<String> {
    let kind = disk::kind(state_dir).ok()?;
    let why = doubt(kind, || disk::mount_options(state_dir).unwrap_or_default())?;
    Some(format!("the state directory {} {why}", state_dir.display()))
}

fn doubt(kind: i64, options: impl FnOnce() -> String) -> Option<&'static str> {
    match kind {
        TMPFS | RAMFS => Some("is in memory: nothing in it survives a reboot"),
        OVERLAYFS if options().split(',').any(|option| option == "volatile") => {
            Some("is on an overlay mounted `volatile`: nothing is ever synced, a power cut may lose anything")
        }
        NFS => Some("is on NFS: locks and syncs depend on the server"),
        FUSE => Some("is on a FUSE file system: what a sync means depends on its program"),
        smb if SMB.contains(&smb) => Some("is on SMB: locks and syncs depend on the server"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ground_that_does_not_hold_is_doubted() {
        let doubt = |kind, options: &str| doubt(kind, || options.to_owned()).unwrap_or_default();
        let ext4 = 0xef53;
        assert_eq!(doubt(ext4, "rw"), "");
        assert_eq!(doubt(OVERLAYFS, "rw,upperdir=/volatile"), "");
        assert!(doubt(OVERLAYFS, "rw,volatile").contains("volatile"));
        assert!(doubt(TMPFS, "").contains("reboot") && doubt(NFS, "").contains("NFS"));
        assert!(doubt(SMB[1], "").contains("SMB") && doubt(FUSE, "").contains("FUSE"));
    }
}

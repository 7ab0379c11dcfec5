//! Who may use the control socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tokio::net::unix::UCred;

use crate::supervisor::handle::Peer;

/// The peer as the kernel knows it, if it may ask for anything; else its user id.
///
/// Root and our own user may. Others may if they belong to the socket's group: the file mode proves that
/// where it lets the group in and others not, and elsewhere the peer's own group id does. The file is
/// looked at for strangers only, at each connection, so that a later `chmod` or `chgrp` counts.
pub(crate) fn admit(cred: UCred, socket: Option<&Path>) -> Result<Peer, u32> {
    let uid = cred.uid();
    let peer = Peer { uid, pid: cred.pid().unwrap_or(0) };
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(peer);
    }
    let Some(meta) = socket.and_then(|path| std::fs::metadata(path).ok()) else { return Err(uid) };
    if in_group(meta.permissions().mode(), meta.gid(), cred.gid()) { Ok(peer) } else { Err(uid) }
}

/// Whether a connected peer of another user is in the socket's group. To connect is to write.
fn in_group(mode: u32, socket_gid: u32, peer_gid: u32) -> bool {
    let (group, others) = (mode & 0o020 != 0, mode & 0o002 != 0);
    group && (!others || socket_gid == peer_gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_need_the_group() {
        assert!(in_group(0o660, 5, 1), "the mode let it in, so one of its groups is the socket's");
        assert!(in_group(0o666, 5, 5));
        assert!(!in_group(0o666, 5, 1), "anybody can connect, and nothing proves the group");
        assert!(!in_group(0o600, 5, 5), "connected before the group was shut out");
    }
}

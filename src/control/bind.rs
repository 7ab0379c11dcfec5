//! Makes the control socket.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{Gid, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Longest path of a unix socket: `sun_path` has 108 bytes and the kernel wants a zero at the end.
pub const PATH_BYTES_MAX: usize = 107;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Binds and listens at `path`, with these permissions and, if given, this group. Non-blocking, close-on-exec.
///
/// A socket file on which nobody answers is a leftover of a killed supervisor and is replaced.
///
/// There is no moment at which a stranger can connect. On Linux a socket file gets the mode of the socket
/// itself (less the umask), so it is created as 0600; group and mode are set before `listen`, and until
/// then a connect is refused.
///
/// # Errors
/// `InvalidInput` for a path that is too long, `AddrInUse` if somebody answers there, `AlreadyExists` if
/// the file there is no socket; else what the kernel says. Dying in between leaves at worst a dead socket
/// file, which the next call replaces.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the socket path {} has {bytes} bytes, and the kernel allows {PATH_BYTES_MAX}: choose a \
                 shorter one with --socket or OUTLIVE_SOCKET",
                path.display()
            ),
        ));
    }
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    if let Some(group) = group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(group)))?;
    }
    rustix::fs::chmod(path, Mode::from_raw_mode(mode & 0o777))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !meta.file_type().is_socket() {
        let text = format!("{} exists and is no socket; it is left alone", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    // Non-blocking: a listener with a full queue would hold a blocking connect, and counts as alive.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(rustix::io::Errno::CONNREFUSED) => std::fs::remove_file(path),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Ok(()) | Err(rustix::io::Errno::AGAIN) => {
            let text = format!("another process answers on {}", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_a_dead_socket_and_refuses_a_live_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        let first = bind(&path, 0o600, None).unwrap();
        assert_eq!(bind(&path, 0o600, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let _second = bind(&path, 0o660, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    }

    #[test]
    fn leaves_a_file_that_is_no_socket_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        std::fs::File::create(&path).unwrap();
        assert_eq!(bind(&path, 0o600, None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }

    #[test]
    fn says_what_to_do_about_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = bind(&dir.path().join("x".repeat(108)), 0o600, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("--socket"), "{error}");
    }
}

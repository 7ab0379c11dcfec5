//! Where an instance lives: flags, then environment, then the defaults for root and for others.

use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::args::PlaceArgs;

/// The places of one instance, all absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What survives a reboot.
    pub state_dir: PathBuf,
    /// Sockets and FIFOs.
    pub runtime_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
}

/// Why the places cannot be told or used.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Neither flag nor environment says where the state is to go.
    #[error("HOME is not set: say where the state is with --state-dir or OUTLIVE_STATE_DIR")]
    NoHome,
    /// A relative path, and no current directory.
    #[error("the current directory cannot be read")]
    NoCurrentDir(#[source] std::io::Error),
    /// A runtime directory among files of everybody must be ours alone.
    #[error("{} is not safe: {why}; choose another with --runtime-dir", .path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be made or looked at.
    #[error("the runtime directory {} cannot be used", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Paths {
    /// From the flags, the environment and the user id.
    pub(crate) fn resolve(
        flags: &PlaceArgs,
        env: &dyn Fn(&str) -> Option<OsString>,
        uid: u32,
    ) -> Result<Self, PathsError> {
        let set = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        // A relative XDG path is to be ignored.
        let xdg = |name: &str| set(name).filter(|p| p.is_absolute());
        let chosen = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| set(name));
        let state_dir = match chosen(&flags.state_dir, "OUTLIVE_STATE_DIR") {
            Some(path) => path,
            None if uid == 0 => "/var/lib/outlive".into(),
            None => xdg("XDG_STATE_HOME")
                .or_else(|| Some(set("HOME")?.join(".local/state")))
                .ok_or(PathsError::NoHome)?
                .join("outlive"),
        };
        let runtime_dir = match chosen(&flags.runtime_dir, "OUTLIVE_RUNTIME_DIR") {
            Some(path) => path,
            None if uid == 0 => "/run/outlive".into(),
            None => xdg("XDG_RUNTIME_DIR")
                .map_or_else(|| format!("/tmp/outlive-{uid}").into(), |dir| dir.join("outlive")),
        };
        let socket = chosen(&flags.socket, "OUTLIVE_SOCKET");
        let absolute = |path: PathBuf| std::path::absolute(path).map_err(PathsError::NoCurrentDir);
        let runtime_dir = absolute(runtime_dir)?;
        Ok(Self {
            state_dir: absolute(state_dir)?,
            socket: absolute(socket.unwrap_or_else(|| runtime_dir.join("control.sock")))?,
            runtime_dir,
        })
    }

    /// Makes the runtime directory, open to nobody else, unless it is there; then checks it.
    ///
    /// # Errors
    /// If it cannot be made, or is not safe, see [`Self::check`].
    pub fn make_runtime_dir(&self) -> Result<(), PathsError> {
        let io = |source| PathsError::Io { path: self.runtime_dir.clone(), source };
        if let Some(parent) = self.runtime_dir.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(&self.runtime_dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(io(e)),
            _ => self.check(),
        }
    }

    /// A runtime directory in a place where everybody may create files, such as `/tmp`, could be somebody
    /// else's trap: it must be a real directory, ours, and closed to others. One that is not there is safe.
    ///
    /// # Errors
    /// [`PathsError::Unsafe`] with what is wrong.
    pub fn check(&self) -> Result<(), PathsError> {
        check_dir(&self.runtime_dir, rustix::process::geteuid().as_raw())
    }
}

fn check_dir(path: &Path, uid: u32) -> Result<(), PathsError> {
    let io = |source| PathsError::Io { path: path.to_owned(), source };
    let open_to_all = path
        .parent()
        .and_then(|parent| std::fs::metadata(parent).ok())
        .is_some_and(|meta| meta.permissions().mode() & 0o002 != 0);
    if !open_to_all {
        return Ok(());
    }
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io)?,
    };
    let why = if !meta.is_dir() {
        "it is no directory".to_owned()
    } else if meta.uid() != uid && uid != 0 {
        format!("it belongs to user {}", meta.uid())
    } else if meta.permissions().mode() & 0o022 != 0 {
        "others may write to it".to_owned()
    } else {
        return Ok(());
    };
    Err(PathsError::Unsafe { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &PlaceArgs, env: &[(&str, &str)], uid: u32) -> Result<Paths, PathsError> {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Paths::resolve(flags, &get, uid)
    }

    fn strings(paths: &Paths) -> [&str; 3] {
        [&paths.state_dir, &paths.runtime_dir, &paths.socket].map(|p| p.to_str().unwrap())
    }

    #[test]
    fn root_and_others_have_their_own_defaults() {
        let none = PlaceArgs::default();
        let root = resolve(&none, &[], 0).unwrap();
        assert_eq!(strings(&root), ["/var/lib/outlive", "/run/outlive", "/run/outlive/control.sock"]);
        let home = resolve(&none, &[("HOME", "/h"), ("XDG_STATE_HOME", "not/absolute")], 7).unwrap();
        assert_eq!(
            strings(&home),
            ["/h/.local/state/outlive", "/tmp/outlive-7", "/tmp/outlive-7/control.sock"]
        );
        let xdg = resolve(&none, &[("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")], 7).unwrap();
        assert_eq!(strings(&xdg), ["/s/outlive", "/r/outlive", "/r/outlive/control.sock"]);
        assert!(matches!(resolve(&none, &[], 7), Err(PathsError::NoHome)));
    }

    #[test]
    fn flags_win_over_the_environment() {
        let env = [("OUTLIVE_STATE_DIR", "/e"), ("OUTLIVE_RUNTIME_DIR", "/er"), ("OUTLIVE_SOCKET", "/es")];
        assert_eq!(strings(&resolve(&PlaceArgs::default(), &env, 7).unwrap()), ["/e", "/er", "/es"]);
        let flags = PlaceArgs {
            state_dir: Some("/f".into()),
            runtime_dir: Some("/fr".into()),
            socket: Some("/fs".into()),
        };
        assert_eq!(strings(&resolve(&flags, &env, 7).unwrap()), ["/f", "/fr", "/fs"]);
        let relative = PlaceArgs { state_dir: Some("here".into()), ..PlaceArgs::default() };
        assert!(resolve(&relative, &[], 0).unwrap().state_dir.is_absolute());
    }

    #[test]
    fn a_directory_among_strangers_must_be_ours_and_closed() {
        let top = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(top.path(), 0o777);
        let uid = rustix::process::geteuid().as_raw();
        let dir = top.path().join("outlive-x");
        let paths = Paths { state_dir: dir.clone(), runtime_dir: dir.clone(), socket: dir.join("c") };
        paths.check().unwrap();
        paths.make_runtime_dir().unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(check_dir(&dir, uid + 1).unwrap_err().to_string().contains("belongs to user"));
        mode(&dir, 0o777);
        assert!(paths.check().unwrap_err().to_string().contains("others may write"));
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(check_dir(&link, uid).unwrap_err().to_string().contains("no directory"));
        mode(top.path(), 0o700);
        paths.check().unwrap();
    }
}

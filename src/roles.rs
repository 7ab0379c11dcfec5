//! Which role this process plays: the name it was started by, and the arguments of a role.
//!
//! The roles are started by `outlive up` and by init, never by a person; their arguments are a contract
//! between builds of the same version only, since init starts them from its own executable.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Parent and reaper.
    Init,
    /// Spawner and pump.
    Keeper,
    /// Decider.
    Supervisor,
}

impl Role {
    /// The name by which a process shows its role, in `ps` and to itself.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Init => "outlive: init",
            Self::Keeper => "outlive: keeper",
            Self::Supervisor => "outlive: supervisor",
        }
    }

    /// The role that a first argument names.
    #[must_use]
    pub fn from_title(title: &OsStr) -> Option<Self> {
        [Self::Init, Self::Keeper, Self::Supervisor].into_iter().find(|role| title == role.title())
    }
}

/// What a role is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleArguments {
    /// State directory, absolute.
    pub state_dir: PathBuf,
    /// Runtime directory, absolute.
    pub runtime_dir: PathBuf,
    /// Control socket, absolute.
    pub socket: PathBuf,
    /// Configuration file, absolute.
    pub config: Option<PathBuf>,
    /// When the instance began, boot clock in microseconds: when its `up` had the lock.
    pub born_us: u64,
    /// The soft limit of open files that `up` was started with.
    pub open_files: Option<u64>,
    /// Init: supervisor deaths within a minute that lead to recovery mode; 0: never.
    pub recovery_after: usize,
    /// Init: descriptors that stay open over its own `execve`.
    pub keep_open: Vec<i32>,
    /// Init: the table left by its earlier image.
    pub table: Option<i32>,
    /// Supervisor: recovery mode.
    pub recovery: bool,
}

impl RoleArguments {
    /// Those that all roles share, as arguments.
    #[must_use]
    pub fn shared(&self) -> Vec<CString> {
        let mut list: Vec<OsString> = vec![
            "--state-dir".into(),
            self.state_dir.clone().into(),
            "--runtime-dir".into(),
            self.runtime_dir.clone().into(),
            "--socket".into(),
            self.socket.clone().into(),
            "--recovery-after".into(),
            self.recovery_after.to_string().into(),
            "--born".into(),
            self.born_us.to_string().into(),
        ];
        if let Some(limit) = self.open_files {
            list.extend(["--open-files".into(), limit.to_string().into()]);
        }
        if let Some(config) = &self.config {
            list.extend(["--config".into(), config.clone().into_os_string()]);
        }
        list.into_iter().filter_map(|text| CString::new(text.into_vec()).ok()).collect()
    }

    /// Reads them.
    ///
    /// # Errors
    ///
    /// The argument that is missing, unknown, or no number.
    pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut parsed = Self::default();
        while let Some(name) = arguments.next() {
            if name == "--recovery" {
                parsed.recovery = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{} needs a value", name.display()))?;
            let number = || self::number::<i32>(&name, &value);
            match name.as_bytes() {
                b"--state-dir" => parsed.state_dir = value.into(),
                b"--runtime-dir" => parsed.runtime_dir = value.into(),
                b"--socket" => parsed.socket = value.into(),
                b"--config" => parsed.config = Some(value.into()),
                b"--recovery-after" => parsed.recovery_after = usize::try_from(number()?).unwrap_or(0),
                b"--born" => parsed.born_us = self::number(&name, &value)?,
                b"--open-files" => parsed.open_files = Some(self::number(&name, &value)?),
                b"--keep-open" => parsed.keep_open.push(number()?),
                b"--table" => parsed.table = Some(number()?),
                _ => return Err(format!("unknown argument {}", name.display())),
            }
        }
        Ok(parsed)
    }
}

fn number<T: std::str::FromStr>(name: &OsStr, value: &OsStr) -> Result<T, String> {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.parse().map_err(|_| format!("{} needs a number, not {text}", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_arguments_are_read_back() {
        let given = RoleArguments {
            state_dir: "/s p/ä".into(),
            runtime_dir: "/r".into(),
            socket: "/r/c.sock".into(),
            config: Some("/etc/o.toml".into()),
            recovery_after: 5,
            born_us: u64::MAX,
            open_files: Some(1024),
            ..RoleArguments::default()
        };
        let texts = given.shared().into_iter().map(|text| OsString::from_vec(text.into_bytes()));
        assert_eq!(RoleArguments::parse(texts), Ok(given));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (list, wrong) in
            [(vec!["--table"], "--table"), (vec!["--table", "x"], "x"), (vec!["--what", "1"], "--what")]
        {
            let error = RoleArguments::parse(list.into_iter().map(OsString::from)).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}

//! The configuration in force, in memory only.
//!
//! A supervisor that is started again must go on with the configuration that was accepted, not with
//! whatever the file says by now; and it must not be written to disk, because it holds the values of
//! environment variables. So it lies in a memory file, which init holds for the next supervisor.
//!
//! While a reload may still be rolled back, the configuration before it lies in the same file: both are held
//! or neither is, and which of them is in force follows from the event log.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// The configuration before a reload that is under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Before {
    /// Which reload.
    pub(super) saga: u64,
    pub(super) config: Config,
}

#[derive(Serialize)]
struct BothOut<'a> {
    config: &'a Config,
    before: &'a Before,
}

#[derive(Deserialize)]
struct Both {
    config: Config,
    before: Before,
}

/// Puts the configuration into a memory file.
pub(super) fn store(config: &Config, before: Option<&Before>) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("outlive-config", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    let bytes = match before {
        Some(before) => serde_json::to_vec(&BothOut { config, before }),
        None => serde_json::to_vec(config),
    };
    file.write_all(&bytes.map_err(io::Error::other)?)?;
    Ok(file.into())
}

/// Reads it back.
pub(super) fn recall(fd: OwnedFd) -> io::Result<(Config, Option<Before>)> {
    let mut file = File::from(fd);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    if let Ok(Both { config, before }) = serde_json::from_slice(&bytes) {
        return Ok((config, Some(before)));
    }
    let config = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    Ok((config, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::empty;

    #[test]
    fn one_file_holds_one_configuration_or_two() {
        let mut config = empty();
        config.digest = "new".to_owned();
        let (read, before) = recall(store(&config, None).unwrap()).unwrap();
        assert_eq!((read.digest.as_str(), before.is_none()), ("new", true));
        let before = Before { saga: 7, config: Config { digest: "old".to_owned(), ..empty() } };
        let (read, before) = recall(store(&config, Some(&before)).unwrap()).unwrap();
        let before = before.unwrap();
        assert_eq!((read.digest, before.saga, before.config.digest), ("new".to_owned(), 7, "old".to_owned()));
    }
}

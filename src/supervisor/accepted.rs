//! The configuration in force, in memory only.
//!
//! A supervisor that is started again must go on with the configuration that was accepted, not with
//! whatever the file says by now; and it must not be written to disk, because it holds the values of
//! environment variables. So it lies in a memory file, which init holds for the next supervisor.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;

use crate::config::Config;

/// Puts the configuration into a memory file.
pub(super) fn store(config: &Config) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("outlive-config", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(&serde_json::to_vec(config).map_err(io::Error::other)?)?;
    Ok(file.into())
}

/// Reads it back.
pub(super) fn recall(fd: OwnedFd) -> io::Result<Config> {
    let mut file = File::from(fd);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

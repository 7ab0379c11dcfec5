//! x
mod dependencies;
mod digest;
mod env_file;
mod error;
mod files;
mod glob;
mod job;
mod load;
mod node;
mod schema;
mod settings;
mod source;
mod substitute;
mod suggest;
mod syntax;
mod units;
mod users;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::spec::JobSpec;

pub use error::{Error, Errors};
pub use schema::schema;
pub use settings::{LogLevel, SupervisorSettings};

/// A configuration, read, checked and resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Settings of the instance.
    pub supervisor: SupervisorSettings,
    /// The jobs in the order of the files; instances are jobs of their own.
    pub jobs: Vec<JobSpec>,
    /// Every file that was read, from the root: the main file, what it includes, environment files.
    pub files: Vec<PathBuf>,
    /// Fingerprint of their texts; another one means that something in them has changed.
    pub digest: String,
}

/// Reads `path` and everything it names. `env` is what `${VAR}` is taken from.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path, env: &BTreeMap<String, String>) -> Result<Config, Errors> {
    load::load(path, env, &users::Accounts::of_this_machine())
}

/// The configuration of an instance without a file: default settings and no jobs.
#[must_use]
pub fn empty() -> Config {
    Config {
        supervisor: SupervisorSettings::default(),
        jobs: Vec::new(),
        files: Vec::new(),
        digest: digest::of(&[]),
    }
}

/// The first file there is of `./outlive.toml`, `$XDG_CONFIG_HOME/outlive/outlive.toml` (or
/// `~/.config/outlive/outlive.toml`) and `/etc/outlive/outlive.toml`.
///
/// A file that is there and cannot be read is found too: [`load`] then says what is wrong with it, which is
/// better than to start with another one.
#[must_use]
pub fn find_default(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    candidates(env).into_iter().find(|path| path.symlink_metadata().is_ok())
}

fn candidates(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let absolute = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let mut paths = vec![PathBuf::from("outlive.toml")];
    paths.extend(user.map(|dir| dir.join("outlive/outlive.toml")));
    paths.push(PathBuf::from("/etc/outlive/outlive.toml"));
    paths
}

#[cfg(test)]
mod tests;

//! Whole configurations: wrong ones with what is said about them, right ones with what comes out.

mod right;
mod wrong;
mod wrong_policy;
mod wrong_watch;

pub(super) use right::EVERY_KEY;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::users::Accounts;
use super::{Config, Errors};
use crate::core::spec::JobSpec;

/// A directory with files.
pub(super) struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            dir.write(name, text.as_bytes());
        }
        dir
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(bytes).unwrap();
    }

    fn load(&self) -> Result<Config, Errors> {
        super::load::load(&self.path().join("outlive.toml"), &env(), &accounts())
    }

    /// The errors as `file:line:column: key: message; suggestion`, without the directory.
    fn errors(&self) -> Vec<String> {
        let here = format!("{}/", self.path().display());
        let Err(errors) = self.load() else { return Vec::new() };
        let line = |text: String| text.lines().next().unwrap_or_default().replace(&here, "");
        errors.0.iter().map(|e| line(e.to_string())).collect()
    }
}

fn env() -> BTreeMap<String, String> {
    [("HOME", "/home/me"), ("PORT", "8080")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn accounts() -> Accounts {
    Accounts {
        passwd: Some("root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/false\nw1:x:91:91::/:\n".into()),
        group: Some("root:x:0:\nwww-data:x:33:\n".into()),
    }
}

/// Loads one file that must be right.
pub(super) fn good(text: &str) -> (Dir, Config) {
    let dir = Dir::new(&[("outlive.toml", text)]);
    let config = dir.load().unwrap_or_else(|e| panic!("{e}\n---\n{text}"));
    (dir, config)
}

/// The only job of a file that must be right.
fn job(lines: &str) -> JobSpec {
    let (_dir, config) = good(&format!("[job.a]\n{lines}"));
    assert_eq!(config.jobs.len(), 1, "{lines}");
    config.jobs.into_iter().next().unwrap()
}

pub(super) fn examples() -> Vec<PathBuf> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap();
    let entries = std::fs::read_dir(root.join("examples")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    paths
}

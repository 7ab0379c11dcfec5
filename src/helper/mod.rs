//! A small process of ours around one command: a hook, a stop command.
//!
//! The supervisor may die while such a command runs, and the next one must neither run it beside itself nor lose how it
//! ends. So this process stands between. It holds the command to its time, whether or not a supervisor is there; it tells
//! how it ended on its standard output; and it writes the same into a file that it has locked for as long as it lives.
//! Another helper that finds the lock held waits, if that is the same command for the same occasion, and tells what came
//! of it; if it is for another occasion, nobody waits for that one any more, and it is ended first. Where there is no
//! room for a lock the command runs all the same: better twice than not at all.
//!
//! Helper and command are one process group. If the helper is killed alone, the command gets a `KILL` by the kernel,
//! and what else is left of the group is ended by the next helper. The last of what the command prints is kept; its
//! standard output is a pipe to the helper and closed with it.
//!
//! What to do comes on the standard input, and the helper's own environment is empty but for its mark: it may have more
//! rights than the user of the job, who has a say in the environment of the command.

mod process;

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::core::time::Millis;
use crate::wire::keeper::UserIds;

pub use process::main;

/// The name by which such a process shows itself, in `ps` and to itself.
pub const TITLE: &str = "outlive: helper";

/// What a helper is to do: JSON on its standard input, to the end of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The command.
    pub command: Vec<String>,
    /// Its environment: `NAME=value`.
    #[serde(with = "crate::wire::bytes::list")]
    pub env: Vec<Vec<u8>>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// As whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserIds>,
    /// How long it may take, in milliseconds.
    pub timeout: Millis,
    /// Whether it is done once for its occasion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
}

/// One occasion for a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// Locked as long as one is under way; says how the last one ended.
    pub file: PathBuf,
    /// Which occasion: no line breaks.
    pub occasion: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What was wrong, in words; `None`: it ended with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
    /// The last of what it has printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
}

impl Told {
    fn cannot(what: &str, error: &impl std::fmt::Display) -> Self {
        Self { wrong: Some(format!("{what}: {error}")), said: String::new() }
    }

    /// Reads what a helper has told; it must have ended.
    ///
    /// # Errors
    /// If it was ended before it could.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut text = String::new();
        from.read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(Into::into)
    }

    /// The last line that the command printed, which often says why.
    #[must_use]
    pub fn last_line(&self) -> Option<&str> {
        self.said.lines().map(str::trim).rfind(|line| !line.is_empty())
    }
}

impl Task {
    /// The helper as a process, in a group of its own. Its standard input is to be given [`Task::text`].
    ///
    /// # Errors
    /// If our own executable cannot be found.
    pub fn process(socket: &Path) -> io::Result<Command> {
        // Also where the file was replaced.
        let own = PathBuf::from("/proc/self/exe");
        let own = if own.exists() { own } else { std::env::current_exe()? };
        let mut process = Command::new(own);
        process.arg0(TITLE).env_clear().env("OUTLIVE_HELPER", "helper").env("OUTLIVE_SOCKET", socket);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        Ok(process)
    }

    /// What its process is to read.
    ///
    /// # Errors
    /// None that could come up.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// The value of a variable of its command.
    fn variable(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }
}

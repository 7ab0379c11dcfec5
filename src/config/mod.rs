//! `outlive.toml`: read, checked and resolved into [`JobSpec`]s. This page is the reference of its keys.
//!
//! [`load`] reads a file and everything it names, and either returns a [`Config`] in which nothing is left
//! open, or [`Errors`]: all of them at once, each with file, line, column, key and often a suggestion. Nothing
//! is guessed and nothing is ignored; an unknown key is an error. [`schema`] is the same for editors.
//!
//! # The file
//!
//! ```toml
//! include = ["conf.d/*.toml"]   # more jobs
//!
//! [supervisor]                  # the instance itself
//! log_level = "debug"
//!
//! [defaults]                    # for every job that does not set its own
//! restart = "on-failure"
//!
//! [job.web]                     # a job; its name is `web`
//! command = "web-server --port ${PORT:-8080}"
//!
//! [group.site]                  # jobs that belong together
//! jobs = ["web"]
//! ```
//!
//! `include` is a list of paths relative to the file, with the wildcards `*`, `?` and `[…]`. A path without
//! wildcard must exist. Hidden files are not matched by `*`, and a file is read once however often it is
//! named. An included file holds `[job.NAME]` and nothing else.
//!
//! A job's name is made of letters, digits, `-`, `_`, `.` and `@`, begins with a letter or digit, and is used
//! once in all files.
//!
//! # Values
//!
//! | value | how it is written |
//! |---|---|
//! | duration | `"500ms"`, `"10s"`, `"1m30s"`, `"2h"`, `"1d"`; a bare number is refused, it has no unit |
//! | size | `"50MB"` (1000 × 1000), `"64KiB"` (1024), or a number of bytes |
//! | mode | octal: `"022"` or `0o022` |
//! | path | relative to the directory of the file it stands in; `~` is not expanded, `${HOME}` is |
//! | user, group | a name from `/etc/passwd` or `/etc/group`, or any number |
//!
//! In every text of a job (arguments, values of `env`, paths, users, signals, dependencies) these are put in
//! when the file is read:
//!
//! | written | is |
//! |---|---|
//! | `${VAR}` | the variable of the environment of `outlive up`; an error if it is not set |
//! | `${VAR:-default}` | the same, or the default if it is unset or empty |
//! | `${VAR:?message}` | the same, or an error with this message |
//! | `$$` | a `$`; `$${VAR}` is the text `${VAR}` |
//! | `{n}` | the number of the instance; `{{n}}` is the text `{n}` |
//!
//! Any other `$` is itself. What is put in is not looked at again, neither for words nor for variables.
//! Environment files are taken as they are.
//!
//! # `[supervisor]`
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `shutdown_timeout` | `"60s"` | after this, a shutdown kills what is left |
//! | `socket_mode` | `"0600"` | mode of the control socket |
//! | `socket_group` | that of the supervisor | group of the control socket |
//! | `log_level` | `"info"` | `error`, `warn`, `info`, `debug` or `trace` |
//! | `keep_runs` | `20` | ended runs kept for each job, at least 1 |
//! | `on_unreadable_log` | `"recovery-mode"` | when nothing of the event log can be read: `recovery-mode`, `exit` or `fresh` |
//! | `recovery_start_rate` | `100` | jobs started again by recovery in a second, 0: as fast as possible |
//! | `slots` | as many as the queues have | runs of all queues together, at most |
//!
//! # `[queue.NAME]`
//!
//! Jobs of a queue wait for their turn: the highest `priority` first, and among equals who came first. There is always
//! the queue `default`, in which `outlive submit` puts its tasks.
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `slots` | `1` | runs there may be at once; `0`: none |
//!
//! # `[health]`
//!
//! Every `interval` the host and we ourselves are looked at. A check that fails `heal_after` times in a row counts
//! as failed: it is shown, and what is configured for it is done, again after as many more failures. It is well
//! again 2 percentage points below its limit. A limit is a percentage (`"85%"`) or `"off"`.
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `enabled` | `true` | whether anything is checked |
//! | `interval` | `"30s"` | between two rounds |
//! | `timeout` | `"10s"` | a check that takes longer has failed |
//! | `heal_after` | `3` | failures in a row before something is done |
//! | `memory` | `"85%"` | memory in use, of the control group around us if that is limited |
//! | `disk` | `"90%"` | space in use on the file systems of the state directory, the runtime directory and every `output.dir` |
//! | `inodes` | `"90%"` | files in use on them |
//! | `open_files` | `"90%"` | open files of the host |
//! | `pids` | `"90%"` | processes and threads |
//! | `pressure` | `"off"` | time of the last ten seconds in which a task waited for memory, disks or a CPU |
//! | `on_memory` | `["hold-starts"]` | what is done when that check fails; likewise: |
//! | `on_disk` | `["rotate", "expire"]` | |
//! | `on_inodes` `on_open_files` `on_pids` `on_pressure` `on_inotify` `on_control` `on_event_log` `on_keeper` | `[]` | |
//!
//! Whether files can be watched (inotify), our control socket answers, the disk of the event log answers and the
//! keeper is there is checked too.
//!
//! | act | what it does |
//! |---|---|
//! | `"rotate"` | compresses closed output of ended runs |
//! | `"expire"` | removes directories of ended runs, the oldest first, until there is room; never the latest of a job |
//! | `"hold-starts"` | starts no run while the check is failed, whoever asks |
//! | `"stop-lowest"` | stops the live job of the lowest `priority`, among equals the one that started last |
//! | `"restart-largest"` | restarts the job that uses most memory |
//! | `{ command = […], timeout = "30s" }` | runs a command |
//! | `{ restart = "job" }` | restarts a job |
//!
//! `[health.check.NAME]` is a check of your own, and `check` is the table of them: `exec`, `http`, `tcp` or `unix` as in a
//! probe of a job, `interval` (`"30s"`), `timeout` (`"10s"`), `failures` (`3`), and `heal`: a list of acts, or one.
//!
//! # `[group.NAME]`
//!
//! What the failure of one job means for others, in the words of Erlang's supervisors. Only in the main file.
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `jobs` | required | the members in order; a name with instances means all, `NAME:2` one. A job is in one group at most |
//! | `strategy` | `"one-for-one"` | when a member failed by itself and is to be restarted: `one-for-one` that one alone, `one-for-all` all others that run too, `rest-for-one` those after it in `jobs` |
//! | `start_limit` | no limit | `{ count = 10, within = "60s" }`: more restarts in the whole group stop all members and give them up |
//!
//! # `[job.NAME]`
//!
//! Keys marked with · cannot stand in `[defaults]`. Where a job and the defaults both have `env`, `rlimits`,
//! `backoff`, `start_limit` or `output`, the two are merged key by key; everything else is replaced.
//!
//! What is executed:
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `command` · | required | a list of arguments; or a string, split into words as a POSIX shell would split it |
//! | `shell` · | `false` | the command is a string for `/bin/sh -c` |
//! | `resume_command` · | | instead of `command`, when an earlier run has left a resume token (`outlive publish`): a list, or a string split into words; `{token}` in it stands for the token, which is never split |
//! | `env` | | table of variables; over those of `env_file`, which are over those of `[defaults]` |
//! | `env_file` · | | a path or a list: files of `KEY=VALUE` lines, with `#` comments, quotes and `export` |
//! | `inherit_env` | `true` | which variables of `outlive up` the job has too: all, none (`false`), or a list |
//! | `cwd` | directory of the main file | working directory; must exist |
//! | `user`, `group` | those of outlive; the group of `user` | whom it runs as |
//! | `umask` | inherited | file creation mask |
//! | `rlimits` | inherited | `nofile = 1024`, `core = "unlimited"`, `stack = { soft = 1, hard = 2 }`; names as for prlimit |
//! | `nice` | inherited | -20 to 19 |
//! | `oom_score_adj` | inherited | -1000 to 1000; higher is killed first when memory runs out |
//! | `instances` · | | run 1 to 10000 of it, named `NAME:1` to `NAME:N`; without the key there is one, named `NAME` |
//!
//! When it runs:
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `kind` | `"service"` | `service`: kept up; `task`: runs to its end |
//! | `autostart` | `true` | started with the instance |
//! | `depends_on` · | `[]` | jobs started before it and stopped after it; a name with instances means all, `NAME:2` one |
//! | `restart` | `"always"`, for a task `"never"` | `always`, `on-failure`, `never` |
//! | `success_codes` | `[0]` | exit codes that are no failure, 0 to 255 |
//! | `backoff` | | delay before a restart: `min(max, initial × factor^n)` and up to `jitter` of it more |
//! | `backoff.initial` | `"200ms"` | before the first restart; `"0s"` is allowed |
//! | `backoff.factor` | `2.0` | 1.0 or more |
//! | `backoff.max` | `"60s"` | longest delay |
//! | `backoff.jitter` | `0.1` | 0.0 to 1.0 |
//! | `backoff.reset_after` | `"60s"` | a run that lasted this long starts the series anew |
//! | `start_limit` | `{ count = 10, within = "60s" }` | more starts than this end in `fatal`; `count = 0`: no limit |
//! | `breaker` | off | circuit breaker: `{ failures = 5, open_for = "60s" }` or `true`. After so many failures in a row it is open: no start for `open_for`, not by `outlive start` either (`--force` does), then one run on trial. One that ends well, gets ready or lasts `backoff.reset_after` closes it; a failure opens it again |
//! | `start_grace` | `"0s"` | a run that ends earlier is a failed start |
//! | `on_fatal` | `"nothing"` | when the job is given up: `stop-all` stops all other jobs, `exit` ends the instance in order and with the job's exit code |
//! | `retry_fatal` | | a job that was given up is tried again after this time, as if for the first time; not where nobody knows how its run ended, and not in recovery mode |
//! | `priority` | `0` | who is stopped first by `stop-lowest` in `[health]`: the lowest; whose turn is first in a queue: the highest |
//! | `queue` | none | the queue in which its starts wait for their turn, see `[queue.NAME]` |
//! | `retries` | as `start_limit` says | how often a run that failed is followed by another, at most; then it stays as it is |
//!
//! How its runs are watched; each is off unless set, and tables are merged key by key with those of `[defaults]`:
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `heartbeat.notify` | | longest time without `WATCHDOG=1` on `NOTIFY_SOCKET`; `true` is `"15s"`, of which a job should use a third |
//! | `heartbeat.output` | | longest time without output |
//! | `heartbeat.cpu` | | longest time without use of the CPU |
//! | `heartbeat.file` | | `{ path, timeout }`: longest time between two touches of a file |
//! | `probe.startup` `probe.readiness` `probe.liveness` | | `{ exec \| http \| tcp \| unix = …, interval = "10s", timeout = "2s", failures = 3, successes = 1, delay = "0s" }` |
//! | `ready` | by the readiness or startup probe, if there is one | `{ notify = true \| fd = 3 \| log = "regex" \| probe = true, timeout = "90s" }`: how it tells that it is ready |
//! | `max_runtime` | | how long a run may take |
//! | `progress_timeout` | | longest time without a word about its progress (`outlive publish`, `X_PROGRESS`, `STATUS`) |
//! | `limits` | | `{ memory = "512MB", cpu = "150%", pids = 100, on_exceed = "restart" }`; `on_exceed` may be `restart`, `stop`, `notify` or `{ signal = "USR1" }` |
//! | `on_frozen` | `["continue", "dump", "stop", "restart"]` | what is done about a run that hangs, step by step; also `{ continue = "2s" }` and `{ dump = "QUIT", wait = "5s" }` |
//!
//! How it ends:
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `stop` | `{ signal = "TERM", timeout = "10s" }` | one step or a list of steps, each with `signal` or `command`, and `timeout` (`"10s"`); `KILL` follows the last |
//! | `hooks` | | commands around its runs, see below; merged hook by hook |
//! | `kill_scope` | `"mixed"` | whom signals reach. `mixed`: the stop signal the main process, `KILL` the whole tree; `tree`, `group`, `process`: all of them this |
//! | `leftovers` | `"stop"` | processes that outlive the main one: `stop` them, `wait` for them, `ignore` them |
//! | `on_supervisor_death` | `"keep"` | `keep`, `kill`, or `{ kill_after = "30s" }` |
//! | `recovery` | `"auto"` | when nobody can know how a run ended: `auto` asks `restart`, `fail` gives up until the next life of the instance, `manual` until an operator starts it |
//! | `recovery_timeout` | `"30m"` | a task lost longer ago than this (by its last sign of life) is not run again by itself |
//!
//! Hooks are `before_start`, `after_start`, `before_stop`, `after_exit`, `on_frozen` and `on_fatal`: each a command, or
//! `{ command = …, timeout = "30s" }`. They run as the user of the job, in its directory and with its environment,
//! with `OUTLIVE_HOOK`, `OUTLIVE_JOB`, `OUTLIVE_RUN_ID`, where a main process lives `OUTLIVE_PID`, and in `after_exit`
//! and `on_fatal` `OUTLIVE_OUTCOME` (words) and `OUTLIVE_EXIT_CODE` (as a shell has it), in `on_frozen` and `on_fatal`
//! `OUTLIVE_WHY` (what is wrong, in words); without input. The last line that a failed one printed is shown, and not
//! recorded; their output ends with them. What takes longer than its time is killed with its process group, whether or
//! not a supervisor is there, and has failed. Without the success of `before_start` there is no run, and `restart` says
//! what follows. A stop begins when `before_stop` has ended, well or not. Over the death of a supervisor, `before_stop`
//! and stop commands go on and are not run again; a `before_start` is ended, and the next run has its own. Each of the
//! others runs at most once for each time, and nothing waits for them.
//!
//! What it writes and reads:
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `output.mode` | `"merged"` | both streams in one series of files; `separate`: in two; `none`: not captured |
//! | `output.max_size` | `"50MiB"` | a segment is closed at the first line end after this much; `0`: never |
//! | `output.keep` | `10` | closed segments kept per stream and run |
//! | `output.compress` | `true` | closed segments are compressed |
//! | `output.on_log_stall` | `"block"` | when the disk refuses, the job waits; `drop`: its output is dropped and counted |
//! | `output.dir` | the run directory | directory for output |
//! | `stdin` | `"null"` | `null`; `keep`: a pipe for `outlive send`; `{ file = "path" }`: a file, which must exist |

mod dependencies;
mod digest;
mod env_file;
mod error;
mod files;
mod glob;
mod groups;
mod job;
mod load;
mod node;
mod queues;
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
pub use settings::{LogLevel, OnUnreadableLog, SupervisorSettings};

/// A configuration, read, checked and resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Settings of the instance.
    pub supervisor: SupervisorSettings,
    /// What is checked of the host and of ourselves.
    #[serde(default)]
    pub health: crate::core::host::Settings,
    /// The queues.
    #[serde(default)]
    pub queues: crate::core::queue::Settings,
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
        health: crate::core::host::Settings::default(),
        queues: crate::core::queue::Settings::default(),
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

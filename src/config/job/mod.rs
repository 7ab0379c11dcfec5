//! One `[job.NAME]` over `[defaults]`, read into a template. What depends on the number of the instance, and
//! what has to be looked up on the machine, comes after that, in [`expand`].

mod expand;
mod health;
mod hooks;
mod output;
mod policy;
mod process;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::core::ids::JobName;
use crate::core::spec::{JobSpec, Kind, Restart};

use super::error::Report;
use super::node::{Node, Table};
use super::substitute;
use super::users::Accounts;

pub(super) use expand::EnvFiles;
pub(super) use health::{Health, read as read_health};
pub(super) use policy::{START_LIMIT_KEYS, duration, start_limit};
pub(super) use process::mode;
#[cfg(test)]
pub(super) use {
    health::{ACT_KEYS, CHECK_KEYS, HEALTH_KEYS},
    hooks::{HOOK_KEYS, HOOKS},
    output::OUTPUT_KEYS,
    policy::{BACKOFF_KEYS, BREAKER_KEYS, STOP_KEYS},
    process::RLIMITS,
    watch::{BEAT_FILE_KEYS, FROZEN_KEYS, HEARTBEAT_KEYS, LIMIT_KEYS, PROBE_KEYS, PROBE_ROLES, READY_KEYS},
};

/// Every key of `[job.NAME]`.
pub(super) const JOB_KEYS: &[&str] = &[
    "command",
    "shell",
    "resume_command",
    "env",
    "env_file",
    "inherit_env",
    "cwd",
    "user",
    "group",
    "umask",
    "rlimits",
    "nice",
    "oom_score_adj",
    "kind",
    "instances",
    "autostart",
    "restart",
    "success_codes",
    "backoff",
    "start_limit",
    "breaker",
    "start_grace",
    "stop",
    "hooks",
    "kill_scope",
    "leftovers",
    "depends_on",
    "output",
    "stdin",
    "on_supervisor_death",
    "recovery",
    "recovery_timeout",
    "on_fatal",
    "retry_fatal",
    "priority",
    "queue",
    "retries",
    "heartbeat",
    "probe",
    "ready",
    "max_runtime",
    "progress_timeout",
    "limits",
    "on_frozen",
];

/// Every key of `[defaults]`: those of a job that make sense for many.
pub(super) const DEFAULTS_KEYS: &[&str] = &[
    "env",
    "inherit_env",
    "cwd",
    "user",
    "group",
    "umask",
    "rlimits",
    "nice",
    "oom_score_adj",
    "kind",
    "autostart",
    "restart",
    "success_codes",
    "backoff",
    "start_limit",
    "breaker",
    "start_grace",
    "stop",
    "hooks",
    "kill_scope",
    "leftovers",
    "output",
    "stdin",
    "on_supervisor_death",
    "recovery",
    "recovery_timeout",
    "on_fatal",
    "retry_fatal",
    "priority",
    "queue",
    "retries",
    "heartbeat",
    "probe",
    "ready",
    "max_runtime",
    "progress_timeout",
    "limits",
    "on_frozen",
];

/// Most instances of one job.
pub(super) const MAX_INSTANCES: u32 = 10_000;

/// What reading a job needs to know about the world.
pub(super) struct Context<'a> {
    /// The environment that `${VAR}` is taken from.
    pub env: &'a BTreeMap<String, String>,
    /// Who exists.
    pub accounts: &'a Accounts,
    /// Where errors go.
    pub report: &'a Report,
    /// Directory of the main file: where a job without `cwd` runs.
    pub home: &'a Path,
}

/// A table of a job with the table of the same name in the defaults below it.
#[derive(Clone)]
pub(super) struct Layers<'a> {
    pub own: Option<Table<'a>>,
    pub defaults: Option<Table<'a>>,
}

impl<'a> Layers<'a> {
    /// The job's value, or else the default's.
    fn get(&self, key: &str) -> Option<Node<'a>> {
        self.own.as_ref().and_then(|t| t.get(key)).or_else(|| self.default(key))
    }

    fn default(&self, key: &str) -> Option<Node<'a>> {
        self.defaults.as_ref().and_then(|t| t.get_if_known(key))
    }

    /// The table below a key, key by key over that of the defaults.
    fn nested(&self, key: &str, known: &'static [&'static str]) -> Layers<'a> {
        let read = |node: Option<Node<'a>>| node.and_then(|n| n.table("a table", known));
        Layers { own: read(self.own.as_ref().and_then(|t| t.get(key))), defaults: read(self.default(key)) }
    }
}

/// A job whose texts still hold the mark of the instance.
pub(super) struct Template<'a> {
    /// Its name as configured.
    pub name: JobName,
    /// Where it is configured.
    pub node: Node<'a>,
    /// How many of it; `None` without instances, or when their number is an error.
    pub instances: Option<u32>,
    /// Whether it has instances at all.
    pub has_instances: bool,
    /// What it needs, as written, with its place.
    pub depends_on: Vec<(String, Node<'a>)>,
    spec: JobSpec,
    settings: Settings<'a>,
    env_files: Vec<(PathBuf, Node<'a>)>,
}

/// What the settings of a job leave to be looked up later.
#[derive(Default)]
struct Settings<'a> {
    /// `env` of the defaults, below the environment files.
    default_env: BTreeMap<String, String>,
    /// `env` of the job, above them.
    own_env: BTreeMap<String, String>,
    cwd: Option<Node<'a>>,
    user: Option<Node<'a>>,
    group: Option<Node<'a>>,
    stdin: Option<Node<'a>>,
}

/// Reads the values of one job.
struct Reader<'a, 'c> {
    context: &'c Context<'c>,
    layers: Layers<'a>,
    /// Whether `{n}` means something here.
    instances: bool,
}

/// Reads `[defaults]` for its own errors, whether or not a job uses it.
pub(super) fn check_defaults<'a>(context: &Context<'_>, defaults: &Table<'a>) {
    let layers = Layers { own: None, defaults: Some(defaults.clone()) };
    let Ok(name) = JobName::new("defaults") else { return };
    let mut spec = JobSpec::new(name, Vec::new());
    Reader { context, layers, instances: true }.settings(&mut spec);
}

/// Reads one job; `None` if there is no way to say which job it is.
pub(super) fn read<'a>(
    context: &Context<'_>,
    name: &str,
    node: &Node<'a>,
    defaults: Option<&Table<'a>>,
) -> Option<Template<'a>> {
    let checked = match JobName::new(name) {
        Ok(checked) if !name.contains(':') => Some(checked),
        Ok(_) => {
            let message = format!("`{name}` is the name of an instance, and those are made by `instances`");
            node.key_error(message, None);
            None
        }
        Err(e) => {
            node.key_error(e.to_string(), None);
            None
        }
    };
    if !matches!(node.value, DeValue::Table(_)) {
        let suggestion = match node.value {
            DeValue::Array(_) => format!("write [{}] in single brackets", node.key),
            _ if JOB_KEYS.contains(&name) => "a job has a name: write [job.NAME] above it".into(),
            _ => format!("write {}.command = …", node.key),
        };
        node.wrong_type("a table", Some(suggestion));
        return None;
    }
    let table = node.table("a table", JOB_KEYS)?;
    let instances = table.get("instances");
    let count = instances.as_ref().and_then(|n| n.integer(1..=MAX_INSTANCES));
    let layers = Layers { own: Some(table), defaults: defaults.cloned() };
    let reader = Reader { context, layers, instances: instances.is_some() };
    // Everything is read before a bad name ends it, so that all errors are seen at once.
    let command = reader.command(node);
    let mut spec = JobSpec::new(checked.clone().or_else(|| JobName::new("unnamed").ok())?, command);
    let settings = reader.settings(&mut spec);
    let (env_files, depends_on) = (reader.env_files(), reader.depends_on());
    let name = checked?;
    if let Some(last) = count.map(|count| name.instance(count))
        && let Err(e) = JobName::new(last.as_str())
    {
        node.key_error(format!("`{last}` would be no job name: {e}"), None);
        return None;
    }
    let has_instances = instances.is_some();
    let node = node.clone();
    Some(Template { name, node, instances: count, has_instances, depends_on, spec, settings, env_files })
}

impl<'a> Reader<'a, '_> {
    /// Everything that may also stand in the defaults.
    fn settings(&self, spec: &mut JobSpec) -> Settings<'a> {
        let mut settings = Settings::default();
        self.process(spec, &mut settings);
        self.policy(spec);
        self.capture(spec, &mut settings);
        // What is not captured is no sign of life.
        self.watch(spec);
        self.hooks(spec);
        settings
    }

    /// A text with its variables put in.
    fn text(&self, node: &Node<'a>, expected: &str) -> Option<String> {
        self.substitute(node, node.string(expected)?)
    }

    fn substitute(&self, node: &Node<'a>, raw: &str) -> Option<String> {
        let text = match substitute::substitute(raw, self.context.env) {
            Ok(text) => text,
            Err(bad) => {
                node.bad(bad);
                return None;
            }
        };
        if substitute::has_instance(&text) && !self.instances {
            let suggestion = "set `instances`, or write `{{n}}` for the text `{n}`";
            node.error("`{n}` is used in a job without `instances`", Some(suggestion.into()));
            return None;
        }
        Some(text)
    }

    /// A path, relative to the file it stands in.
    fn path(&self, node: &Node<'a>) -> Option<String> {
        let text = self.text(node, "a path")?;
        if text.is_empty() {
            node.error("the path is empty", None);
            return None;
        }
        if text == "~" || text.starts_with("~/") {
            let suggestion = format!("write \"${{HOME}}{}\"", substitute::shown(&text[1..]));
            node.error("`~` is not expanded", Some(suggestion));
            return None;
        }
        // Collecting the components drops `.` and doubled slashes; `..` stays, for it may follow a link.
        let path: PathBuf = node.source.dir.join(text).components().collect();
        let path = path.into_os_string().into_string();
        path.map_err(|_| node.error("the name of the directory of this file is not UTF-8", None)).ok()
    }

    /// What it needs; whether that exists is known when all jobs are read.
    fn depends_on(&self) -> Vec<(String, Node<'a>)> {
        let Some(node) = self.layers.own.as_ref().and_then(|t| t.get("depends_on")) else {
            return Vec::new();
        };
        if let DeValue::String(name) = node.value {
            node.wrong_type("a list of job names", Some(format!("write [\"{name}\"]")));
            return Vec::new();
        }
        let names = node.list("a list of job names").unwrap_or_default();
        names.into_iter().filter_map(|n| self.text(&n, "a job name").map(|text| (text, n))).collect()
    }
}

/// The restart policy of a job that says nothing about it.
fn default_restart(kind: Kind) -> Restart {
    match kind {
        Kind::Service => Restart::Always,
        Kind::Task => Restart::Never,
    }
}

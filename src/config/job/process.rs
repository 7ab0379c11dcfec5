//! What is executed, and as whom: command, environment, directory, ids, limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::core::spec::{JobSpec, Rlimit};

use super::super::env_file::wrong_name;
use super::super::node::{Node, to_i64};
use super::super::{suggest, units, words};
use super::{Reader, Settings};

/// The resource limits of Linux, by the names that `prlimit` gives them.
pub(in super::super) const RLIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl<'a> Reader<'a, '_> {
    /// The argument vector; empty when an error about it has been reported.
    pub(super) fn command(&self, job: &Node<'a>) -> Vec<String> {
        let Some(own) = &self.layers.own else { return Vec::new() };
        let shell = own.get("shell").is_some_and(|n| n.boolean() == Some(true));
        match own.get("command") {
            Some(node) => self.argv(&node, shell).unwrap_or_default(),
            // The misspelt key has been reported; it is not missing as well.
            None if own.has_slip_of("command") => Vec::new(),
            None => {
                let suggestion = "write `command = [\"program\", \"argument\"]`".to_owned();
                job.missing("`command`", Some(suggestion));
                Vec::new()
            }
        }
    }

    /// A command: a list, a text to split, or a text for the shell.
    pub(super) fn argv(&self, node: &Node<'a>, shell: bool) -> Option<Vec<String>> {
        let argv = match node.value {
            DeValue::String(text) if text.trim().is_empty() => Vec::new(),
            DeValue::String(_) if shell => {
                vec!["/bin/sh".into(), "-c".into(), self.text(node, "a string")?]
            }
            DeValue::String(text) => {
                let words = words::split(text).map_err(|bad| node.bad(bad)).ok()?;
                all(words.iter().map(|word| self.substitute(node, word)))?
            }
            DeValue::Array(_) if shell => {
                let suggestion = "write one string, or leave `shell` out".to_owned();
                node.wrong_type("a string, because of `shell = true`", Some(suggestion));
                return None;
            }
            _ => {
                let words = node.list("a list of strings or a string")?;
                all(words.iter().map(|word| self.text(word, "a string")))?
            }
        };
        match argv.first().map(String::as_str) {
            None => node.error("the command is empty", None),
            Some("") => node.error("the name of the program is empty", None),
            Some(_) => return Some(argv),
        }
        None
    }

    /// Reads everything of this file but the command.
    pub(super) fn process(&self, spec: &mut JobSpec, settings: &mut Settings<'a>) {
        // Never for a shell, which would read what is in the token.
        let resume = self.layers.own.as_ref().and_then(|t| t.get("resume_command"));
        spec.resume_command = resume.and_then(|n| self.argv(&n, false)).map(Vec::into_boxed_slice);
        settings.default_env = self.env(self.layers.default("env"));
        settings.own_env = self.env(self.layers.own.as_ref().and_then(|t| t.get("env")));
        spec.inherit_env = self.layers.get("inherit_env").and_then(|n| inherit_env(&n));
        settings.cwd = self.layers.get("cwd");
        spec.cwd = settings.cwd.as_ref().and_then(|n| self.path(n));
        settings.user = self.layers.get("user");
        spec.user = settings.user.as_ref().and_then(|n| self.id(n));
        settings.group = self.layers.get("group");
        spec.group = settings.group.as_ref().and_then(|n| self.id(n));
        spec.umask = self.layers.get("umask").and_then(|n| mode(&n));
        spec.rlimits = self.rlimits();
        spec.nice = self.layers.get("nice").and_then(|n| n.integer(-20..=19));
        spec.oom_score_adj = self.layers.get("oom_score_adj").and_then(|n| n.integer(-1000..=1000));
    }

    fn env(&self, node: Option<Node<'a>>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for (name, node) in node.and_then(|n| n.entries("a table of strings")).unwrap_or_default() {
            if let Some(wrong) = wrong_name(name) {
                node.key_error(wrong, None);
                continue;
            }
            let value = match node.value {
                DeValue::Integer(number) => to_i64(number).map(|n| n.to_string()),
                DeValue::Boolean(b) => Some(b.to_string()),
                _ => self.text(&node, "a string"),
            };
            env.extend(value.map(|value| (name.to_owned(), value)));
        }
        env
    }

    /// The files to read variables from, in order.
    pub(super) fn env_files(&self) -> Vec<(PathBuf, Node<'a>)> {
        let Some(node) = self.layers.own.as_ref().and_then(|t| t.get("env_file")) else {
            return Vec::new();
        };
        let nodes = match node.value {
            DeValue::String(_) => vec![node],
            _ => node.list("a path or a list of paths").unwrap_or_default(),
        };
        nodes.into_iter().filter_map(|n| self.path(&n).map(|path| (path.into(), n))).collect()
    }

    /// A user or group: a name or a number.
    fn id(&self, node: &Node<'a>) -> Option<String> {
        match node.value {
            DeValue::Integer(_) => node.integer(0..=u32::MAX - 1).map(|id| id.to_string()),
            _ => self.text(node, "a name or a number"),
        }
    }

    fn rlimits(&self) -> BTreeMap<String, Rlimit> {
        let mut limits = BTreeMap::new();
        let own = self.layers.own.as_ref().and_then(|t| t.get("rlimits"));
        for node in [self.layers.default("rlimits"), own].into_iter().flatten() {
            for (name, node) in node.entries("a table of limits").unwrap_or_default() {
                if RLIMITS.contains(&name) {
                    limits.extend(rlimit(&node).map(|limit| (name.to_owned(), limit)));
                } else {
                    let bare = name.to_lowercase();
                    let bare = bare.strip_prefix("rlimit_").unwrap_or(&bare);
                    let meant = suggest::did_you_mean(bare, RLIMITS.iter().copied());
                    let names = || Some(format!("the limits are {}", RLIMITS.join(", ")));
                    node.key_error("unknown resource limit", meant.or_else(names));
                }
            }
        }
        limits
    }
}

/// `None` inherits everything, as does a value that is an error.
fn inherit_env(node: &Node<'_>) -> Option<Vec<String>> {
    match node.value {
        DeValue::Boolean(true) => None,
        DeValue::Boolean(false) => Some(Vec::new()),
        _ => {
            let mut names = Vec::new();
            for item in node.list("a boolean or a list of names")? {
                let name = item.string("the name of a variable")?;
                match wrong_name(name) {
                    Some(wrong) => item.error(wrong, None),
                    None => names.push(name.to_owned()),
                }
            }
            Some(names)
        }
    }
}

/// A file mode or mask: `"022"` or `0o022`. A plain 22 is refused, for nobody means what it would be.
pub(in super::super) fn mode(node: &Node<'_>) -> Option<u32> {
    let form = "write octal digits, 000 to 777, as in \"022\" or 0o022";
    match node.value {
        DeValue::String(text) => {
            let mode = units::octal(text);
            if mode.is_none() {
                node.error(format!("`{}` is no octal mode", units::shorten(text)), Some(form.into()));
            }
            mode
        }
        DeValue::Integer(number) => {
            let value = to_i64(number).and_then(|n| u32::try_from(n).ok()).filter(|mode| *mode <= 0o777);
            let mode = value.filter(|mode| number.radix() == 8 || *mode == 0);
            if mode.is_none() {
                let octal = units::octal(number.as_str()).filter(|_| number.radix() == 10);
                let suggestion = octal.map_or_else(|| form.into(), |mode| format!("write \"{mode:03o}\""));
                node.error(format!("{number} is no octal mode"), Some(suggestion));
            }
            mode
        }
        _ => {
            node.wrong_type("octal digits", Some(form.into()));
            None
        }
    }
}

fn rlimit(node: &Node<'_>) -> Option<Rlimit> {
    if !matches!(node.value, DeValue::Table(_)) {
        let limit = limit(node, "a number, \"unlimited\" or a table { soft, hard }")?;
        return Some(Rlimit { soft: limit, hard: limit });
    }
    let table = node.table("a table", &["soft", "hard"])?;
    let side = |key: &str| {
        let value = table.get(key);
        if value.is_none() {
            node.missing(&format!("`{key}`"), None);
        }
        value.and_then(|n| limit(&n, "a number or \"unlimited\""))
    };
    let (soft, hard) = (side("soft"), side("hard"));
    let (soft, hard) = (soft?, hard?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        node.error("the soft limit is above the hard limit", None);
        return None;
    }
    Some(Rlimit { soft, hard })
}

/// One limit: `Some(None)` is unlimited, `None` an error that has been reported.
#[expect(clippy::option_option, reason = "the inner one is the unlimited of the specification")]
fn limit(node: &Node<'_>, expected: &str) -> Option<Option<u64>> {
    match node.value {
        DeValue::Integer(_) => node.integer(0..=i64::MAX).and_then(|n| u64::try_from(n).ok()).map(Some),
        DeValue::String(text) if text == "unlimited" => Some(None),
        DeValue::String(text) => {
            let suggestion = "write a number without quotes, or \"unlimited\"".to_owned();
            node.error(format!("`{}` is no limit", units::shorten(text)), Some(suggestion));
            None
        }
        _ => {
            node.wrong_type(expected, None);
            None
        }
    }
}

/// All values, or nothing if one of them is an error; every one is read, so that all errors are reported.
fn all<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    values.collect::<Vec<_>>().into_iter().collect()
}

//! `[health]`: what is checked of the host and of ourselves, and what is done when a check fails.

use toml::de::DeValue;

use crate::core::host::{Act, COMMAND_TIMEOUT, Custom, Kind, Settings, Share};
use crate::core::ids::JobName;
use crate::core::spec::JobSpec;
use crate::core::time::Millis;

use super::super::node::{Node, Table};
use super::policy::some_time;
use super::watch::QUESTIONS;
use super::{Context, Layers, Reader};

/// Every key of `[health]`.
pub(in super::super) const HEALTH_KEYS: &[&str] = &[
    "enabled",
    "interval",
    "timeout",
    "heal_after",
    "memory",
    "disk",
    "inodes",
    "open_files",
    "pids",
    "pressure",
    "on_memory",
    "on_disk",
    "on_inodes",
    "on_open_files",
    "on_pids",
    "on_pressure",
    "on_inotify",
    "on_control",
    "on_event_log",
    "on_keeper",
    "check",
];

/// Every key of `[health.check.NAME]`.
pub(in super::super) const CHECK_KEYS: &[&str] =
    &["exec", "http", "tcp", "unix", "interval", "timeout", "failures", "heal"];

/// Every key of an act that is a table.
pub(in super::super) const ACT_KEYS: &[&str] = &["command", "timeout", "restart"];

/// Acts that are a word.
const ACTS: [(&str, Word); 5] = [
    ("rotate", Word::Rotate),
    ("expire", Word::Expire),
    ("hold-starts", Word::HoldStarts),
    ("stop-lowest", Word::StopLowest),
    ("restart-largest", Word::RestartLargest),
];

#[derive(Clone, Copy)]
enum Word {
    Rotate,
    Expire,
    HoldStarts,
    StopLowest,
    RestartLargest,
}

/// What `[health]` says, and where it names jobs.
#[derive(Default)]
pub(in super::super) struct Health<'a> {
    pub(in super::super) settings: Settings,
    jobs: Vec<(JobName, Node<'a>)>,
}

impl Health<'_> {
    /// Says which jobs are not there.
    pub(in super::super) fn check_jobs(&self, jobs: &[JobSpec]) {
        for (name, node) in &self.jobs {
            let instance = |job: &JobSpec| {
                job.name.as_str().strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(':'))
            };
            if !jobs.iter().any(|job| job.name == *name || instance(job)) {
                node.error(format!("there is no job `{name}`"), None);
            }
        }
    }
}

/// Reads `[health]`.
pub(in super::super) fn read<'a>(context: &Context<'_>, node: &Node<'a>) -> Health<'a> {
    let mut health = Health::default();
    let Some(table) = node.table("a table", HEALTH_KEYS) else { return health };
    let reader = Reader { context, layers: Layers { own: None, defaults: None }, instances: false };
    let settings = &mut health.settings;
    settings.enabled = table.get("enabled").and_then(|n| n.boolean()).unwrap_or(settings.enabled);
    let time = |key: &str, unset: Millis| table.get(key).and_then(|n| some_time(&n)).unwrap_or(unset);
    settings.interval = time("interval", settings.interval);
    settings.timeout = time("timeout", settings.timeout);
    let after = table.get("heal_after").and_then(|n| n.integer(1..=1000));
    settings.heal_after = after.unwrap_or(settings.heal_after);
    for kind in Kind::ALL {
        if LIMITED.contains(&kind)
            && let Some(limit) = table.get(kind.as_str()).and_then(|n| share(&n))
        {
            match limit {
                Some(limit) => settings.limits.insert(kind, limit),
                None => settings.limits.remove(&kind),
            };
        }
        if let Some(node) = table.get(&format!("on_{}", kind.as_str())) {
            settings.on.insert(kind, acts(&reader, &node, &mut health.jobs));
        }
    }
    for (name, node) in
        table.get("check").and_then(|n| n.entries("tables [health.check.NAME]")).unwrap_or_default()
    {
        if let Err(error) = JobName::new(name) {
            node.key_error(error.to_string().replace("job name", "name of a check"), None);
        } else if let Some(custom) = custom(&reader, &node, &mut health.jobs) {
            settings.checks.insert(name.to_owned(), custom);
        }
    }
    health
}

/// What is a share of something.
const LIMITED: [Kind; 6] =
    [Kind::Memory, Kind::Disk, Kind::Inodes, Kind::OpenFiles, Kind::Pids, Kind::Pressure];

fn custom<'a>(
    reader: &Reader<'a, '_>,
    node: &Node<'a>,
    jobs: &mut Vec<(JobName, Node<'a>)>,
) -> Option<Custom> {
    let table: Table<'a> = node.table("a table", CHECK_KEYS)?;
    let asks: Vec<Node<'a>> = QUESTIONS.into_iter().filter_map(|key| table.get(key)).collect();
    let ask = match &asks[..] {
        [one] => reader.question(one),
        [] => {
            node.missing("`exec`, `http`, `tcp` or `unix`", None);
            None
        }
        [_, more, ..] => {
            more.key_error("a check asks one question", None);
            None
        }
    };
    let unset = Settings::default();
    let time = |key: &str, unset: Millis| table.get(key).and_then(|n| some_time(&n)).unwrap_or(unset);
    let (interval, timeout) = (time("interval", unset.interval), time("timeout", unset.timeout));
    let failures = table.get("failures").and_then(|n| n.integer(1..=1000)).unwrap_or(unset.heal_after);
    let heal = table.get("heal").map(|n| acts(reader, &n, jobs)).unwrap_or_default();
    Some(Custom { ask: ask?, interval, timeout, failures, heal })
}

/// A list of acts, or one that is a table.
fn acts<'a>(reader: &Reader<'a, '_>, node: &Node<'a>, jobs: &mut Vec<(JobName, Node<'a>)>) -> Vec<Act> {
    if let DeValue::Table(_) = node.value {
        return act(reader, node, jobs).into_iter().collect();
    }
    let list = node.list("a list of acts, as in [\"rotate\", \"expire\"]").unwrap_or_default();
    list.iter().filter_map(|node| act(reader, node, jobs)).collect()
}

fn act<'a>(reader: &Reader<'a, '_>, node: &Node<'a>, jobs: &mut Vec<(JobName, Node<'a>)>) -> Option<Act> {
    let DeValue::Table(_) = node.value else {
        return node.choice(&ACTS).map(|word| match word {
            Word::Rotate => Act::Rotate,
            Word::Expire => Act::Expire,
            Word::HoldStarts => Act::HoldStarts,
            Word::StopLowest => Act::StopLowest,
            Word::RestartLargest => Act::RestartLargest,
        });
    };
    let table = node.table("an act", ACT_KEYS)?;
    let timeout = table.get("timeout");
    match (table.get("command"), table.get("restart")) {
        (Some(command), None) => {
            let timeout = timeout.map_or(Some(COMMAND_TIMEOUT), |n| some_time(&n));
            Some(Act::Command { argv: reader.argv(&command, false)?, timeout: timeout? })
        }
        (None, Some(restart)) if timeout.is_none() => {
            let text = reader.text(&restart, "the name of a job")?;
            match JobName::new(text.as_str()) {
                Ok(name) => {
                    jobs.push((name.clone(), restart));
                    Some(Act::Restart(name))
                }
                Err(error) => {
                    restart.error(error.to_string(), None);
                    None
                }
            }
        }
        _ => {
            let suggestion = "write { command = [\"…\"], timeout = \"30s\" } or { restart = \"job\" }";
            node.error("an act is one thing", Some(suggestion.to_owned()));
            None
        }
    }
}

/// `"85%"`, or `"off"`.
fn share(node: &Node<'_>) -> Option<Option<Share>> {
    let form = || Some("write \"85%\" or \"off\"".to_owned());
    let DeValue::String(text) = node.value else {
        node.wrong_type("a percentage", form());
        return None;
    };
    if text == "off" {
        return Some(None);
    }
    let share = text.trim().strip_suffix('%').and_then(|number| hundredths(number.trim_end()));
    let share = share.filter(|share| (1..=Share::ALL.0).contains(share));
    if share.is_none() {
        node.error("not a percentage of more than 0 and at most 100", form());
    }
    share.map(|share| Some(Share(share)))
}

/// A number with at most two digits after the point, as hundredths.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
    let part = match part.len() {
        1 => digits(part)? * 10,
        2 => digits(part)?,
        _ => return None,
    };
    digits(whole)?.checked_mul(100)?.checked_add(part)
}

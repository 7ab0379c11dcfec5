//! When a job is started, restarted, stopped, and what happens to it then.

use toml::de::DeValue;

use crate::core::circuit::Breaker;
use crate::core::ids::QueueName;
use crate::core::signal;
use crate::core::spec::{
    JobSpec, KillScope, Kind, Leftovers, OnFatal, OnSupervisorDeath, Recovery, Restart, StartLimit, StopAct,
    StopStep,
};
use crate::core::time::Millis;

use super::super::node::Node;
use super::super::{suggest, units};
use super::{Layers, Reader, default_restart};

pub(in super::super) const BACKOFF_KEYS: &[&str] = &["initial", "factor", "max", "jitter", "reset_after"];
pub(in super::super) const START_LIMIT_KEYS: &[&str] = &["count", "within"];
pub(in super::super) const BREAKER_KEYS: &[&str] = &["failures", "open_for"];
pub(in super::super) const STOP_KEYS: &[&str] = &["signal", "command", "timeout"];

/// How long a rung of the stop ladder has when it does not say.
const STOP_TIMEOUT: Millis = Millis::from_secs(10);

impl<'a> Reader<'a, '_> {
    /// Reads the keys of this file.
    pub(super) fn policy(&self, spec: &mut JobSpec) {
        let get = |key: &str| self.layers.get(key);
        let kinds = [("service", Kind::Service), ("task", Kind::Task)];
        spec.kind = get("kind").and_then(|n| n.choice(&kinds)).unwrap_or_default();
        spec.autostart = get("autostart").and_then(|n| n.boolean()).unwrap_or(spec.autostart);
        let restarts =
            [("always", Restart::Always), ("on-failure", Restart::OnFailure), ("never", Restart::Never)];
        let restart = get("restart").and_then(|n| n.choice(&restarts));
        spec.restart = restart.unwrap_or_else(|| default_restart(spec.kind));
        if let Some(codes) = get("success_codes").and_then(|n| n.list("a list of exit codes")) {
            spec.success_codes = codes.iter().filter_map(|n| n.integer(0..=255)).collect();
        }
        self.backoff(spec);
        self.start_limit(&mut spec.start_limit);
        spec.retry_fatal = get("retry_fatal").and_then(|n| some_time(&n));
        spec.breaker = self.breaker().map(Box::new);
        spec.start_grace = get("start_grace").and_then(|n| duration(&n)).unwrap_or(spec.start_grace);
        if let Some(steps) = get("stop").and_then(|n| self.ladder(&n)) {
            spec.stop = steps;
        }
        let scopes = [
            ("mixed", KillScope::Mixed),
            ("tree", KillScope::Tree),
            ("group", KillScope::Group),
            ("process", KillScope::Process),
        ];
        spec.kill_scope = get("kill_scope").and_then(|n| n.choice(&scopes)).unwrap_or_default();
        let fates = [("stop", Leftovers::Stop), ("wait", Leftovers::Wait), ("ignore", Leftovers::Ignore)];
        spec.leftovers = get("leftovers").and_then(|n| n.choice(&fates)).unwrap_or_default();
        let strategies = [("auto", Recovery::Auto), ("fail", Recovery::Fail), ("manual", Recovery::Manual)];
        spec.recovery = get("recovery").and_then(|n| n.choice(&strategies)).unwrap_or_default();
        let timeout = get("recovery_timeout").and_then(|n| duration(&n));
        spec.recovery_timeout = timeout.unwrap_or(spec.recovery_timeout);
        let fates = [("nothing", OnFatal::Nothing), ("stop-all", OnFatal::StopAll), ("exit", OnFatal::Exit)];
        spec.on_fatal = get("on_fatal").and_then(|n| n.choice(&fates)).unwrap_or_default();
        let priority = get("priority").and_then(|n| n.integer(-1_000_000..=1_000_000));
        spec.priority = priority.unwrap_or(spec.priority);
        spec.queue = get("queue").and_then(|n| queue(&n));
        spec.retries = get("retries").and_then(|n| n.integer(0..=1_000_000));
        spec.on_supervisor_death =
            get("on_supervisor_death").and_then(|n| on_supervisor_death(&n)).unwrap_or_default();
    }

    fn backoff(&self, spec: &mut JobSpec) {
        let layers = self.layers.nested("backoff", BACKOFF_KEYS);
        let length = |key: &str, unset: Millis| layers.get(key).and_then(|n| duration(&n)).unwrap_or(unset);
        let backoff = &mut spec.backoff;
        backoff.initial = length("initial", backoff.initial);
        backoff.max = length("max", backoff.max);
        backoff.reset_after = length("reset_after", backoff.reset_after);
        let number = |key: &str, low: f64, high: f64, wanted: &str| {
            let node = layers.get(key)?;
            let value = node.number()?;
            if !(low..=high).contains(&value) {
                node.error(format!("{value} is not {wanted}"), None);
                return None;
            }
            Some(value)
        };
        let factor = number("factor", 1.0, f64::MAX, "1.0 or more");
        backoff.factor = factor.unwrap_or(backoff.factor);
        backoff.jitter = number("jitter", 0.0, 1.0, "between 0.0 and 1.0").unwrap_or(backoff.jitter);
        if backoff.initial > backoff.max {
            match (layers.get("initial"), layers.get("max")) {
                (Some(initial), Some(_)) => initial.error("`initial` is longer than `max`", None),
                // Whoever wants a long first delay and says no more does not want it cut short.
                _ => backoff.max = backoff.initial,
            }
        }
    }

    fn start_limit(&self, limit: &mut StartLimit) {
        start_limit(&self.layers.nested("start_limit", START_LIMIT_KEYS), limit);
    }

    /// The circuit breaker: `true` for its defaults, `false` for none, or a table.
    fn breaker(&self) -> Option<Breaker> {
        let node = self.layers.get("breaker")?;
        if let DeValue::Boolean(on) = node.value {
            return on.then(Breaker::default);
        }
        let table = node.table("`true` or a table { failures, open_for }", BREAKER_KEYS)?;
        let unset = Breaker::default();
        let failures = table.get("failures").map_or(Some(unset.failures), |n| n.integer(1..=u32::MAX));
        let open_for = table.get("open_for").map_or(Some(unset.open_for), |n| some_time(&n));
        Some(Breaker { failures: failures?, open_for: open_for? })
    }

    /// The stop ladder: one step, or a list of them.
    fn ladder(&self, node: &Node<'a>) -> Option<Vec<StopStep>> {
        let expected = "a table { signal, timeout } or a list of such tables";
        match node.value {
            DeValue::Table(_) => self.step(node).map(|step| vec![step]),
            DeValue::String(name) => {
                node.wrong_type(
                    expected,
                    Some(format!("write {{ signal = \"{name}\", timeout = \"10s\" }}")),
                );
                None
            }
            _ => {
                let steps = node.list(expected)?;
                if steps.is_empty() {
                    let suggestion = "write { signal = \"KILL\" } to kill without asking".to_owned();
                    node.error("the stop ladder is empty", Some(suggestion));
                }
                Some(steps.iter().filter_map(|step| self.step(step)).collect())
            }
        }
    }

    fn step(&self, node: &Node<'a>) -> Option<StopStep> {
        let table = node.table("a table { signal, timeout } or { command, timeout }", STOP_KEYS)?;
        let timeout = table.get("timeout").map_or(Some(STOP_TIMEOUT), |n| duration(&n));
        let act = match (table.get("signal"), table.get("command")) {
            (Some(signal), None) => self.signal(&signal).map(StopAct::Signal),
            (None, Some(command)) => self.argv(&command, false).map(StopAct::Command),
            // A step that only says how long asks as every stop does.
            (None, None) if table.get("timeout").is_some() => Some(StopAct::Signal(signal::TERM)),
            (None, None) => {
                node.missing("`signal` or `command`", None);
                None
            }
            (Some(_), Some(command)) => {
                let suggestion = "make two steps of it: [{ command = … }, { signal = … }]".to_owned();
                command.key_error("a step has a `signal` or a `command`, not both", Some(suggestion));
                None
            }
        };
        Some(StopStep { act: act?, timeout: timeout? })
    }

    pub(super) fn signal(&self, node: &Node<'a>) -> Option<i32> {
        if let DeValue::Integer(_) = node.value {
            return node.integer(1..=64);
        }
        let text = self.text(node, "a signal")?;
        let number = signal::parse(&text);
        if number.is_none() {
            let upper = text.trim().to_ascii_uppercase();
            let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
            let meant = suggest::did_you_mean(bare, (1..=31).filter_map(signal::name));
            node.error(format!("unknown signal `{}`", units::shorten(&text)), meant);
        }
        number
    }
}

fn on_supervisor_death(node: &Node<'_>) -> Option<OnSupervisorDeath> {
    let form = "write \"keep\", \"kill\" or { kill_after = \"30s\" }";
    match node.value {
        DeValue::String(word) if word == "kill_after" => {
            node.error("`kill_after` needs a time", Some("write { kill_after = \"30s\" }".into()));
            None
        }
        DeValue::String(_) => {
            node.choice(&[("keep", OnSupervisorDeath::Keep), ("kill", OnSupervisorDeath::Kill)])
        }
        DeValue::Table(_) => {
            let table = node.table("a table", &["kill_after"])?;
            let Some(after) = table.get("kill_after") else {
                node.missing("`kill_after`", Some(form.into()));
                return None;
            };
            duration(&after).map(OnSupervisorDeath::KillAfter)
        }
        _ => {
            node.wrong_type("\"keep\", \"kill\" or a table { kill_after }", Some(form.into()));
            None
        }
    }
}

/// So many starts within a time.
pub(in super::super) fn start_limit(layers: &Layers<'_>, limit: &mut StartLimit) {
    limit.count = layers.get("count").and_then(|n| n.integer(0..=u32::MAX)).unwrap_or(limit.count);
    if let Some(node) = layers.get("within")
        && let Some(within) = duration(&node)
    {
        if within == Millis(0) && limit.count > 0 {
            let suggestion = "`count = 0` switches the limit off".to_owned();
            node.error("no start fits in a time of zero", Some(suggestion));
        }
        limit.within = within;
    }
}

/// A duration that is not nothing.
pub(super) fn some_time(node: &Node<'_>) -> Option<Millis> {
    let time = duration(node)?;
    if time == Millis(0) {
        node.error("no time at all", Some("leave the key out for its default".to_owned()));
        return None;
    }
    Some(time)
}

/// A duration: text with a unit. A bare number is refused, for it does not say of what.
pub(in super::super) fn duration(node: &Node<'_>) -> Option<Millis> {
    match node.value {
        DeValue::String(text) => units::duration(text).map_err(|bad| node.bad(bad)).ok(),
        DeValue::Integer(number) => {
            node.error(format!("{number} has no unit"), Some(format!("write \"{number}s\" for seconds")));
            None
        }
        _ => {
            node.wrong_type("a duration", Some("write it as in \"500ms\" or \"1m30s\"".into()));
            None
        }
    }
}

/// Whether there is such a queue is looked at when all are known.
fn queue(node: &Node<'_>) -> Option<QueueName> {
    let text = node.string("the name of a queue")?;
    QueueName::new(text).map_err(|error| node.error(error.to_string(), None)).ok()
}

//! How the runs of a job are watched.

use toml::de::DeValue;

use crate::core::spec::{JobSpec, OutputMode};
use crate::core::time::Millis;
use crate::core::watch::{
    BeatFile, FrozenStep, Heartbeat, Limits, NOTIFY_TIMEOUT, OnExceed, Probe, ProbeAsk, Probes,
    READY_TIMEOUT, Ready, ReadyBy, Role, STEP_WAIT, Watch, http_port,
};

use super::super::node::{Node, Table};
use super::super::substitute;
use super::output::size;
use super::policy::{duration, some_time};
use super::{Layers, Reader};

pub(in super::super) const HEARTBEAT_KEYS: &[&str] = &["notify", "output", "cpu", "file"];
pub(in super::super) const BEAT_FILE_KEYS: &[&str] = &["path", "timeout"];
pub(in super::super) const PROBE_ROLES: &[&str] = &["startup", "readiness", "liveness"];
pub(in super::super) const PROBE_KEYS: &[&str] =
    &["exec", "http", "tcp", "unix", "interval", "timeout", "failures", "successes", "delay"];
/// What a probe, or a check, can ask by.
pub(super) const QUESTIONS: [&str; 4] = ["exec", "http", "tcp", "unix"];
pub(in super::super) const READY_KEYS: &[&str] = &["notify", "fd", "log", "probe", "timeout"];
pub(in super::super) const LIMIT_KEYS: &[&str] = &["memory", "cpu", "pids", "on_exceed"];
/// What a limit can be on.
const LIMITED: [&str; 3] = ["memory", "cpu", "pids"];
pub(in super::super) const FROZEN_KEYS: &[&str] = &["continue", "dump", "wait"];

impl<'a> Reader<'a, '_> {
    /// Reads the keys of this file.
    pub(super) fn watch(&self, spec: &mut JobSpec) {
        let get = |key: &str| self.layers.get(key);
        let mut watch = Watch {
            heartbeat: self.heartbeat(),
            probe: self.probes(),
            ready: get("ready").and_then(|n| self.ready(&n)),
            max_runtime: get("max_runtime").and_then(|n| some_time(&n)),
            progress_timeout: get("progress_timeout").and_then(|n| some_time(&n)),
            limits: self.limits(),
            on_frozen: get("on_frozen").and_then(|n| self.frozen_ladder(&n)),
        };
        let asks = watch.probe.readiness.is_some() || watch.probe.startup.is_some();
        match &watch.ready {
            Some(Ready { by: ReadyBy::Probe, .. }) if !asks => {
                if let Some(node) = get("ready") {
                    let suggestion = "write probe.readiness = { http = \"http://…\" }".to_owned();
                    node.error("there is no readiness or startup probe", Some(suggestion));
                }
            }
            // Who asks whether it can be used wants to wait for a yes.
            None if asks => watch.ready = Some(Ready { by: ReadyBy::Probe, timeout: READY_TIMEOUT }),
            Some(_) | None => {}
        }
        let by_log = matches!(watch.ready, Some(Ready { by: ReadyBy::Log(_), .. }));
        if spec.output.mode == OutputMode::None {
            let uncaptured = |node: Option<Node<'_>>| {
                if let Some(node) = node {
                    node.error(
                        "no output is captured",
                        Some("leave out `output.mode = \"none\"`".to_owned()),
                    );
                }
            };
            uncaptured(get("heartbeat").filter(|_| watch.heartbeat.output.is_some()));
            uncaptured(get("ready").filter(|_| by_log));
        }
        spec.watch = (!watch.is_empty()).then(|| Box::new(watch));
    }

    fn heartbeat(&self) -> Heartbeat {
        let layers = self.layers.nested("heartbeat", HEARTBEAT_KEYS);
        let time = |key: &str| layers.get(key).and_then(|n| some_time(&n));
        Heartbeat {
            notify: layers.get("notify").and_then(|n| match n.value {
                DeValue::Boolean(true) => Some(NOTIFY_TIMEOUT),
                _ => some_time(&n),
            }),
            output: time("output"),
            cpu: time("cpu"),
            file: layers.get("file").and_then(|n| self.beat_file(&n)),
        }
    }

    fn beat_file(&self, node: &Node<'a>) -> Option<BeatFile> {
        let table = node.table("a table { path, timeout }", BEAT_FILE_KEYS)?;
        let (path, timeout) = (table.get("path"), table.get("timeout"));
        if path.is_none() {
            node.missing("`path`", None);
        }
        if timeout.is_none() {
            node.missing("`timeout`", Some("write { path = \"…\", timeout = \"1m\" }".to_owned()));
        }
        Some(BeatFile { path: self.path(&path?)?, timeout: some_time(&timeout?)? })
    }

    fn probes(&self) -> Probes {
        let layers = self.layers.nested("probe", PROBE_ROLES);
        let probe = |role: Role| self.probe(&layers, role);
        Probes {
            startup: probe(Role::Startup),
            readiness: probe(Role::Readiness),
            liveness: probe(Role::Liveness),
        }
    }

    fn probe(&self, roles: &Layers<'a>, role: Role) -> Option<Probe> {
        let node = roles.get(role.as_str())?;
        let layers = roles.nested(role.as_str(), PROBE_KEYS);
        let asks: Vec<Node<'a>> = QUESTIONS.into_iter().filter_map(|key| layers.get(key)).collect();
        let ask = match &asks[..] {
            [one] => self.question(one)?,
            [] => {
                node.missing("`exec`, `http`, `tcp` or `unix`", None);
                return None;
            }
            [_, more, ..] => {
                more.key_error("a probe asks one question", None);
                return None;
            }
        };
        let mut probe = Probe::new(ask);
        let time = |key: &str, unset: Millis| layers.get(key).and_then(|n| some_time(&n)).unwrap_or(unset);
        probe.interval = time("interval", probe.interval);
        probe.timeout = time("timeout", probe.timeout);
        probe.delay = layers.get("delay").and_then(|n| duration(&n)).unwrap_or(probe.delay);
        let count =
            |key: &str, unset: u32| layers.get(key).and_then(|n| n.integer(1..=1000)).unwrap_or(unset);
        probe.failures = count("failures", probe.failures);
        probe.successes = count("successes", probe.successes);
        Some(probe)
    }

    pub(super) fn question(&self, node: &Node<'a>) -> Option<ProbeAsk> {
        let key = node.key.rsplit('.').next().unwrap_or_default();
        if key == "exec" {
            return self.argv(node, false).map(ProbeAsk::Exec);
        }
        if key == "unix" {
            return self.path(node).map(ProbeAsk::Unix);
        }
        let text = self.text(node, "a string")?;
        if key == "http" {
            let authority = text.strip_prefix("http://").and_then(|rest| rest.split(['/', '?', '#']).next());
            let wrong = match authority {
                None | Some("") => "not an http:// address",
                // The number of an instance may be part of it.
                Some(authority) if !substitute::has_instance(authority) && http_port(authority).is_none() => {
                    "the port is not a number from 1 to 65535"
                }
                Some(_) => return Some(ProbeAsk::Http(text)),
            };
            node.error(wrong, Some("write \"http://127.0.0.1:8080/health\"".to_owned()));
            return None;
        }
        let port =
            text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        match port {
            // The number of an instance may be part of it.
            _ if substitute::has_instance(&text) => Some(ProbeAsk::Tcp(text)),
            Some(Ok(port)) if port > 0 => Some(ProbeAsk::Tcp(text)),
            _ => {
                node.error("not a host and a port", Some("write \"127.0.0.1:8080\"".to_owned()));
                None
            }
        }
    }

    fn ready(&self, node: &Node<'a>) -> Option<Ready> {
        let table = node.table("a table { notify | fd | log | probe, timeout }", READY_KEYS)?;
        let timeout = table.get("timeout").map_or(Some(READY_TIMEOUT), |n| some_time(&n));
        let ways: Vec<Node<'a>> =
            ["notify", "fd", "log", "probe"].into_iter().filter_map(|key| table.get(key)).collect();
        let by = match &ways[..] {
            [one] => self.ready_by(one, &table)?,
            [] => {
                node.missing("`notify`, `fd`, `log` or `probe`", None);
                return None;
            }
            [_, more, ..] => {
                more.key_error("a run tells by one way that it is ready", None);
                return None;
            }
        };
        Some(Ready { by, timeout: timeout? })
    }

    fn ready_by(&self, node: &Node<'a>, table: &Table<'a>) -> Option<ReadyBy> {
        if let Some(fd) = table.get("fd") {
            return fd.integer(3..=255).map(ReadyBy::Fd);
        }
        if let Some(log) = table.get("log") {
            let text = log.string("a regular expression")?;
            if let Err(error) = regex::bytes::Regex::new(text) {
                // The first lines of the message draw the expression, the last one says what is wrong.
                let why = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                log.error(format!("not a regular expression: {why}"), None);
                return None;
            }
            return Some(ReadyBy::Log(text.to_owned()));
        }
        let by = if table.get("notify").is_some() { ReadyBy::Notify } else { ReadyBy::Probe };
        if node.boolean()? {
            return Some(by);
        }
        node.error("`false` says nothing; leave `ready` out", None);
        None
    }

    fn limits(&self) -> Limits {
        let layers = self.layers.nested("limits", LIMIT_KEYS);
        let memory = layers.get("memory").and_then(|n| size(&n).map(|bytes| (bytes, n)));
        if let Some((0, node)) = &memory {
            node.error("no run fits in that", None);
        }
        // The defaults may say what is done about limits that only some jobs have.
        if let Some(own) = &layers.own
            && let Some(node) = own.get("on_exceed")
            && !LIMITED.iter().any(|key| layers.get(key).is_some() || own.has_slip_of(key))
        {
            let suggestion = "write limits = { memory = \"512MB\", on_exceed = … }".to_owned();
            node.key_error("there is no limit to exceed", Some(suggestion));
        }
        Limits {
            memory: memory.map(|(bytes, _)| bytes),
            cpu: layers.get("cpu").and_then(|n| percent(&n)),
            pids: layers.get("pids").and_then(|n| n.integer(1..=u32::MAX)),
            on_exceed: layers.get("on_exceed").and_then(|n| self.on_exceed(&n)).unwrap_or_default(),
        }
    }

    fn on_exceed(&self, node: &Node<'a>) -> Option<OnExceed> {
        if let DeValue::Table(_) = node.value {
            let table = node.table("a table { signal }", &["signal"])?;
            let Some(signal) = table.get("signal") else {
                node.missing("`signal`", None);
                return None;
            };
            return self.signal(&signal).map(OnExceed::Signal);
        }
        node.choice(&[("restart", OnExceed::Restart), ("stop", OnExceed::Stop), ("notify", OnExceed::Notify)])
    }

    fn frozen_ladder(&self, node: &Node<'a>) -> Option<Vec<FrozenStep>> {
        let steps = node.list("a list of steps, as in [\"continue\", \"stop\", \"restart\"]")?;
        let read: Vec<FrozenStep> = steps.iter().filter_map(|step| self.frozen_step(step)).collect();
        let ends = |step: &FrozenStep| matches!(step, FrozenStep::Stop | FrozenStep::Restart);
        for (i, step) in read.iter().enumerate().skip(1) {
            let after = &read[i - 1];
            if ends(after) && (!ends(step) || step == after || *after == FrozenStep::Restart) {
                let word = if *after == FrozenStep::Stop { "stop" } else { "restart" };
                let suggestion = "the list ends with \"stop\", \"restart\", or both in this order".to_owned();
                node.error(format!("nothing can be done after \"{word}\""), Some(suggestion));
                break;
            }
        }
        Some(read)
    }

    fn frozen_step(&self, node: &Node<'a>) -> Option<FrozenStep> {
        if let DeValue::Table(_) = node.value {
            let table = node.table("a step", FROZEN_KEYS)?;
            let wait = table.get("wait").map(|n| duration(&n));
            return match (table.get("continue"), table.get("dump")) {
                (Some(time), None) => {
                    if let Some(wait) = table.get("wait") {
                        wait.key_error("the time of `continue` is how long it waits; leave `wait` out", None);
                    }
                    some_time(&time).map(|wait| FrozenStep::Continue { wait })
                }
                (None, Some(signal)) => Some(FrozenStep::Dump {
                    signal: Some(self.signal(&signal)?),
                    wait: wait.unwrap_or(Some(STEP_WAIT))?,
                }),
                _ => {
                    let suggestion =
                        "write { continue = \"2s\" } or { dump = \"QUIT\", wait = \"5s\" }".to_owned();
                    node.error("a step is one thing", Some(suggestion));
                    None
                }
            };
        }
        node.choice(&[
            ("continue", FrozenStep::Continue { wait: STEP_WAIT }),
            ("dump", FrozenStep::Dump { signal: None, wait: Millis(0) }),
            ("stop", FrozenStep::Stop),
            ("restart", FrozenStep::Restart),
        ])
    }
}

/// A share of one core: `50`, `"50%"`, `"250%"`.
fn percent(node: &Node<'_>) -> Option<u32> {
    let DeValue::String(text) = node.value else { return node.integer(1..=1_000_000) };
    let number = text.trim().strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    let number = number.filter(|n| (1..=1_000_000).contains(n));
    if number.is_none() {
        node.error("not a percentage", Some("write \"150%\": a core and a half".to_owned()));
    }
    number
}

/// Puts the number of an instance into every text.
pub(super) fn instantiate(watch: &mut Watch, put: impl Fn(&mut String)) {
    let Probes { startup, readiness, liveness } = &mut watch.probe;
    for probe in [startup, readiness, liveness].into_iter().flatten() {
        match &mut probe.ask {
            ProbeAsk::Exec(argv) => argv.iter_mut().for_each(&put),
            ProbeAsk::Http(text) | ProbeAsk::Tcp(text) | ProbeAsk::Unix(text) => put(text),
        }
    }
    if let Some(file) = &mut watch.heartbeat.file {
        put(&mut file.path);
    }
}

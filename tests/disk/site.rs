//! One instance on a disk of its own, with jobs that show whether anything is lost, and the memory of what
//! it has acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::common::{Daemon, Gate, job, procs, until};

/// Where the state is, relative to the instance's directory.
pub const STATE: &str = "disk/state";

/// Names of jobs that do nothing but run, and are started and stopped.
pub const IDLE: [&str; 3] = ["a", "b", "c"];

/// The code that the job at the door ends with.
pub const CODE: i64 = 7;

/// An instance whose state is on the disk under test, and whose jobs write elsewhere.
pub struct Site {
    pub daemon: Daemon,
    pub door: Gate,
    /// What was promised.
    pub promised: Promised,
}

/// What was answered with success.
#[derive(Debug, Default)]
pub struct Promised {
    /// Whether a job is wanted.
    pub wants: BTreeMap<String, bool>,
    /// Jobs of which it is not known: the answer said so, or did not come.
    pub unsure: BTreeSet<String>,
}

/// A ticker, a job at a door, one that is restarted whenever it ends, and some to play with. Their output is
/// not on the disk with the state.
fn jobs() -> String {
    let out = "output = { dir = \"@dir@/out\" }";
    let again = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 0 }";
    let one = |name: &str, script: &str, more: &str| {
        let script = format!("lock @dir@/{name}.lock mark @dir@/marks {script}");
        job(name, &script, &format!("{more}\n{out}"))
    };
    let mut jobs = vec![
        one("ticker", "lines 0 2ms", ""),
        one("door", &format!("gate @dir@/door exit {CODE}"), "kind = \"task\""),
        one("again", "hang", again),
    ];
    jobs.extend(IDLE.map(|name| one(name, "hang", again)));
    jobs.concat()
}

impl Site {
    /// Directories and configuration; the disk is still to be mounted at `disk`.
    pub fn prepare() -> Self {
        Self::with_fault(None)
    }

    /// The same, with a mistake built in.
    pub fn with_fault(fault: Option<&str>) -> Self {
        let mut daemon = Daemon::prepare(&jobs());
        daemon.state = STATE;
        daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
        daemon.env.extend(fault.map(|fault| ("OUTLIVE_TEST_FAULT".to_owned(), fault.to_owned())));
        std::fs::create_dir(daemon.path("out")).unwrap();
        let door = daemon.gate("door");
        Self { daemon, door, promised: Promised::default() }
    }

    /// Starts it and waits until everything runs.
    #[track_caller]
    pub fn up(&mut self) {
        self.daemon.up();
        for name in ["ticker", "door", "again"].into_iter().chain(IDLE) {
            self.daemon.wait_running(name);
        }
        until("all marks", || (self.starts().len() == 6).then_some(()));
        self.promised.wants.extend(IDLE.map(|name| (name.to_owned(), true)));
    }

    /// Asks for a job to be started or stopped, and keeps what was answered. The code and the body.
    #[track_caller]
    pub fn want(&mut self, name: &str, up: bool) -> (u16, Value) {
        let verb = if up { "start" } else { "stop" };
        let reply = self.daemon.post(&format!("/v1/jobs/{name}/{verb}"), &Value::Null);
        if reply.code == 200 {
            self.promised.wants.insert(name.to_owned(), up);
            self.promised.unsure.remove(name);
        } else if reply.text().contains("not known whether") {
            self.promised.unsure.insert(name.to_owned());
        }
        (reply.code, reply.json())
    }

    /// Asks again for what nobody promised and nobody refused, and waits until all of it is so.
    #[track_caller]
    pub fn make_sure(&mut self) {
        for name in std::mem::take(&mut self.promised.unsure) {
            let up = self.promised.wants[&name];
            assert_eq!(self.want(&name, up).0, 200, "{name}");
        }
        for (name, up) in &self.promised.wants {
            let name = name.as_str();
            self.daemon.wait_state(name, if *up { "running" } else { "stopped" });
        }
        until("a mark of every run", || {
            let (starts, status) = (self.starts(), self.daemon.try_status()?);
            let mut jobs = status["jobs"].as_array()?.iter().filter(|job| job["pid"].is_i64());
            jobs.all(|job| starts.contains_key(job["run"].as_str().unwrap_or_default())).then_some(())
        });
    }

    /// Changes things until the disk refuses one; what it answered then.
    #[track_caller]
    pub fn until_refused(&mut self) -> Value {
        for n in 0..2000 {
            let name = IDLE[n % IDLE.len()];
            let up = !self.promised.wants[name];
            let (code, body) = self.want(name, up);
            match code {
                200 => {}
                503 => return body,
                _ => panic!("{code}: {body:#}"),
            }
        }
        panic!("a full disk takes everything");
    }

    /// Every verb that changes something is refused with a reason that has this in it.
    #[track_caller]
    pub fn assert_all_refused(&self, reason: &str) {
        let run = json!({"command": ["/bin/true"]});
        for (path, body) in [
            ("/v1/jobs/a/start", &Value::Null),
            ("/v1/jobs/a/stop", &Value::Null),
            ("/v1/jobs/a/restart", &Value::Null),
            ("/v1/run", &run),
            ("/v1/reload", &Value::Null),
        ] {
            let reply = self.daemon.post(path, body);
            assert_eq!(reply.code, 503, "{path}: {}", reply.text());
            let said = reply.json();
            assert_eq!(said["code"], "read_only", "{path}: {said:#}");
            assert!(said["error"].as_str().unwrap().contains(reason), "{path}: {said:#}");
        }
        let status = self.daemon.status();
        assert_eq!(status["instance"]["state"], "read_only", "{status:#}");
        let marks = status["instance"]["degraded_resources"].as_array().unwrap();
        let mark = marks.iter().find(|mark| mark["resource"] == "journal");
        assert!(mark.is_some_and(|mark| mark.to_string().contains(reason)), "{status:#}");
        // It cannot be recorded, and is said all the same.
        until("the alert", || {
            let status = self.daemon.status();
            let alerts = status["alerts"].as_array()?.iter();
            alerts.map(|alert| alert["id"] == "SYNC_FAILURES").find(|is| *is)
        });
    }

    /// Lines of the ticker that were captured.
    pub fn ticks(&self) -> usize {
        self.daemon.log("ticker").lines().count()
    }

    /// Capture goes on.
    #[track_caller]
    pub fn assert_ticking(&self) {
        let before = self.ticks();
        until("more lines of the ticker", || (self.ticks() > before + 20).then_some(()));
    }

    /// How often each run marked its start.
    pub fn starts(&self) -> BTreeMap<String, u32> {
        let mut starts = BTreeMap::new();
        for line in self.daemon.read("marks").lines() {
            *starts.entry(line.split(' ').nth(2).unwrap_or_default().to_owned()).or_insert(0) += 1;
        }
        starts
    }

    /// Waits until the event log is written again.
    #[track_caller]
    pub fn wait_healed(&self) {
        until("an event log that can be written", || {
            let status = self.daemon.try_status()?;
            (status["instance"]["state"] == "running").then_some(())
        });
    }

    /// What was promised holds, nothing was started twice, and the log and the processes say the same.
    #[track_caller]
    pub fn assert_kept(&self) {
        for (name, up) in &self.promised.wants {
            if !self.promised.unsure.contains(name) {
                self.daemon.wait_state(name, if *up { "running" } else { "stopped" });
            }
        }
        let faults = self.faults();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// What does not hold of that by now.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let status = self.daemon.status();
        let jobs = status["jobs"].as_array().unwrap();
        for (name, up) in &self.promised.wants {
            let job = jobs.iter().find(|job| job["name"] == name.as_str()).unwrap_or(&Value::Null);
            let want = if *up { "up" } else { "down" };
            if job["want"] != want && !self.promised.unsure.contains(name) {
                faults.push(format!("{name} is to be {want}: {job}"));
            }
        }
        let mut expected = Some(1);
        for line in self.daemon.event_lines() {
            let seq = line["seq"].as_u64().unwrap();
            if expected.is_some_and(|expected| seq != expected) {
                faults.push(format!("{expected:?} is missing before {seq}"));
            }
            expected = Some(seq + 1);
        }
        let mut seen = BTreeSet::new();
        for event in self.daemon.events() {
            if event["k"] == "run.requested" && !seen.insert(event["run"].as_str().unwrap().to_owned()) {
                faults.push(format!("asked for twice: {event}"));
            }
        }
        for (run, count) in self.starts() {
            if count != 1 || !seen.contains(&run) {
                faults.push(format!("{run} was started {count} times; in the log: {}", seen.contains(&run)));
            }
        }
        for name in ["ticker", "door", "again"].into_iter().chain(IDLE) {
            if !self.daemon.read(&format!("{name}.lock.overlap")).is_empty() {
                faults.push(format!("two runs of {name} at once"));
            }
        }
        let alive: BTreeSet<String> = self
            .daemon
            .processes()
            .into_iter()
            .filter_map(|process| match process.part {
                procs::Part::Run(run) => Some(run),
                _ => None,
            })
            .collect();
        let known = jobs.iter().filter(|job| job["pid"].is_i64());
        let known: BTreeSet<String> = known.filter_map(|job| Some(job["run"].as_str()?.to_owned())).collect();
        if alive != known {
            faults.push(format!("{alive:?} live, {known:?} are known"));
        }
        faults
    }

    /// The job at the door has ended once, as it was told to.
    #[track_caller]
    pub fn assert_door_told(&self) {
        assert_eq!(self.daemon.wait_ended("door")["code"], CODE);
        assert_eq!(self.daemon.events_of("run.ended", "door").len(), 1);
    }
}

//! The judge: when each check is due, what its answers mean, and what is to be done.
//!
//! A check that does not answer in time has failed, and goes on failing once in each interval while it hangs; it
//! is not begun again before it is back. Acts are due when a check has failed so often in a row, and again after
//! as many more failures. A failed check stays failed until it is well below its limit; in between it neither
//! counts as another failure nor as well.

use std::collections::{BTreeMap, VecDeque};

use super::super::time::Stamp;
use super::super::watch::ProbeAsk;
use super::{Act, CLEARANCE, Kind, Settings, Share};

/// Results that the trend is told from.
const TREND: usize = 10;

/// From which difference on things get better or worse.
const TREND_POINTS: i64 = 500;

/// Below this score the instance is unhealthy.
const CRITICAL: u32 = 50;

/// Below this score it is degraded.
const WARNING: u32 = 70;

/// Where a check looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// At the host or at ourselves.
    At(Kind),
    /// At the file system of a path.
    On(Kind, String),
    /// At the answer to a question.
    Ask(ProbeAsk),
}

impl Look {
    /// Which kind it is; `None`: configured.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        match self {
            Self::At(kind) | Self::On(kind, _) => Some(*kind),
            Self::Ask(_) => None,
        }
    }
}

/// What a check has shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// How much is in use; `None` where it is only a question of yes or no.
    pub share: Option<Share>,
    /// The same in words.
    pub text: String,
    /// The file system it is about.
    pub device: Option<u64>,
}

/// A check to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Its name.
    pub name: String,
    /// Which time; the answer has to say so.
    pub serial: u64,
    /// Where to look.
    pub look: Look,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heal {
    /// The check that has failed.
    pub check: String,
    /// What.
    pub act: Act,
    /// What is wrong.
    pub why: String,
}

/// What follows from time, or from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Checks to be begun.
    pub begin: Vec<Begin>,
    /// What is to be done, in order.
    pub heals: Vec<Heal>,
    /// Checks that have failed now, or are well again, and what is wrong.
    pub turned: Vec<(String, Option<String>)>,
}

/// How a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Not known yet.
    Unknown,
    /// Well.
    Ok,
    /// It has failed, but not often enough to mean anything.
    Failing,
    /// It has failed.
    Failed,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Ok, Self::Failing, Self::Failed];

    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Failed => "failed",
        }
    }
}

/// Where things are going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trend {
    /// Better by five points or more.
    Improving,
    /// Neither.
    Stable,
    /// Worse by five points or more.
    Degrading,
}

impl Trend {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Improving => "improving",
            Self::Stable => "stable",
            Self::Degrading => "degrading",
        }
    }
}

/// How everything is together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    /// Nothing is wrong.
    Healthy,
    /// Something has failed.
    Degraded,
    /// Most of it has failed, or something that nothing makes up for.
    Unhealthy,
}

impl Overall {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A look that is not back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UnderWay {
    serial: u64,
    hangs: bool,
}

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Where it looks.
    pub look: Look,
    /// From which share on it fails.
    pub limit: Option<Share>,
    /// Failures in a row that mean something.
    pub failures: u32,
    /// Failures in a row so far.
    pub count: u32,
    /// What the latest answer was.
    pub last: Option<Result<Reading, String>>,
    /// When.
    pub at: Stamp,
    acts: Vec<Act>,
    interval_us: u64,
    timeout_us: u64,
    failed: bool,
    /// Why it fails.
    why: Option<String>,
    /// Whether it was well once.
    was_well: bool,
    due_us: u64,
    began_us: u64,
    under_way: Option<UnderWay>,
    /// How well it was, the latest last.
    points: VecDeque<u32>,
}

impl Check {
    fn new(name: String, look: Look, (settings, due_us): (&Settings, u64)) -> Self {
        let kind = look.kind();
        Self {
            name,
            limit: kind.and_then(|kind| settings.limits.get(&kind).copied()),
            acts: kind.and_then(|kind| settings.on.get(&kind).cloned()).unwrap_or_default(),
            look,
            failures: settings.heal_after.max(1),
            interval_us: settings.interval.0.saturating_mul(1000).max(1),
            timeout_us: settings.timeout.0.saturating_mul(1000).max(1),
            count: 0,
            last: None,
            at: Stamp::default(),
            failed: false,
            why: None,
            was_well: false,
            due_us,
            began_us: 0,
            under_way: None,
            points: VecDeque::new(),
        }
    }

    /// How it is.
    #[must_use]
    pub const fn condition(&self) -> Condition {
        match (self.failed, self.count, &self.last) {
            (true, _, _) => Condition::Failed,
            (false, 1.., _) => Condition::Failing,
            (false, 0, Some(_)) => Condition::Ok,
            (false, 0, None) => Condition::Unknown,
        }
    }

    /// What is wrong, if it has failed.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.why.as_deref().filter(|_| self.failed)
    }

    /// What is wrong, or what it has shown, in words.
    #[must_use]
    pub fn words(&self) -> &str {
        match (&self.why, &self.last) {
            (Some(why), _) | (None, Some(Err(why))) => why,
            (None, Some(Ok(reading))) => &reading.text,
            (None, None) => "",
        }
    }

    /// What it has shown.
    #[must_use]
    pub fn share(&self) -> Option<Share> {
        self.last.as_ref()?.as_ref().ok()?.share
    }

    /// Where it is going: the mean of the newer half of the last ten results against that of the older half.
    #[must_use]
    pub fn trend(&self) -> Trend {
        let half = self.points.len() / 2;
        if half == 0 {
            return Trend::Stable;
        }
        let sum = |points: &mut dyn Iterator<Item = &u32>| points.map(|n| i64::from(*n)).sum::<i64>();
        let older = sum(&mut self.points.iter().take(half));
        let newer = sum(&mut self.points.iter().rev().take(half));
        let by = (newer - older) / i64::try_from(half).unwrap_or(1);
        if by >= TREND_POINTS {
            Trend::Improving
        } else if by <= -TREND_POINTS {
            Trend::Degrading
        } else {
            Trend::Stable
        }
    }

    /// 0 to 100; `None`: nothing is known.
    fn score(&self) -> Option<u32> {
        match self.condition() {
            Condition::Unknown => None,
            Condition::Ok => Some(100),
            Condition::Failing => Some(100 - 100 * self.count.min(self.failures) / self.failures),
            Condition::Failed => Some(0),
        }
    }

    fn holds_starts(&self) -> bool {
        self.acts.contains(&Act::HoldStarts)
    }

    /// When something is to be done about it.
    const fn next_us(&self) -> u64 {
        match self.under_way {
            Some(UnderWay { hangs: false, .. }) => self.began_us.saturating_add(self.timeout_us),
            Some(UnderWay { hangs: true, .. }) | None => self.due_us,
        }
    }

    /// Remembers an answer; whether acts are due.
    fn answered(&mut self, answer: Result<Reading, String>, at: Stamp) -> bool {
        let (well, over, why) = match &answer {
            Err(why) => (false, true, Some(why.clone())),
            Ok(reading) => match (reading.share, self.limit) {
                (Some(share), Some(limit)) => {
                    let clear = if self.failed { limit.0.saturating_sub(CLEARANCE.0) } else { limit.0 };
                    // A failed one is well at the clearance, any other below its limit.
                    let well = if self.failed { share.0 <= clear } else { share.0 < clear };
                    let why = format!("{}; the limit is {limit}", reading.text);
                    (well, share >= limit, (!well).then_some(why))
                }
                (None, _) | (Some(_), None) => (true, false, None),
            },
        };
        let points = match &answer {
            Ok(Reading { share: Some(share), .. }) => Share::ALL.0.saturating_sub(share.0),
            Ok(_) => Share::ALL.0,
            Err(_) => 0,
        };
        self.points.push_back(points);
        if self.points.len() > TREND {
            self.points.pop_front();
        }
        (self.last, self.at, self.why) = (Some(answer), at, why);
        if well {
            (self.failed, self.count, self.was_well) = (false, 0, true);
        }
        if !over {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.failed |= self.count >= self.failures;
        self.count.is_multiple_of(self.failures)
    }
}

/// All checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    settings: Settings,
    checks: Vec<Check>,
    serial: u64,
    /// Whether starts were held when this supervisor began: what held them may go on.
    held_before: bool,
    /// When a job was stopped last for its priority.
    stopped_us: Option<u64>,
    /// What was done: check, act, result.
    heals: BTreeMap<(String, &'static str, &'static str), u64>,
}

impl Monitor {
    /// The checks of these settings, with the paths of which file systems are looked at; the first of them counts
    /// where several are on one. The first round is at `first_us`.
    #[must_use]
    pub fn new(settings: &Settings, paths: &[String], held_before: bool, first_us: u64) -> Self {
        let (settings, heals) = (settings.clone(), BTreeMap::new());
        let checks = checks(&settings, paths, first_us);
        Self { settings, checks, serial: 0, held_before, stopped_us: None, heals }
    }

    /// Other settings, or paths. What is known of checks that stay is kept.
    pub fn configure(&mut self, settings: &Settings, paths: &[String], now_us: u64) {
        let old = std::mem::replace(&mut self.checks, checks(settings, paths, now_us));
        self.settings = settings.clone();
        for check in &mut self.checks {
            let Some(old) = old.iter().find(|old| old.name == check.name && old.look == check.look) else {
                continue;
            };
            let new = std::mem::replace(check, old.clone());
            (check.limit, check.acts, check.failures) = (new.limit, new.acts, new.failures);
            (check.interval_us, check.timeout_us) = (new.interval_us, new.timeout_us);
            check.due_us = check.due_us.min(now_us);
        }
    }

    /// All checks, in order.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// When something is due, boot clock.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.checks.iter().map(Check::next_us).min()
    }

    /// What is due now.
    pub fn due(&mut self, now: Stamp) -> Due {
        let mut due = Due::default();
        for at in 0..self.checks.len() {
            let check = &mut self.checks[at];
            if check.next_us() > now.boot_us {
                continue;
            }
            check.due_us = now.boot_us.saturating_add(check.interval_us);
            match &mut check.under_way {
                Some(under_way) => {
                    under_way.hangs = true;
                    let why = format!("no answer within {} ms", check.timeout_us / 1000);
                    self.judge(at, Err(why), now, &mut due);
                }
                None => {
                    self.serial += 1;
                    check.began_us = now.boot_us;
                    check.under_way = Some(UnderWay { serial: self.serial, hangs: false });
                    due.begin.push(Begin {
                        name: check.name.clone(),
                        serial: self.serial,
                        look: check.look.clone(),
                        timeout_ms: check.timeout_us / 1000,
                    });
                }
            }
        }
        due
    }

    /// A check is back. What comes too late has failed already, and says nothing more.
    pub fn told(&mut self, name: &str, serial: u64, answer: Result<Reading, String>, now: Stamp) -> Due {
        let mut due = Due::default();
        let Some(at) = self.checks.iter().position(|check| check.name == name) else { return due };
        let check = &mut self.checks[at];
        let Some(under_way) = check.under_way.filter(|under_way| under_way.serial == serial) else {
            return due;
        };
        check.under_way = None;
        if under_way.hangs {
            return due;
        }
        let device = answer.as_ref().ok().and_then(|reading| reading.device);
        self.judge(at, answer, now, &mut due);
        if let Some(device) = device {
            self.keep_first_of(at, device);
        }
        due
    }

    fn judge(&mut self, at: usize, answer: Result<Reading, String>, now: Stamp, due: &mut Due) {
        let check = &mut self.checks[at];
        let before = check.failed;
        let act = check.answered(answer, now);
        if before != check.failed {
            due.turned.push((check.name.clone(), check.fault().map(str::to_owned)));
        }
        if !act {
            return;
        }
        let (name, why) = (check.name.clone(), check.words().to_owned());
        for act in check.acts.clone() {
            if act == Act::StopLowest {
                let gap = self.settings.interval.0.saturating_mul(1000);
                let soon = self.stopped_us.is_some_and(|at| now.boot_us < at.saturating_add(gap));
                if soon {
                    continue;
                }
                self.stopped_us = Some(now.boot_us);
            }
            due.heals.push(Heal { check: name.clone(), act, why: why.clone() });
        }
    }

    /// Of several checks of one kind on one device, the first stays.
    fn keep_first_of(&mut self, at: usize, device: u64) {
        let kind = self.checks[at].look.kind();
        let same = |check: &Check| {
            let on = check.last.as_ref().and_then(|last| last.as_ref().ok()?.device);
            check.look.kind() == kind && on == Some(device)
        };
        let mut first = true;
        self.checks.retain(|check| !same(check) || std::mem::take(&mut first));
    }

    /// Why no run is to be started now; `None`: nothing speaks against it. What held starts before this supervisor
    /// began holds them until every check that could have done it was well once.
    #[must_use]
    pub fn holds_starts(&self) -> Option<String> {
        let mut holding = self.checks.iter().filter(|check| check.holds_starts());
        let failed = |check: &&Check| check.failed || self.held_before && !check.was_well;
        let check = holding.find(failed)?;
        let why = check.words();
        Some(if why.is_empty() { check.name.clone() } else { format!("{}: {why}", check.name) })
    }

    /// Starts were let go.
    pub fn released(&mut self) {
        self.held_before = false;
    }

    /// Something was done, or could not be.
    pub fn healed(&mut self, check: &str, act: &'static str, result: &'static str) {
        *self.heals.entry((check.to_owned(), act, result)).or_default() += 1;
    }

    /// How often what was done with which result.
    pub fn heals(&self) -> impl Iterator<Item = (&str, &'static str, &'static str, u64)> {
        self.heals.iter().map(|((check, act, result), n)| (check.as_str(), *act, *result, *n))
    }

    /// 0 to 100: the mean of all checks of which something is known.
    #[must_use]
    pub fn score(&self) -> u32 {
        let scores: Vec<u32> = self.checks.iter().filter_map(Check::score).collect();
        let count = u32::try_from(scores.len()).unwrap_or(u32::MAX);
        scores.iter().sum::<u32>().checked_div(count).unwrap_or(100)
    }

    /// How everything is together.
    #[must_use]
    pub fn overall(&self) -> Overall {
        let failed = |check: &&Check| check.failed;
        let critical = |check: &Check| check.look.kind().is_some_and(Kind::is_critical);
        let score = self.score();
        if score < CRITICAL || self.checks.iter().filter(failed).any(critical) {
            Overall::Unhealthy
        } else if score < WARNING || self.checks.iter().any(|check| check.failed) {
            Overall::Degraded
        } else {
            Overall::Healthy
        }
    }

    /// How long a check may take to fail, and how far below a file system has to be to be well again: what an act
    /// aims at.
    #[must_use]
    pub fn aim(&self, name: &str) -> Option<Share> {
        let limit = self.checks.iter().find(|check| check.name == name)?.limit?;
        Some(Share(limit.0.saturating_sub(CLEARANCE.0)))
    }

    /// The path whose file system a check looks at, if it is one of those.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<&str> {
        match &self.checks.iter().find(|check| check.name == name)?.look {
            Look::On(_, path) => Some(path),
            Look::At(_) | Look::Ask(_) => None,
        }
    }
}

fn checks(settings: &Settings, paths: &[String], first_us: u64) -> Vec<Check> {
    if !settings.enabled {
        return Vec::new();
    }
    let mut all = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| settings.is_on(*kind)) {
        let with = (settings, first_us);
        match kind {
            Kind::Disk | Kind::Inodes => all.extend(paths.iter().map(|path| {
                let name = format!("{}:{path}", kind.as_str());
                Check::new(name, Look::On(kind, path.clone()), with)
            })),
            Kind::Memory
            | Kind::OpenFiles
            | Kind::Pids
            | Kind::Pressure
            | Kind::Inotify
            | Kind::Control
            | Kind::EventLog
            | Kind::Keeper => all.push(Check::new(kind.as_str().to_owned(), Look::At(kind), with)),
        }
    }
    for (name, custom) in &settings.checks {
        let look = Look::Ask(custom.ask.clone());
        let check = Check::new(format!("check:{name}"), look, (settings, first_us));
        all.push(Check {
            acts: custom.heal.clone(),
            failures: custom.failures.max(1),
            interval_us: custom.interval.0.saturating_mul(1000).max(1),
            timeout_us: custom.timeout.0.saturating_mul(1000).max(1),
            ..check
        });
    }
    all
}

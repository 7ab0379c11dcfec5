//! Queues: who goes first, how many at once, and that nobody is forgotten; as traces, and as laws over random histories.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ids::QueueName;
use super::super::job::Phase;
use super::super::queue::{Entry, Settings, Shift, Ticket};
use super::super::spec::{Kind, Restart};
use super::model::Rng;
use super::*;

fn queue(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

fn task(text: &str, of: &str, priority: i32) -> JobSpec {
    JobSpec { kind: Kind::Task, restart: Restart::Never, queue: Some(queue(of)), priority, ..spec(text) }
}

fn slots(queues: &[(&str, u32)], all: Option<u32>) -> Settings {
    Settings { slots: queues.iter().map(|(name, slots)| (queue(name), *slots)).collect(), all }
}

fn world_with(settings: Settings) -> World {
    let mut world = World::bare();
    world.state.queues.settings = settings;
    world.supervisor(1, false);
    world.configured(&[]);
    world.surveyed(Vec::new());
    world
}

fn world(of: u32) -> World {
    world_with(slots(&[("default", of)], None))
}

impl World {
    fn submitted(&mut self, spec: JobSpec, entry: Entry) -> Vec<String> {
        told(&self.feed(Input::Submitted { spec: Box::new(spec), entry, by: operator("submit") }))
    }

    fn submit(&mut self, text: &str, priority: i32) -> Vec<String> {
        self.submitted(task(text, "default", priority), Entry::default())
    }

    fn moved(&mut self, text: &str, shift: Shift) -> Vec<String> {
        told(&self.feed(Input::Move { jobs: vec![name(text)], shift, by: operator("move") }))
    }
}

/// Everybody whose turn it could be has one, as far as there are slots.
pub(super) fn no_turn_is_missed(state: &State) {
    let queues = &state.queues;
    let still = state.instance.recovery
        || state.instance.held.is_some()
        || state.instance.shutdown.is_some()
        || state.instance.link != super::super::instance::Link::Working;
    let busy: usize = queues.names().iter().map(|name| queues.busy(name)).sum();
    if still || queues.settings.all.is_some_and(|all| busy >= all as usize) {
        return;
    }
    for (name, slots) in &queues.settings.slots {
        if queues.paused.contains(name) || queues.busy(name) >= *slots as usize {
            continue;
        }
        let free = |ticket: &&Ticket| {
            let deps = state.spec(&ticket.job).map(|spec| spec.depends_on.clone()).unwrap_or_default();
            let orphan = state.orphans.values().any(|job| job.as_ref() == Some(&ticket.job));
            let up = |dep: &JobName| match (state.job(dep), state.spec(dep)) {
                (Some(job), Some(spec)) => super::super::life::counts_as_up(job, spec),
                _ => false,
            };
            state.spec(&ticket.job).is_some() && !orphan && deps.iter().all(up)
        };
        let missed = queues.in_line(name).find(free);
        assert!(missed.is_none(), "{missed:?} waits for nothing: {queues:?}");
    }
}

#[test]
fn a_task_whose_turn_it_is_starts_at_once_and_the_next_when_a_slot_is_free() {
    let mut world = world(1);
    let first = world.submit("a", 0);
    assert_eq!(first, ["job.submitted a", "job.queued a", "run.requested a 1", "> launch a 1 1"]);
    assert_eq!(world.submit("b", 0), ["job.submitted b", "job.queued b"]);
    assert_eq!(
        (world.word("b"), world.reason("b").as_str()),
        ("queued", "queue default: waits for its turn")
    );
    world.launched(1);
    let ended = told(&world.ended("a", 1, exited(0), false));
    assert_eq!(ended, ["run.ended a exit 0", "run.requested b 1", "> forget 1", "> launch b 2 1"]);
}

#[test]
fn the_highest_priority_goes_first_and_among_equals_who_came_first() {
    let mut world = world(1);
    world.submit("now", 0);
    for (text, priority) in [("low", -1), ("one", 0), ("two", 0), ("high", 5)] {
        world.submit(text, priority);
    }
    let order: Vec<&str> =
        world.state.queues.in_line(&queue("default")).map(|ticket| ticket.job.as_str()).collect();
    assert_eq!(order, ["high", "one", "two", "low"]);
    world.launched(1);
    for (text, n) in [("now", 1), ("high", 2), ("one", 3), ("two", 4), ("low", 5)] {
        assert_eq!(world.word(text), if n == 1 { "running" } else { "starting" });
        if n > 1 {
            world.launched(n);
        }
        world.ended(text, n, exited(0), false);
    }
}

#[test]
fn a_queue_has_its_slots_and_all_of_them_have_theirs() {
    let mut world = world_with(slots(&[("default", 2), ("other", 2)], Some(3)));
    for text in ["a", "b", "c"] {
        world.submit(text, 0);
    }
    assert_eq!(["a", "b", "c"].map(|text| world.word(text)), ["starting", "starting", "queued"]);
    for text in ["d", "e"] {
        world.submitted(task(text, "other", 9), Entry::default());
    }
    assert_eq!(["d", "e"].map(|text| world.word(text)), ["starting", "queued"]);
    // A slot of all goes to the one with the highest priority, in whichever queue.
    world.launched(1);
    world.ended("a", 1, exited(0), false);
    assert_eq!(["c", "e"].map(|text| world.word(text)), ["queued", "starting"]);
}

#[test]
fn a_slot_is_taken_until_nothing_is_left_of_the_run() {
    let mut world = world(1);
    world.submit("a", 0);
    world.submit("b", 0);
    world.launched(1);
    world.ended("a", 1, exited(0), true);
    assert_eq!(world.word("b"), "queued");
    world.feed(Input::TreeGone { run: run(1) });
    assert_eq!(world.word("b"), "starting");
}

#[test]
fn who_stands_aside_gets_no_turn_until_somebody_or_the_time_says_so() {
    let mut world = world(1);
    world.submitted(task("held", "default", 9), Entry { held: true, ..Entry::default() });
    let at = world.now.wall_us + 5_000_000;
    world.submitted(task("later", "default", 9), Entry { not_before_us: Some(at), ..Entry::default() });
    assert_eq!((world.word("held"), world.word("later"), world.due_in()), ("queued", "queued", Some(5000)));
    assert!(world.reason("held").contains("until it is released"), "{}", world.reason("held"));
    assert!(world.reason("later").contains("not before"), "{}", world.reason("later"));
    expect(&world.tick_after(4999), &[]);
    expect(&world.tick_after(1), &["job.queued later", "run.requested later 1", "> launch later 1 1"]);
    world.launched(1);
    world.ended("later", 1, exited(0), false);
    let released = world.moved("held", Shift { hold: Some(false), ..Shift::default() });
    assert_eq!(released, ["job.queued held", "run.requested held 1", "> launch held 2 1"]);
    // A moment that is past is no reason to wait.
    let past = Entry { not_before_us: Some(world.now.wall_us), ..Entry::default() };
    world.submitted(task("past", "default", 0), past);
    assert_eq!(world.word("past"), "queued");
    world.launched(2);
    world.ended("held", 2, exited(0), false);
    assert_eq!(world.word("past"), "starting");
}

#[test]
fn a_time_to_wait_for_lasts_over_a_reboot() {
    let mut world = world(1);
    let at = world.now.wall_us + 60_000_000;
    world.submitted(task("later", "default", 0), Entry { not_before_us: Some(at), ..Entry::default() });
    world.replayed();
    // The boot clock begins anew; the wall clock does not.
    world.now = Stamp { boot_us: 5, wall_us: world.now.wall_us + 20_000_000 };
    world.supervisor(2, false);
    world.configured(&[]);
    world.surveyed(Vec::new());
    assert_eq!((world.word("later"), world.due_in()), ("queued", Some(40_000)));
    world.tick_after(40_000);
    assert_eq!(world.word("later"), "starting");
}

#[test]
fn a_paused_queue_lets_run_what_runs_and_gives_no_turn() {
    let mut world = world(1);
    world.submit("a", 0);
    let pause = |resume| Input::PauseQueue { queue: queue("default"), resume, by: operator("queue") };
    expect(&world.feed(pause(false)), &["queue.paused"]);
    expect(&world.feed(pause(false)), &[]);
    world.submit("b", 0);
    world.launched(1);
    world.ended("a", 1, exited(0), false);
    assert_eq!(
        (world.word("b"), world.reason("b").as_str()),
        ("queued", "queue default: the queue is paused")
    );
    // It is paused for the next supervisor, too.
    world.replayed();
    world.successor();
    world.configured(&[]);
    world.surveyed(Vec::new());
    assert_eq!(world.word("b"), "queued");
    expect(&world.feed(pause(true)), &["queue.resumed", "run.requested b 1", "> launch b 2 1"]);
}

#[test]
fn who_waits_can_be_moved_and_taken_out() {
    let mut world = world(1);
    for text in ["now", "a", "b", "c"] {
        world.submit(text, 0);
    }
    let order = |world: &World| -> Vec<String> {
        world.state.queues.in_line(&queue("default")).map(|ticket| ticket.job.to_string()).collect()
    };
    world.moved("c", Shift { first: true, ..Shift::default() });
    assert_eq!(order(&world), ["c", "a", "b"]);
    world.moved("c", Shift { last: true, ..Shift::default() });
    assert_eq!(order(&world), ["a", "b", "c"]);
    world.moved("b", Shift { priority: Some(1), ..Shift::default() });
    assert_eq!(order(&world), ["b", "a", "c"]);
    world.moved("a", Shift { hold: Some(true), ..Shift::default() });
    assert_eq!(order(&world), ["b", "c"]);
    expect(&world.stop("b"), &["job.want b Down"]);
    assert_eq!((order(&world), world.word("b")), (vec!["c".to_owned()], "stopped"));
    let refused = world.feed(Input::Move {
        jobs: vec![name("now"), name("nobody")],
        shift: Shift::default(),
        by: operator("move"),
    });
    assert!(refused.answers.iter().all(|answer| !answer.ok), "{refused:?}");
    // Who is asked for again gets in line again, behind the others.
    world.start("b");
    assert_eq!(order(&world), ["c", "b"]);
}

#[test]
fn a_task_that_is_tried_again_keeps_its_place_and_only_so_often() {
    let mut world = world(1);
    let spec = JobSpec { restart: Restart::OnFailure, retries: Some(2), ..task("a", "default", 0) };
    world.submitted(spec, Entry::default());
    world.submit("b", 0);
    for n in 1..=3 {
        world.launched(n);
        world.ended("a", n, exited(1), false);
        let wanted = if n < 3 { ["starting", "queued"] } else { ["exited", "starting"] };
        assert_eq!([world.word("a"), world.word("b")], wanted, "{n}");
    }
}

#[test]
fn who_waits_for_what_has_failed_is_given_up_with_the_reason() {
    let mut world = world(9);
    world.submit("a", 0);
    let after = |text: &str, dep: &str| JobSpec { depends_on: vec![name(dep)], ..task(text, "default", 0) };
    world.submitted(after("b", "a"), Entry::default());
    world.submitted(after("c", "b"), Entry::default());
    assert_eq!([world.word("b"), world.word("c")], ["waiting", "waiting"]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    assert_eq!([world.word("a"), world.word("b"), world.word("c")], ["exited", "fatal", "fatal"]);
    assert_eq!(world.reason("b"), "needs a, which has failed: exit 3");
    assert_eq!(world.reason("c"), "needs b, which has failed: needs a, which has failed: exit 3");
    // Whoever is submitted now is told at once, and whoever asks again when that has gone well gets his turn.
    world.submitted(after("d", "a"), Entry::default());
    assert_eq!(world.word("d"), "fatal");
    world.start("a");
    world.launched(2);
    world.ended("a", 2, exited(0), false);
    world.start("b");
    assert_eq!(world.word("b"), "starting");
}

#[test]
fn the_line_is_the_same_for_the_next_supervisor_and_after_a_reboot() {
    for epoch_no in [1, 2] {
        let mut world = world(1);
        for (text, priority) in [("now", 0), ("a", 0), ("b", 3)] {
            world.submit(text, priority);
        }
        world.launched(1);
        let before = world.state.queues.clone();
        world.replayed();
        assert_eq!(world.state.queues, before);
        world.supervisor(epoch_no, false);
        world.configured(&[]);
        if epoch_no == 1 {
            let alive = Fact::Alive { identity: identity(101), started: world.now };
            world.surveyed(vec![(1, "now", alive)]);
            assert_eq!(["now", "b", "a"].map(|text| world.word(text)), ["running", "queued", "queued"]);
        } else {
            world.surveyed(vec![(1, "now", Fact::Lost { why: "reboot".to_owned() })]);
            assert_eq!(["now", "b", "a"].map(|text| world.word(text)), ["exited", "starting", "queued"]);
        }
    }
}

#[test]
fn the_line_comes_back_from_a_checkpoint() {
    let mut world = world(1);
    for text in ["a", "b", "c"] {
        world.submit(text, 0);
    }
    world.feed(Input::PauseQueue { queue: queue("default"), resume: false, by: operator("queue") });
    let mut back = State::new();
    back.queues.settings = world.state.queues.settings.clone();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let keep = |line: &[u8]| {
        lines.push(line.to_vec());
        Ok(())
    };
    world.state.entities::<serde_json::Error>(keep).unwrap();
    for line in &lines {
        back.restore(line, None).unwrap();
    }
    back.restored();
    assert_eq!(back.queues, world.state.queues);
}

/// A random life of three queues, and what has to hold after each decision.
struct Life {
    world: World,
    rng: Rng,
    submitted: u32,
    /// How often each task was asked for.
    started: BTreeMap<JobName, u32>,
    live: BTreeSet<(u128, JobName)>,
    /// Those that the keeper has not answered yet.
    asked: BTreeSet<(u128, JobName)>,
}

const QUEUES: [&str; 3] = ["default", "one", "two"];

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let each = QUEUES.map(|name| (name, rng.below(4) as u32));
        let all = rng.one_in(2).then(|| rng.below(5) as u32);
        Self {
            world: world_with(slots(&each, all)),
            rng,
            submitted: 0,
            started: BTreeMap::new(),
            live: BTreeSet::new(),
            asked: BTreeSet::new(),
        }
    }

    fn feed(&mut self, input: Input) {
        let before = self.world.state.queues.clone();
        let decision = self.world.feed(input);
        let mut line: BTreeMap<QueueName, Vec<JobName>> = BTreeMap::new();
        for name in QUEUES.map(queue) {
            line.insert(name.clone(), before.in_line(&name).map(|ticket| ticket.job.clone()).collect());
        }
        for event in &decision.events {
            let Event::RunRequested { job, run: asked, .. } = event else { continue };
            *self.started.entry(job.clone()).or_default() += 1;
            self.asked.insert((u128::from_be_bytes(*asked.as_bytes()), job.clone()));
            // Nobody who waited, and waits still, came before it.
            let place = self.world.state.job(job).and_then(|job| job.place.clone()).unwrap();
            let earlier = line[&place.queue].iter().take_while(|other| *other != job);
            let passed = earlier.filter(|other| {
                let now = self.world.state.job(other);
                now.is_some_and(|job| {
                    job.phase == Phase::Queued && job.place.as_ref().is_some_and(|p| p.is_in_line())
                })
            });
            let known = line[&place.queue].contains(job);
            let passed: Vec<_> = passed.collect();
            let later = passed.iter().find(|other| {
                let theirs = self.world.state.job(other).and_then(|job| job.place.clone()).unwrap();
                theirs.queue == place.queue
                    && (theirs.priority, place.number) >= (place.priority, theirs.number)
            });
            assert!(!known || later.is_none(), "{job} went before {passed:?}");
        }
        self.hold_laws();
    }

    fn hold_laws(&self) {
        let queues = &self.world.state.queues;
        no_turn_is_missed(&self.world.state);
        let mut sum = 0;
        for name in QUEUES.map(queue) {
            let truly = self.live.iter().chain(&self.asked).filter(|(_, job)| {
                let job = self.world.state.job(job);
                job.and_then(|job| job.place.as_ref()).is_some_and(|place| place.queue == name)
            });
            assert_eq!(queues.busy(&name), truly.count(), "{name}: {queues:?}");
            assert!(queues.busy(&name) <= queues.settings.slots[&name] as usize, "{name}: {queues:?}");
            sum += queues.busy(&name);
        }
        assert!(queues.settings.all.is_none_or(|all| sum <= all as usize), "{queues:?}");
        assert!(self.started.values().all(|times| *times == 1), "{:?}", self.started);
    }

    fn step(&mut self) {
        match self.rng.below(12) {
            0..=3 => {
                self.submitted += 1;
                let of = QUEUES[self.rng.below(3) as usize];
                let priority = self.rng.below(3) as i32 - 1;
                let later = self.world.now.wall_us + self.rng.below(4_000_000) as i64;
                let entry =
                    Entry { held: self.rng.one_in(6), not_before_us: self.rng.one_in(6).then_some(later) };
                let spec = Box::new(task(&format!("t{}", self.submitted), of, priority));
                self.feed(Input::Submitted { spec, entry, by: operator("submit") });
            }
            4..=6 => self.end_one(),
            7 => {
                let of = queue(QUEUES[self.rng.below(3) as usize]);
                let resume = self.rng.one_in(2);
                self.feed(Input::PauseQueue { queue: of, resume, by: operator("queue") });
            }
            8 => {
                let job = name(&format!("t{}", self.rng.below(u64::from(self.submitted) + 1)));
                let shift = Shift {
                    queue: self.rng.one_in(3).then(|| queue(QUEUES[self.rng.below(3) as usize])),
                    priority: self.rng.one_in(3).then(|| self.rng.below(3) as i32),
                    hold: self.rng.one_in(3).then(|| self.rng.one_in(3)),
                    not_before_us: None,
                    first: self.rng.one_in(4),
                    last: false,
                };
                self.feed(Input::Move { jobs: vec![job], shift, by: operator("move") });
            }
            9 => {
                let ms = self.rng.below(2000);
                self.world.pass(ms);
                self.feed(Input::Tick);
            }
            10 => self.answer_one(),
            _ => self.another_supervisor(),
        }
    }

    fn pick(&mut self, from: &BTreeSet<(u128, JobName)>) -> Option<(u128, JobName)> {
        let n = self.rng.below(from.len().max(1) as u64) as usize;
        from.iter().nth(n).cloned()
    }

    fn answer_one(&mut self) {
        let Some(one) = self.pick(&self.asked.clone()) else { return };
        self.asked.remove(&one);
        let (identity, at) = (identity(one.0 as i32 + 100), self.world.now);
        let input = Input::Launched { run: run(one.0), identity, at };
        self.live.insert(one);
        self.feed(input);
    }

    fn end_one(&mut self) {
        if self.live.is_empty() {
            return self.answer_one();
        }
        let Some(one) = self.pick(&self.live.clone()) else { return };
        self.live.remove(&one);
        let code = i32::from(self.rng.one_in(3));
        let record = record(one.1.as_str(), one.0, exited(code), (Some(self.world.now), self.world.now));
        self.feed(Input::Ended { record: Box::new(record), leftovers: false });
    }

    /// What the keeper has not answered has been started all the same, or is found to be alive.
    fn another_supervisor(&mut self) {
        self.world.replayed();
        self.world.successor();
        self.world.configured(&[]);
        self.live.append(&mut self.asked);
        let started = self.world.now;
        let alive = |n: u128| Fact::Alive { identity: identity(n as i32 + 100), started };
        let found = self.live.iter().map(|(n, job)| Surveyed::new(run(*n), Some(job.clone()), alive(*n)));
        let runs = found.collect();
        self.feed(Input::Surveyed(Survey { runs, ..Survey::default() }));
    }
}

#[test]
fn the_laws_of_queues_hold_through_thousands_of_random_histories() {
    let histories = std::env::var("QUEUE_LAWS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let first = std::env::var("QUEUE_LAWS_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    for seed in first..first + histories {
        let lived = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            for _ in 0..60 {
                life.step();
            }
        });
        assert!(lived.is_ok(), "seed {seed}: QUEUE_LAWS=1 QUEUE_LAWS_SEED={seed}");
    }
}

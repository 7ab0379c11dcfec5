//! Random settings for the laws.

use super::super::circuit::Breaker;
use super::super::group::{GroupSpec, Strategy};
use super::super::hook::{Hook, Hooks, When};
use super::super::ids::QueueName;
use super::super::spec::{JobSpec, KillScope, Kind, Leftovers, Restart, StartLimit, StopAct, StopStep};
use super::super::time::Millis;
use super::super::watch::{FrozenStep, Ready, ReadyBy, Watch};
use super::model::Rng;
use super::{name, signal_step, spec};

pub(super) const JOBS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

pub(super) fn random_spec(rng: &mut Rng, job: &str) -> JobSpec {
    let mut s = spec(job);
    s.restart = [Restart::Always, Restart::OnFailure, Restart::Never][rng.below(3) as usize];
    s.kind = if rng.one_in(3) { Kind::Task } else { Kind::Service };
    s.autostart = !rng.one_in(4);
    s.backoff.initial = Millis([0, 0, 100, 2000][rng.below(4) as usize]);
    s.backoff.jitter = 0.5;
    s.start_limit.count = [0, 0, 3, 30][rng.below(4) as usize];
    let breaker = Breaker { failures: 1 + rng.below(3) as u32, open_for: Millis(3000) };
    s.breaker = rng.one_in(3).then(|| Box::new(breaker));
    s.retry_fatal = rng.one_in(3).then_some(Millis(2500));
    s.backoff.reset_after = Millis([1000, 60_000][rng.below(2) as usize]);
    s.queue = rng.one_in(3).then(QueueName::default);
    s.priority = rng.below(3) as i32;
    s.start_grace = Millis([0, 0, 500][rng.below(3) as usize]);
    s.leftovers = [Leftovers::Stop, Leftovers::Wait, Leftovers::Ignore][rng.below(3) as usize];
    s.kill_scope = [KillScope::Mixed, KillScope::Tree, KillScope::Group][rng.below(3) as usize];
    s.stop = match rng.below(4) {
        0 => vec![],
        1 => vec![signal_step(15, 1000), signal_step(2, 1000)],
        2 => vec![
            StopStep { act: StopAct::Command(vec!["quit".to_owned()]), timeout: Millis(700) },
            signal_step(15, 1000),
        ],
        _ => vec![signal_step(15, 1000)],
    };
    for other in JOBS.iter().take_while(|other| **other != job) {
        if rng.one_in(4) {
            s.depends_on.push(name(other));
        }
    }
    if rng.one_in(3) {
        s.nice = Some(rng.below(3) as i32);
    }
    if rng.one_in(3) {
        let ready = Ready { by: ReadyBy::Notify, timeout: Millis(900) };
        let steps = [FrozenStep::Continue { wait: Millis(300) }, FrozenStep::Stop, FrozenStep::Restart];
        s.watch = Some(Box::new(Watch {
            ready: rng.one_in(2).then_some(ready),
            on_frozen: rng.one_in(2).then(|| steps[..rng.below(4) as usize].to_vec()),
            ..Watch::default()
        }));
    }
    if rng.one_in(3) {
        let mut hooks = Hooks::default();
        for when in When::ALL {
            let hook = Hook { command: vec!["hook".to_owned()], timeout: Millis(400) };
            *hooks.at(when) = rng.one_in(2).then_some(hook);
        }
        s.hooks = Some(Box::new(hooks));
    }
    s.in_group = rng.one_in(2).then(|| Box::new(random_group(rng)));
    s
}

/// One of two groups: what the members think of it differs, as after a reload that has not reached all.
fn random_group(rng: &mut Rng) -> GroupSpec {
    let half = rng.below(2) as usize;
    let limit = StartLimit { count: 1 + rng.below(4) as u32, within: Millis(5000) };
    GroupSpec {
        name: ["left", "right"][half].to_owned(),
        strategy: [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne][rng.below(3) as usize],
        members: JOBS.iter().skip(3 * half).take(3 + half).map(|job| name(job)).collect(),
        start_limit: rng.one_in(2).then_some(limit),
    }
}

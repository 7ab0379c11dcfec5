//! What operators ask, and what they configure.

use super::*;

impl World {
    pub(super) fn any_ask(&mut self) -> Ask {
        if self.rng.one_in(3) {
            return Ask::Look;
        }
        let mut known: Vec<JobName> = self.config_file.iter().map(|spec| spec.name.clone()).collect();
        for n in 0..self.submitted.min(3) {
            known.extend(JobName::new(format!("z{n}")));
        }
        let one = |rng: &mut Rng| known[rng.index(known.len())].clone();
        let jobs: Vec<JobName> = (0..1 + self.rng.below(2)).map(|_| one(&mut self.rng)).collect();
        match self.rng.below(24) {
            1..=5 => Ask::Start(jobs),
            6..=10 => Ask::Stop(jobs),
            11..=13 => Ask::Restart(jobs),
            14..=15 => {
                let signal = [1, 10, 9][self.rng.index(3)];
                Ask::Signal(jobs[0].clone(), signal)
            }
            16..=18 => {
                let name = format!("z{}", self.submitted % 3);
                self.submitted += 1;
                let mut spec = any_spec(&mut self.rng, &name);
                spec.kind = if self.rng.one_in(4) { Kind::Service } else { Kind::Task };
                if spec.kind == Kind::Task && self.rng.one_in(2) {
                    spec.restart = Restart::Never;
                }
                spec.depends_on.truncate(1);
                Ask::Submit(Box::new(spec))
            }
            19..=20 => {
                self.edit_config();
                Ask::Reload
            }
            0 | 21 => Ask::Recover,
            22 => Ask::LeaveRecovery,
            _ if self.rng.one_in(6) => Ask::Shutdown { keep_jobs: self.rng.one_in(3) },
            _ => Ask::Start(jobs),
        }
    }

    pub(super) fn edit_config(&mut self) {
        let i = self.rng.index(self.config_file.len());
        if self.config_file.len() > 1 && self.rng.one_in(3) {
            self.config_file.remove(i);
        } else {
            let job = self.config_file[i].name.clone();
            self.config_file[i] = any_spec(&mut self.rng, job.as_str());
        }
        for job in JOBS {
            let there = self.config_file.iter().any(|spec| spec.name.as_str() == job);
            if !there && self.rng.one_in(3) {
                let spec = any_spec(&mut self.rng, job);
                self.config_file.push(spec);
            }
        }
    }
}

pub(super) fn any_spec(rng: &mut Rng, job: &str) -> JobSpec {
    let name = |text: &str| JobName::new(text).unwrap_or_else(|_| unreachable!("{text} is a name"));
    let mut spec = JobSpec::new(name(job), vec!["x".to_owned()]);
    spec.restart = [Restart::Always, Restart::OnFailure, Restart::Never][rng.index(3)];
    spec.kind = if rng.one_in(3) { Kind::Task } else { Kind::Service };
    spec.autostart = !rng.one_in(5);
    spec.backoff.initial = Millis([0, 0, 100, 2000][rng.index(4)]);
    spec.start_limit.count = [0, 0, 3, 30][rng.index(4)];
    spec.start_grace = Millis([0, 0, 500][rng.index(3)]);
    spec.leftovers = [Leftovers::Stop, Leftovers::Wait, Leftovers::Ignore][rng.index(3)];
    spec.kill_scope = [KillScope::Mixed, KillScope::Tree, KillScope::Group][rng.index(3)];
    let term = StopStep { act: StopAct::Signal(15), timeout: Millis(1000) };
    spec.stop = match rng.below(4) {
        0 => Vec::new(),
        1 => vec![StopStep { act: StopAct::Command(vec!["quit".to_owned()]), timeout: Millis(700) }, term],
        _ => vec![term],
    };
    for other in JOBS.iter().take_while(|other| **other != job) {
        if rng.one_in(4) {
            spec.depends_on.push(name(other));
        }
    }
    if rng.one_in(3) {
        spec.nice = Some(rng.below(3) as i32);
    }
    if rng.one_in(3) {
        spec.watch = Some(Box::new(any_watch(rng)));
    }
    spec
}

fn any_watch(rng: &mut Rng) -> Watch {
    let ready = Ready { by: ReadyBy::Notify, timeout: Millis([300, 5000][rng.index(2)]) };
    let ladder = [
        FrozenStep::Continue { wait: Millis(300) },
        FrozenStep::Dump { signal: None, wait: Millis(0) },
        FrozenStep::Stop,
        FrozenStep::Restart,
    ];
    let on_exceed = [OnExceed::Restart, OnExceed::Stop, OnExceed::Signal(10), OnExceed::Notify][rng.index(4)];
    Watch {
        ready: rng.one_in(2).then_some(ready),
        on_frozen: rng.one_in(2).then(|| ladder[..rng.index(5)].to_vec()),
        limits: Limits { pids: Some(1), on_exceed, ..Limits::default() },
        ..Watch::default()
    }
}

//! A client of the keeper that takes the supervisor's place: the instance's own is stopped first, so that
//! nobody else asks, and nobody is surprised.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use outlive::core::ids::{Generation, JobName, RunId};
use outlive::core::spec::JobSpec;
use outlive::wire::frame::{Decoder, encode};
use outlive::wire::keeper::{
    Answer, FromKeeper, Launch, Listen, Notice, Numbered, Refusal, Request, RunStatus, Told, UserIds, VERSION,
};
use rustix::process::Signal;

use super::{Daemon, PATIENCE, misbehave, procs, until};

/// The connection, made again when the keeper was.
pub struct Keeper {
    link: Option<(UnixStream, Decoder)>,
    next: u64,
    /// The process at the other end.
    pub pid: i32,
    /// What was told of its own accord.
    pub notices: Vec<Notice>,
}

impl Keeper {
    /// Stops the supervisor, and speaks in its place.
    pub fn of(daemon: &Daemon) -> Self {
        procs::send(&procs::handle(daemon.role("supervisor")).unwrap(), Signal::STOP);
        let mut keeper = Self { link: None, next: 0, pid: 0, notices: Vec::new() };
        keeper.connect(daemon);
        keeper
    }

    /// Connects, waiting for a keeper that answers.
    #[track_caller]
    pub fn connect(&mut self, daemon: &Daemon) {
        self.pid = until("a keeper", || self.try_connect(daemon));
    }

    fn try_connect(&mut self, daemon: &Daemon) -> Option<i32> {
        let stream = UnixStream::connect(daemon.runtime_dir().join("keeper.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.link = Some((stream, Decoder::default()));
        let text = std::fs::read_to_string(daemon.runtime_dir().join("generation")).ok()?;
        let generation = Generation(text.trim().parse().unwrap());
        match self.ask(Request::Hello { min_version: 1, version: VERSION, generation })? {
            Ok(Answer::Hello { pid, .. }) => Some(pid),
            other => panic!("{other:?}"),
        }
    }

    /// The answer; `None` if the keeper is gone.
    pub fn ask(&mut self, request: Request) -> Option<Result<Answer, Refusal>> {
        self.next += 1;
        let mut bytes = Vec::new();
        encode(&Numbered { id: self.next, request }, &mut bytes).unwrap();
        self.link.as_mut()?.0.write_all(&bytes).ok()?;
        loop {
            if let Some((id, result)) = self.hear(PATIENCE)?
                && id == self.next
            {
                return Some(result);
            }
        }
    }

    /// One message: a reply is given back, a notice kept. `Some(None)`: it was a notice, or the time is over.
    fn hear(&mut self, within: Duration) -> Option<Option<(u64, Result<Answer, Refusal>)>> {
        let (stream, decoder) = self.link.as_mut()?;
        let end = Instant::now() + within;
        loop {
            match decoder.take::<FromKeeper>().unwrap() {
                Some(FromKeeper::Reply { id, result }) => return Some(Some((id, result))),
                Some(FromKeeper::Notice(notice)) => {
                    self.notices.push(notice);
                    return Some(None);
                }
                None => {}
            }
            if !procs::wait_readable(stream, end.saturating_duration_since(Instant::now())) {
                return Some(None);
            }
            let mut buffer = [0; 64 * 1024];
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => {
                    self.link = None;
                    return None;
                }
                Ok(n) => decoder.feed(&buffer[..n]),
            }
        }
    }

    /// Starts `misbehave` with this script.
    #[track_caller]
    pub fn launch(&mut self, daemon: &Daemon, script: &str, listen: Listen) -> RunId {
        let argv = script.split_whitespace().map(str::to_owned);
        let argv = std::iter::once(misbehave().to_str().unwrap().to_owned()).chain(argv).collect();
        self.launch_command(daemon, argv, listen, None)
    }

    /// Starts any program.
    #[track_caller]
    pub fn launch_command(
        &mut self,
        daemon: &Daemon,
        argv: Vec<String>,
        listen: Listen,
        user: Option<UserIds>,
    ) -> RunId {
        let run = RunId::from_bytes(*uuid::Uuid::now_v7().as_bytes());
        let spec = JobSpec::new(JobName::new("told").unwrap(), argv.clone());
        let env = [
            format!("PATH={}", std::env::var("PATH").unwrap()),
            format!("HOME={}", std::env::var("HOME").unwrap_or_default()),
            format!("OUTLIVE_TEST_HOME={}", daemon.home().display()),
            format!("OUTLIVE_RUN_ID={run}"),
            "NOTIFY_SOCKET=/somebody/elses".to_owned(),
        ];
        let launch = Launch {
            run,
            job: spec.name,
            attempt: 1,
            argv,
            env: env.into_iter().map(String::into_bytes).collect(),
            cwd: daemon.home().to_str().unwrap().to_owned(),
            user,
            umask: None,
            rlimits: Vec::new(),
            nice: None,
            oom_score_adj: None,
            stdin: spec.stdin,
            output: spec.output,
            on_supervisor_death: spec.on_supervisor_death,
            listen,
            limits: outlive::wire::keeper::GroupLimits::default(),
        };
        let answer = self.ask(Request::Launch(Box::new(launch)));
        assert!(matches!(answer, Some(Ok(Answer::Launched { .. }))), "{answer:?}");
        run
    }

    /// Everything the keeper knows.
    #[track_caller]
    pub fn inventory(&mut self) -> Vec<RunStatus> {
        match self.ask(Request::Inventory) {
            Some(Ok(Answer::Inventory { runs })) => runs,
            other => panic!("{other:?}"),
        }
    }

    /// One run of that.
    #[track_caller]
    pub fn status(&mut self, run: RunId) -> RunStatus {
        self.inventory().into_iter().find(|status| status.run == run).unwrap()
    }

    /// Its process.
    #[track_caller]
    pub fn pid_of(&mut self, run: RunId) -> i32 {
        self.status(run).identity.unwrap().pid
    }

    /// What a run has told, as the inventory says.
    #[track_caller]
    pub fn told(&mut self, run: RunId) -> Told {
        *self.status(run).told.unwrap()
    }

    /// Waits until what a run has told meets a condition.
    #[track_caller]
    pub fn wait_told(&mut self, run: RunId, what: &str, condition: impl Fn(&Told) -> bool) -> Told {
        let mut last = Told::default();
        let end = Instant::now() + PATIENCE;
        loop {
            last = if Instant::now() < end { self.told(run) } else { panic!("not {what}: {last:?}") };
            if condition(&last) {
                return last;
            }
            self.hear(Duration::from_millis(20));
        }
    }

    /// The latest beat of a run.
    #[track_caller]
    pub fn beat(&mut self, run: RunId) -> Option<outlive::core::time::Stamp> {
        match self.ask(Request::Beats { runs: vec![run] }) {
            Some(Ok(Answer::Beats { beats })) => {
                beats.into_iter().find(|(id, _)| *id == run).map(|(_, at)| at)
            }
            other => panic!("{other:?}"),
        }
    }

    /// What notices said that this run told.
    pub fn noticed(&self, run: RunId) -> Vec<Told> {
        let told = |notice: &Notice| match notice {
            Notice::Told { run: id, told } if *id == run => Some((**told).clone()),
            _ => None,
        };
        self.notices.iter().filter_map(told).collect()
    }

    /// Kills the keeper and has `meanwhile` done before there is another.
    #[track_caller]
    pub fn kill_and(&mut self, daemon: &Daemon, meanwhile: impl FnOnce()) {
        let init = procs::handle(daemon.init_pid()).unwrap();
        procs::send(&init, Signal::STOP);
        let keeper = procs::handle(self.pid).unwrap();
        procs::send(&keeper, Signal::KILL);
        assert!(procs::wait_dead(&keeper, PATIENCE));
        meanwhile();
        procs::send(&init, Signal::CONT);
        let old = self.pid;
        self.connect(daemon);
        assert_ne!(self.pid, old);
    }
}

impl Keeper {
    /// Whether it was told by now that nothing is left of this run.
    pub fn notices_of_gone(&mut self, run: RunId) -> bool {
        self.hear(Duration::from_millis(10));
        self.notices.iter().any(|notice| matches!(notice, Notice::TreeGone { run: id } if *id == run))
    }
}

//! The task behind an output answer: reads on the blocking pool, sends at the client's pace, and, when
//! following, waits for more and goes on into the next run of the job.
//!
//! A follower costs one look at the file sizes every [`TICK`]; without followers nothing wakes up. Watching
//! with inotify would not do: splice(2), by which output is captured, tells inotify only on recent kernels.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::output::OpenOutput;
use super::plan::Part;
use super::render::Renderer;
use super::run_feed::{Choice, Life, Offsets, RunFeed};
use super::stream::{Closed, Sink};
use crate::core::ids::{JobName, RunId};
use crate::supervisor::handle::{Handle, View};

/// How often a follower looks.
const TICK: Duration = Duration::from_millis(100);

/// Silence after which an event stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How an answer is produced.
pub(crate) struct Follow {
    pub(crate) handle: Handle,
    pub(crate) open: OpenOutput,
    pub(crate) job: JobName,
    /// Whether to wait for more.
    pub(crate) follow: bool,
    /// Whether to go on into the job's next run.
    pub(crate) chase: bool,
    /// Bytes that may still be sent.
    pub(crate) left: Option<u64>,
    pub(crate) renderer: Renderer,
    pub(crate) sink: Sink,
    pub(crate) ending: watch::Receiver<bool>,
}

/// Why the production of a run's output ended.
enum Stop {
    /// The reader has gone, or has all it asked for.
    Done,
    /// The supervisor is ending.
    Ending,
    /// A file could not be read.
    Failed(io::Error),
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Done
    }
}

impl Follow {
    /// Produces until all is delivered, the client goes, or the supervisor ends.
    pub(crate) async fn run(mut self, parts: Vec<Part>) {
        let why = match self.parts(parts).await {
            Ok(()) | Err(Stop::Done) => "complete",
            Err(Stop::Ending) => "shutdown",
            Err(Stop::Failed(e)) => return self.sink.fail(e).await,
        };
        if let Some(end) = self.renderer.end(why) {
            // A reader that has gone does not miss it.
            let _ = self.sink.send(end).await;
        }
    }

    async fn parts(&mut self, parts: Vec<Part>) -> Result<(), Stop> {
        let choice = parts.last().map(|part| part.choice).unwrap_or_default();
        let mut last = None;
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            last = Some(part.run);
            self.part(part, self.chase && index + 1 == count).await?;
        }
        let on = Choice { from: Offsets::default(), to: Offsets::default(), skip_lines: 0, ..choice };
        while self.chase {
            let Some(run) = self.next_run(last).await? else { return Ok(()) };
            last = Some(run);
            self.part(Part { run, choice: on }, true).await?;
        }
        Ok(())
    }

    /// One run. With `stay` it ends only when a later run is there: what outlives the main process of the
    /// run may still write.
    async fn part(&mut self, part: Part, stay: bool) -> Result<(), Stop> {
        let mut feed: Option<RunFeed> = None;
        let mut quiet_since = Instant::now();
        loop {
            self.handle.view.mark_unchanged();
            let view = Arc::clone(&self.handle.view.borrow());
            let over = !self.follow || is_over(&view, &self.job, part.run);
            let leave = over && (!stay || !self.follow || after(&view, &self.job, part.run) != Next::NotYet);
            let life = if over { Life::Over } else { Life::Live };
            let (back, pieces) = self.step(feed.take(), part, life).await.map_err(Stop::Failed)?;
            feed = back;
            if pieces.is_empty() {
                if leave {
                    return Ok(());
                }
                if quiet_since.elapsed() >= KEEP_ALIVE {
                    quiet_since = Instant::now();
                    if let Some(bytes) = self.renderer.keep_alive() {
                        self.sink.send(bytes).await?;
                    }
                }
                self.pause().await?;
                continue;
            }
            quiet_since = Instant::now();
            self.send(part.run, pieces).await?;
        }
    }

    async fn send(&mut self, run: RunId, mut pieces: Vec<super::run_feed::Piece>) -> Result<(), Stop> {
        let mut done = false;
        if let Some(left) = &mut self.left {
            for piece in &mut pieces {
                let take = piece.data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                piece.data.truncate(take);
                *left -= take as u64;
            }
            pieces.retain(|piece| !piece.data.is_empty());
            done = *left == 0;
        }
        for bytes in self.renderer.render(run, pieces) {
            self.sink.send(bytes).await?;
        }
        if done { Err(Stop::Done) } else { Ok(()) }
    }

    /// One look at the files, off the main thread: a stuck disk holds up this answer only.
    async fn step(
        &self,
        feed: Option<RunFeed>,
        part: Part,
        life: Life,
    ) -> io::Result<(Option<RunFeed>, Vec<super::run_feed::Piece>)> {
        let (open, dir) = (self.open, self.handle.run_dir(part.run).join("output"));
        let work = tokio::task::spawn_blocking(move || {
            let mut feed = match feed {
                Some(feed) => feed,
                None => match open(&dir) {
                    Ok(reader) => RunFeed::new(reader, part.choice),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((None, Vec::new())),
                    Err(e) => return Err(e),
                },
            };
            let pieces = feed.step(life)?;
            Ok((Some(feed), pieces))
        });
        work.await.map_err(io::Error::other)?
    }

    /// Waits for the next look: a tick, or a change of the view, which may be the end of the run.
    async fn pause(&mut self) -> Result<(), Stop> {
        tokio::select! {
            () = self.sink.closed() => Err(Stop::Done),
            () = super::ended(&mut self.ending) => Err(Stop::Ending),
            changed = self.handle.view.changed() => changed.map_err(|_| Stop::Ending),
            () = tokio::time::sleep(TICK) => Ok(()),
        }
    }

    /// The run after `last`, waiting for it if need be; `None` if the job is gone.
    async fn next_run(&mut self, last: Option<RunId>) -> Result<Option<RunId>, Stop> {
        loop {
            let view = Arc::clone(&self.handle.view.borrow_and_update());
            let next = match last {
                Some(run) => after(&view, &self.job, run),
                None => first(&view, &self.job),
            };
            match next {
                Next::Run(run) => return Ok(Some(run)),
                Next::Never => return Ok(None),
                Next::NotYet => {}
            }
            tokio::select! {
                () = self.sink.closed() => return Err(Stop::Done),
                () = super::ended(&mut self.ending) => return Err(Stop::Ending),
                changed = self.handle.view.changed() => changed.map_err(|_| Stop::Ending)?,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    if let Some(bytes) = self.renderer.keep_alive() {
                        self.sink.send(bytes).await?;
                    }
                }
            }
        }
    }
}

/// Which run comes after another.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Run(RunId),
    NotYet,
    /// The job is gone.
    Never,
}

fn first(view: &View, job: &JobName) -> Next {
    match view.runs(job) {
        Some(runs) => runs.first().map_or(Next::NotYet, |r| Next::Run(r.run)),
        None if view.has(job) => Next::NotYet,
        None => Next::Never,
    }
}

/// Runs are listed in the order of their starts; one that is no longer listed is older than all of them.
fn after(view: &View, job: &JobName, run: RunId) -> Next {
    let Some(runs) = view.runs(job) else { return first(view, job) };
    let place = runs.iter().position(|r| r.run == run).map_or(0, |at| at + 1);
    match runs.get(place) {
        Some(next) => Next::Run(next.run),
        None if view.has(job) => Next::NotYet,
        None => Next::Never,
    }
}

fn is_over(view: &View, job: &JobName, run: RunId) -> bool {
    let runs = view.runs(job);
    let found = runs.iter().flat_map(|runs| runs.iter()).find(|r| r.run == run);
    found.is_none_or(|r| r.ended.is_some() || r.outcome.is_some())
}

//! Waits for jobs to get somewhere.
//!
//! The event stream says when to look again, so nothing is missed and little is asked. A look once a second
//! covers what changes without an event. A supervisor that dies meanwhile is waited for: its successor
//! knows the same jobs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::code;
use super::error::Fail;
use crate::client::{Client, Error};
use crate::wire::control::{JobStatus, StateWord};

/// Between two tries to reach an instance.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// A look without an event.
const LOOK: Duration = Duration::from_secs(1);

/// How long an instance that answered before may be silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// It does not run, and will not by itself.
pub(crate) fn has_ended(jobs: &[JobStatus]) -> bool {
    jobs.iter().all(|job| matches!(job.state, StateWord::Stopped | StateWord::Exited | StateWord::Fatal))
}

/// Waits until `done` says so about the jobs that the selectors mean.
///
/// # Errors
/// [`code::TIMEOUT`] when the time is over; else why nobody can tell.
pub(crate) async fn until(
    client: &Client,
    selectors: &[String],
    timeout: Option<Duration>,
    mut done: impl FnMut(&[JobStatus]) -> bool,
) -> Result<Vec<JobStatus>, Fail> {
    let work = async {
        let news = Arc::new(Notify::new());
        let mut follower = Follower::start(client, &news);
        let mut answered: Option<Instant> = None;
        loop {
            match client.status(selectors).await {
                Ok(status) if done(&status.jobs) => return Ok(status.jobs),
                Ok(_) => answered = Some(Instant::now()),
                Err(e) if e.may_pass() && answered.is_some_and(|at| at.elapsed() < PATIENCE) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            if follower.0.is_finished() {
                follower = Follower::start(client, &news);
                // What happened between the streams is found by the next look.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let _ = tokio::time::timeout(LOOK, news.notified()).await;
        }
    };
    match timeout {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or(Err(Fail::Code(code::TIMEOUT))),
    }
}

/// Reads the event stream and rings; a ring not yet heard swallows the next one.
struct Follower(JoinHandle<Result<(), Error>>);

impl Follower {
    fn start(client: &Client, news: &Arc<Notify>) -> Self {
        let (client, news) = (client.clone(), Arc::clone(news));
        Self(tokio::spawn(async move {
            let mut events = client.events(None, None, true).await?;
            // What happened before the stream began.
            news.notify_one();
            while events.next().await?.is_some() {
                news.notify_one();
            }
            Ok(())
        }))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! When the disk takes its time.
//!
//! The loop waits for the sync of its own turn, because nothing may leave the process before that. Readers do not
//! wait: they see the last view, and in it that a write has been waiting for longer than a disk that is well ever
//! takes. Nor does capture to other disks. An end is recorded on the disk of the state directory, though: where that
//! one hangs, the keeper tells of it, and init reaps, when it answers again.

use std::sync::Arc;
use std::time::Duration;

use super::event_log::AppendError;
use super::main_loop::{Supervisor, now};
use crate::core::alerts::{Alert, INSTANCE, Id, Raised, Severity};
use crate::core::time::Millis;
use crate::journal::Entry;
use crate::wire::control::Mark;

/// A sync that takes longer is said; the figure is etcd's.
const SLOW: Duration = Duration::from_secs(1);
/// One that takes longer than this, and every multiple of it, is said again, and more loudly.
pub(super) const STALLED: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Makes a batch durable. Also how long that took as far as it was said; nothing if it was not.
    pub(super) async fn append(&self, entries: Vec<Entry>) -> (Result<u64, AppendError>, Duration) {
        let append = self.log.append(entries);
        tokio::pin!(append);
        let (mut waited, mut next) = (Duration::ZERO, SLOW);
        loop {
            tokio::select! {
                biased;
                result = &mut append => {
                    if !waited.is_zero() {
                        tracing::warn!("the disk has answered again");
                    }
                    return (result, waited);
                }
                () = tokio::time::sleep(next - waited) => {}
            }
            waited = next;
            next = if waited < STALLED { STALLED } else { waited + STALLED };
            self.say_stalled(waited);
        }
    }

    fn say_stalled(&self, waited: Duration) {
        let seconds = waited.as_secs();
        let why = format!("the disk has not answered a write of the event log for {seconds} s");
        if waited < STALLED {
            tracing::warn!("{why}");
        } else {
            tracing::error!("{why}: no job is started, stopped or changed before it does");
        }
        let why = format!("{why}: what was asked for waits, jobs run on");
        self.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            if waited >= STALLED {
                view.insight.unrecorded = vec![silent_disk(waited)];
            }
            let instance = Arc::make_mut(&mut view.instance);
            instance.degraded_resources.retain(|mark| mark.resource != "journal");
            instance.degraded_resources.push(Mark { resource: "journal".to_owned(), why });
            instance.degraded = instance.degraded_resources.iter().map(|mark| mark.why.clone()).collect();
        });
    }
}

/// The alert that cannot be recorded now.
fn silent_disk(waited: Duration) -> Raised {
    let ms = Millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    let alert = Alert {
        id: Id::SyncFailures.as_str().to_owned(),
        subject: INSTANCE.to_owned(),
        severity: Severity::Critical,
        message: format!("the disk has not answered a write of the event log for {} s", waited.as_secs()),
        value: 1.0,
        threshold: 1.0,
    };
    Raised { alert, since: now().minus(ms) }
}

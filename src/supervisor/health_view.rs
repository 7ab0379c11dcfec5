//! How each job fares, for readers.

use super::main_loop::Supervisor;
use crate::core::event::Want;
use crate::core::fault::Meaning;
use crate::core::instance::Link;
use crate::core::job::{Job, Phase};
use crate::core::time::Stamp;
use crate::core::vigil::Vigil;
use crate::sys::clock;
use crate::wire::health::{HealthView, Verdict};

impl Supervisor {
    /// How a job fares; `None` if it has no run, and its latest has not failed.
    pub(super) fn health_of(&self, job: &Job) -> Option<Box<HealthView>> {
        let Some(run) = job.run() else {
            let failed = job.failures > 0 && job.want == Want::Up;
            return failed.then(|| {
                let mut view = HealthView::new(Verdict::Crashed);
                view.why = Some(job.last_words());
                Box::new(view)
            });
        };
        let vigil = self.vigils.over(run);
        let mut view = HealthView::new(Verdict::Healthy);
        if let Some(why) = vigil.and_then(Vigil::unready).filter(|_| is_up(job)) {
            (view.verdict, view.why) = (Verdict::Unready, Some(why));
        }
        if let Some(why) = self.vigils.damaged.get(&run) {
            (view.verdict, view.why) = (Verdict::Corrupted, Some(why.clone()));
        }
        if let Some(ill) = job.ill() {
            view.verdict = match ill.fault.meaning() {
                Meaning::Frozen => Verdict::Frozen,
                Meaning::Failed | Meaning::Exceeds => Verdict::Unwell,
            };
            (view.fault, view.why) = (Some(ill.fault), Some(ill.why.clone()));
            view.since = Some(ill.since.rfc3339());
        }
        if self.state.instance.link != Link::Working {
            (view.verdict, view.why) = (Verdict::Disconnected, Some("the keeper is not there".to_owned()));
        }
        view.diagnosis = self.vigils.diagnoses.get(&run).map(|path| path.display().to_string());
        view.last_sign = vigil.and_then(Vigil::last_sign_us).map(on_wall_clock);
        if let Some(told) = self.vigils.told_by(run) {
            (view.stopping, view.reloading) = (told.stopping.is_some(), told.reloading.is_some());
            (view.main_pid, view.errno, view.exit_status) = (told.main_pid, told.errno, told.exit_status);
            (view.rejected, view.ignored) = (told.rejected, told.ignored);
        }
        Some(Box::new(view))
    }

    /// All live runs fare differently when the keeper comes or goes.
    pub(super) fn all_fare_differently(&mut self) {
        let live: Vec<_> = self.state.live_runs().map(|(_, job)| job.clone()).collect();
        self.dirty.extend(live);
    }
}

const fn is_up(job: &Job) -> bool {
    matches!(job.phase, Phase::Running { ready_at: None, .. })
}

fn on_wall_clock(boot_us: u64) -> String {
    let ago = i64::try_from(clock::boot_us().saturating_sub(boot_us)).unwrap_or(0);
    Stamp { boot_us, wall_us: clock::wall_us().saturating_sub(ago) }.rfc3339()
}

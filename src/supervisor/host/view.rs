//! What readers see of the checks.

use super::super::main_loop::Supervisor;
use crate::core::host::{Check, Monitor, Share};
use crate::core::time::Stamp;
use crate::wire::control::Mark;
use crate::wire::host::{CheckView, HealsView, HostView};

impl Supervisor {
    /// All of them.
    pub(in super::super) fn host_view(&self) -> HostView {
        let Some(monitor) = &self.host.monitor else { return HostView::default() };
        HostView {
            status: monitor.overall().as_str().to_owned(),
            score: monitor.score(),
            checks: monitor.checks().iter().map(check_view).collect(),
            heals: heals_view(monitor),
            starts_held: self.state.instance.held.clone(),
        }
    }

    /// Those that have failed, and whether starts are held.
    pub(in super::super) fn host_marks(&self) -> Vec<Mark> {
        let checks = self.host.monitor.iter().flat_map(|monitor| monitor.checks());
        let failed = checks.filter_map(|check| {
            let why = format!("{}: {}", check.name, check.fault()?);
            Some(Mark { resource: check.name.clone(), why })
        });
        let held = self
            .state
            .instance
            .held
            .iter()
            .map(|why| Mark { resource: "starts".to_owned(), why: format!("no run is started: {why}") });
        failed.chain(held).collect()
    }
}

fn percent(share: Share) -> f64 {
    f64::from(share.0) / 100.0
}

fn check_view(check: &Check) -> CheckView {
    CheckView {
        name: check.name.clone(),
        state: check.condition().as_str().to_owned(),
        failures: check.count,
        heal_after: check.failures,
        percent: check.share().map(percent),
        limit: check.limit.map(percent),
        text: check.words().to_owned(),
        at: (check.at != Stamp::default()).then(|| check.at.rfc3339()),
        trend: check.trend().as_str().to_owned(),
    }
}

fn heals_view(monitor: &Monitor) -> Vec<HealsView> {
    let view = |(check, act, result, count): (&str, &str, &str, u64)| HealsView {
        check: check.to_owned(),
        act: act.to_owned(),
        result: result.to_owned(),
        count,
    };
    monitor.heals().map(view).collect()
}

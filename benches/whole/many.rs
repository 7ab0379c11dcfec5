//! What very many jobs cost that are over: the memory of the supervisor.

use std::os::unix::fs::DirBuilderExt;

use crate::instance::{Home, Instance};
use crate::marks::pause_ms;
use crate::report::{Bar, Report};
use crate::{Settings, data, proc};

/// Tasks that are over.
const JOBS: u64 = 100_000;

pub(crate) fn many(settings: &Settings, report: &mut Report) {
    let home = Home::new(&settings.dir);
    let state = home.0.join("state");
    std::fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
    // One of them has been running, and is looked for.
    data::make(&state, JOBS, JOBS, 0);
    let instance = Instance::start(settings, home, "");
    instance.wait_ready();
    // What a start leaves behind settles.
    pause_ms(5000);
    let supervisor = instance.role("supervisor").unwrap();
    let mib = |kib: u64| kib as f64 / 1024.0;
    report.less(
        format!("memory (PSS) of the supervisor, {JOBS} jobs that are over"),
        "MiB",
        vec![mib(proc::pss_kib(supervisor))],
        Vec::new(),
        Bar::AtMost(40.0),
    );
}

//! From the moment at which a silent job has had its time to the first instruction of its next run.

use crate::Settings;
use crate::instance::{Home, Instance, SERVICE, configuration};
use crate::marks::{DONE, Marks, START, child, pause_ms};
use crate::report::{Bar, Report};

/// How long a job may be silent, in milliseconds.
const LIMIT_MS: u64 = 2000;

/// Silences of one job in a round.
const SILENCES: usize = 4;

/// The longest of some, in milliseconds beyond the limit; `kill`: the supervisor dies in each silence.
fn worst(settings: &Settings, kill: bool) -> f64 {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let command = child(&marks.path, 0, &["hang-after", "100", "5"].map(str::to_owned));
    let watch = format!("heartbeat = {{ notify = \"{LIMIT_MS}ms\" }}\n");
    let config = configuration(&format!("{SERVICE}{watch}"), &[command]);
    let instance = Instance::start(settings, home, &config);
    marks.one(0, START);
    instance.wait_ready();
    let mut worst = 0.0_f64;
    for _ in 0..SILENCES {
        let silent = marks.one(0, DONE);
        if kill {
            pause_ms(200);
            let supervisor = instance.role("supervisor").unwrap_or_else(|| panic!("no supervisor"));
            // SAFETY: a role of an instance of ours, alive a moment ago.
            unsafe { libc::kill(supervisor, libc::SIGKILL) };
        }
        let next = marks.one(0, START);
        worst = worst.max((next.ns as f64 - silent.ns as f64) / 1e6 - LIMIT_MS as f64);
    }
    worst
}

/// With a supervisor that lives, and with one that dies in the silence.
pub(crate) fn late(settings: &Settings, report: &mut Report) {
    for (kill, who) in [(false, ""), (true, ", the supervisor killed in it")] {
        let all = (0..settings.reps).map(|_| worst(settings, kill)).collect();
        let name = format!("restart beyond a silence of {} s{who}", LIMIT_MS / 1000);
        report.less(name, "ms", all, Vec::new(), Bar::AtMost(1000.0));
    }
}

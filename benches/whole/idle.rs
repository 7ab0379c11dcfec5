//! What a thousand jobs cost that do nothing: memory, and how often anything of ours wakes up.

use crate::Settings;
use crate::instance::{Home, Instance};
use crate::marks::{Marks, START, pause_ms};
use crate::proc;
use crate::report::{Bar, Report};

struct Seen {
    pss_mib: f64,
    wakes: f64,
    cpu_ms: f64,
}

fn look(settings: &Settings, n: usize, more: &str) -> Seen {
    look_at(settings, n, |home, marks| Instance::idle(settings, home, marks, n, more))
}

fn look_at(settings: &Settings, n: usize, start: impl FnOnce(Home, &Marks) -> Instance) -> Seen {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let instance = start(home, &marks);
    marks.all(n, START);
    instance.wait_ready();
    let roles = instance.roles();
    // What a start leaves behind settles: syncs, the start grace.
    pause_ms(5000);
    let sum = |read: fn(i32) -> u64| roles.iter().map(|pid| read(*pid)).sum::<u64>() as f64;
    let (wakes, cpu) = (sum(proc::sleeps), sum(proc::cpu_ns));
    pause_ms(i32::try_from(settings.idle_s * 1000).unwrap_or(i32::MAX));
    let seen = Seen {
        wakes: sum(proc::sleeps) - wakes,
        cpu_ms: (sum(proc::cpu_ns) - cpu) / 1e6,
        pss_mib: sum(proc::pss_kib) / 1024.0,
    };
    for (name, pid) in ["init", "keeper", "supervisor"].iter().zip(roles) {
        eprintln!(
            "  {n} jobs, {name}: {:.1} MiB, {} threads' sleeps",
            proc::pss_kib(pid) as f64 / 1024.0,
            proc::sleeps(pid)
        );
    }
    seen
}

/// One look each: these figures hardly scatter.
pub(crate) fn idle(settings: &Settings, report: &mut Report) {
    let few = look(settings, 1, "");
    let most = settings.most();
    let many = look(settings, most, "");
    let s = settings.idle_s;
    report.less("memory (PSS) with 1 idle", "MiB", vec![few.pss_mib], Vec::new(), Bar::None);
    report.less(
        format!("memory (PSS) with {most} idle"),
        "MiB",
        vec![many.pss_mib],
        Vec::new(),
        Bar::AtMost(30.0),
    );
    // A wake-up per job would make hundreds; a handful comes from one beat for all.
    report.less(
        format!("wake-ups in {s} s, {most} idle (floor: 1)"),
        "",
        vec![many.wakes],
        vec![few.wakes],
        Bar::Above(10.0),
    );
    report.less(
        format!("CPU in {s} s, {most} idle (floor: 1)"),
        "ms",
        vec![many.cpu_ms],
        vec![few.cpu_ms],
        Bar::None,
    );
}

/// The same with jobs that are watched and healthy: by a time limit alone, by a sign of life for which their
/// processes are looked at every five seconds, and by one that they send every five seconds.
pub(crate) fn watched(settings: &Settings, report: &mut Report) {
    let n = settings.most();
    let plain = look(settings, n, "");
    let timed = look(settings, n, "max_runtime = \"1h\"\n");
    let sampled = look(settings, n, "heartbeat = { output = \"1h\" }\n");
    let beating = look_at(settings, n, |home, marks| Instance::beating(settings, home, marks, n));
    let s = settings.idle_s;
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let percent = |seen: &Seen| seen.cpu_ms / (s as f64 * 10.0);
    let name = |what: &str| format!("CPU with {n} {what} (floor: unwatched)");
    report.less(
        name("healthy jobs with a time limit"),
        "% of a core",
        vec![percent(&timed)],
        vec![percent(&plain)],
        Bar::AtMost(0.5),
    );
    report.less(
        name("healthy jobs, sampled"),
        "% of a core",
        vec![percent(&sampled)],
        vec![percent(&plain)],
        Bar::AtMost(2.0),
    );
    report.less(
        name("healthy jobs that beat every 5 s"),
        "% of a core",
        vec![percent(&beating)],
        vec![percent(&plain)],
        Bar::AtMost(2.0),
    );
    report.less(
        format!("wake-ups in {s} s, {n} with a time limit"),
        "",
        vec![timed.wakes],
        vec![plain.wakes],
        Bar::Above(10.0),
    );
}

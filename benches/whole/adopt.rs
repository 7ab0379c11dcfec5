//! From the death of the supervisor, or of the keeper, until the instance is ready again.

use crate::Settings;
use crate::instance::{Home, Instance};
use crate::marks::{Marks, START, now_ns, pause_ms};
use crate::proc;
use crate::report::{Bar, Report};

const MS: f64 = 1e6;

/// Kills a role and waits until all is as before; milliseconds.
fn once(instance: &Instance, role: &str, roles: [i32; 3]) -> f64 {
    let victim = roles[match role {
        "keeper" => 1,
        _ => 2,
    }];
    let begun = now_ns();
    // SAFETY: a process of an instance of ours.
    unsafe { libc::kill(victim, libc::SIGKILL) };
    while proc::is_alive(victim) {
        std::hint::spin_loop();
    }
    loop {
        if role == "supervisor" {
            // The listening socket outlives the supervisor: whoever answers is the new one.
            if instance.is_ready() {
                break;
            }
        } else if instance.role("keeper").is_some_and(|pid| pid != victim) && instance.is_ready() {
            break;
        }
        assert!(now_ns() - begun < 60_000_000_000, "the instance did not come back within a minute");
        pause_ms(1);
    }
    (now_ns() - begun) as f64 / MS
}

/// Both, with all jobs running.
pub(crate) fn adoption(settings: &Settings, report: &mut Report) {
    for &n in &settings.n {
        let home = Home::new(&settings.dir);
        let mut marks = Marks::new(home.0.join("marks"));
        let instance = Instance::idle(settings, home, &marks, n, "");
        let alive = marks.all(n, START);
        instance.wait_ready();
        for role in ["supervisor", "keeper"] {
            let mut took = Vec::new();
            for _ in 0..settings.reps.max(3) {
                // A role that has lived for a while is started again at once.
                pause_ms(1500);
                took.push(once(&instance, role, instance.roles()));
            }
            let bar = if n == 1000 { Bar::AtMost(250.0) } else { Bar::None };
            report.less(format!("{role} killed, {n} adopted"), "ms", took, Vec::new(), bar);
        }
        let lost = alive.values().filter(|mark| !proc::is_alive(mark.pid as i32)).count();
        assert!(lost == 0 && marks.take().is_empty(), "a job was lost or started twice");
    }
}

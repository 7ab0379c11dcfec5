//! The keeper is killed before each of its system calls while a run tells something by its socket and by its
//! descriptor: all of it is known in the end.

use std::time::Duration;

use outlive::wire::keeper::{Listen, Told};

use super::common::{Daemon, keeper::Keeper, skip, until};
use super::trace::{Count, Over, Tracer};
use super::{DEATHS_MAX, POINTS_MAX, settings, tracing_works};

const SCRIPT: &str =
    "gate gate sd-notify STATUS=a beat 0ms 1 ready-fd 4 sd-notify X_RESUME=b mark said {run} hang";

fn complete(told: &Told) -> bool {
    told.ready.is_some()
        && told.beat.is_some()
        && told.status.as_deref() == Some("a")
        && told.resume.as_deref() == Some("b")
}

/// True if everything was done before the N-th system call.
fn point(daemon: &Daemon, keeper: &mut Keeper, n: u64) -> Result<bool, String> {
    let mut gate = daemon.gate("gate");
    let run = keeper.launch(daemon, SCRIPT, Listen { notify: true, ready_fd: Some(4) });
    let file = daemon.runtime_dir().join("runs").join(run.to_string()).join("told.json");
    let on_disk = || {
        let text = std::fs::read(&file).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).is_some_and(|told: Told| complete(&told))
    };
    let mut tracer = Tracer::seize(keeper.pid, Count::Own).map_err(|error| error.to_string())?;
    tracer.quiet(Duration::from_millis(15))?;
    gate.release();
    let over = tracer.run_to(n, Duration::from_millis(30), on_disk)?;
    if let Over::Reached(..) = over {
        tracer.kill(keeper.pid)?;
        keeper.connect(daemon);
    } else {
        drop(tracer);
    }
    let told = keeper.wait_told(run, "all told", complete);
    std::fs::remove_file(daemon.path("gate")).map_err(|error| error.to_string())?;
    until("the end of the script", || daemon.read("said").contains(&run.to_string()).then_some(()));
    if (told.rejected, told.ignored) != (0, 0) {
        return Err(format!("{told:?}"));
    }
    Ok(matches!(over, Over::Done))
}

#[test]
fn nothing_that_a_run_tells_is_lost_wherever_the_keeper_is_killed() {
    if let Err(why) = tracing_works() {
        return skip(&format!("processes cannot be traced here: {why}"));
    }
    let settings = settings();
    eprintln!("SWEEP_SEED={}", settings.seed);
    let stride = if settings.full { 1 } else { 3 };
    let mut n = settings.at.unwrap_or(1 + settings.seed % stride);
    let (mut points, mut deaths) = (0, 0);
    let mut bench: Option<(Daemon, Keeper)> = None;
    loop {
        let (daemon, mut keeper) = match bench.take().filter(|_| deaths < DEATHS_MAX) {
            Some(bench) => bench,
            None => {
                deaths = 0;
                let daemon = Daemon::start("");
                let keeper = Keeper::of(&daemon);
                (daemon, keeper)
            }
        };
        let over = point(&daemon, &mut keeper, n).unwrap_or_else(|why| panic!("point {n}: {why}"));
        points += u64::from(!over);
        deaths += u32::from(!over);
        if over || settings.at.is_some() || n > POINTS_MAX {
            break;
        }
        bench = Some((daemon, keeper));
        n += stride;
    }
    eprintln!("killed at {points} points, up to system call {n}");
    assert!(points > 0 || settings.at.is_some(), "no point was reached");
}

//! Jobs and what happens to them, about as long as the real ones.

use std::path::Path;

use outlive::core::event::Event;
use outlive::core::identity::{Epoch, Identity};
use outlive::core::ids::{Generation, JobName, RunId};
use outlive::core::outcome::{Asked, ExitRecord, Outcome, Source};
use outlive::core::spec::JobSpec;
use outlive::core::state::State;
use outlive::core::time::{Millis, Stamp};
use outlive::journal::{Entry, Journal, recover};

fn spec(name: &JobName) -> JobSpec {
    let text = format!(
        r#"{{"name":"{name}","kind":"task","command":["/usr/bin/python3","-m","http.server","8000"],"env":{{"LANG":"C.UTF-8"}},
        "inherit_env":null,"cwd":"/srv/api","user":null,"group":null,"umask":null,"rlimits":{{}},"nice":null,
        "oom_score_adj":null,"autostart":true,"restart":"never","success_codes":[0],
        "backoff":{{"initial":200,"factor":2.0,"max":60000,"jitter":0.1,"reset_after":60000}},
        "start_limit":{{"count":10,"within":60000}},"start_grace":0,"stop":[{{"act":{{"signal":15}},"timeout":10000}}],
        "kill_scope":"mixed","leftovers":"stop","depends_on":[],"output":{{"mode":"merged","max_size":52428800,"keep":10,
        "compress":true,"on_log_stall":"block","dir":null}},"stdin":"null","on_supervisor_death":"keep"}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn stamp(n: u64) -> Stamp {
    Stamp { boot_us: 8_000_000_000 + n, wall_us: 1_763_600_000_000_000 + i64::try_from(n).unwrap() }
}

/// One of the four things that happen to job `job` in its `life`th run.
pub(crate) fn event(job: u64, life: u64, what: u64) -> Entry {
    let name = JobName::new(format!("worker-{job}")).unwrap();
    let at = stamp(life * 4 + what);
    let run = RunId::from_bytes((u128::from(life) << 64 | u128::from(job)).to_be_bytes());
    let epoch = Epoch { boot_id: "00000000-1111-4222-8333-444444444444".to_owned(), init: 4_026_531_836 };
    let event = match what {
        0 => Event::JobSubmitted {
            spec: Box::new(spec(&name)),
            by: Asked::Operator { uid: 0, verb: "run".to_owned() },
        },
        1 => Event::RunRequested { job: name, run, attempt: life + 1, at },
        2 => {
            let identity = Identity { pid: 4711, pidfs: job, start_ticks: 421_037, epoch };
            Event::RunStarted { job: name, run, identity, at, grace: Millis(0), awaits: false }
        }
        _ => {
            let record = ExitRecord {
                v: 1,
                run,
                job: name.clone(),
                outcome: Outcome::Exited { code: 0 },
                source: Source::Wait,
                asked: Asked::Nobody,
                started: Some(at),
                ended: at,
                rusage: None,
                stdout_bytes: 100,
                stderr_bytes: 0,
                dropped_bytes: 0,
                output_complete: true,
            };
            Event::RunEnded {
                job: name,
                record: Box::new(record),
                leftovers: false,
                failures: 0,
                interrupted: false,
            }
        }
    };
    Entry { at, generation: Generation(1), events: vec![event] }
}

pub(crate) fn open(dir: &Path) -> Journal {
    recover(dir, State::new(), &mut |_, _| {}).unwrap().open(stamp(0), Generation(1)).0
}

/// Whether the tail is about tasks that were over, rather than about those that still run.
fn again() -> bool {
    std::env::var_os("BENCH_AGAIN").is_some()
}

/// A log of `jobs` tasks of which one in `each` still runs, a checkpoint behind that, and a tail of events:
/// those that run come to an end and run again.
pub(crate) fn make(dir: &Path, jobs: u64, each: u64, tail: u64) {
    let mut journal = open(dir);
    let mut put = |entries: &mut Vec<Entry>, least: usize| {
        if entries.len() > least {
            journal.append(entries).unwrap();
            entries.clear();
        }
    };
    let mut entries = Vec::new();
    for job in 0..jobs {
        let still_runs = job % each == 0;
        entries.extend((0..if still_runs { 3 } else { 4 }).map(|what| event(job, 0, what)));
        put(&mut entries, 10_000);
    }
    put(&mut entries, 0);
    journal.rotate().unwrap();
    journal.folding().run(journal.last_seq()).unwrap();
    let mut entries = Vec::new();
    for n in 0..tail {
        let each = if again() { 1 } else { each };
        let live = jobs.div_ceil(each);
        entries.push(event(n / 3 % live * each, 1, 1 + n % 3));
    }
    // One write for each hundred, as it is when much happens at once.
    for some in entries.chunks(100) {
        journal.append(some).unwrap();
    }
    journal.mark().unwrap();
}

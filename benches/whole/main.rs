//! Measurements of the whole product: real processes, beside the least that the kernel asks for.
//!
//! ```text
//! cargo bench --bench whole                                  # everything
//! cargo bench --bench whole -- start restart --n 1,100,1000 --reps 5 --json figures.json
//! ```
//!
//! Each measure starts the executable under test with a configuration of its own in a directory of its
//! own, and measures a floor in the same run: a loop that does no more than `clone` (vfork) and `execve`
//! of the same child, or a loop of `splice` from a pipe to a file. What is printed is a ratio to that
//! floor, since the times themselves say more about the machine than about us. Ours and the floor take
//! turns; the best and the median of all rounds are shown, because another load on the machine only ever
//! makes a round slower.
//!
//! The child is this very executable: its first act is to write down the time.

#![allow(
    unsafe_code,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a driver that measures: the floor is bare system calls, and what goes wrong ends it"
)]

mod adopt;
mod child;
#[path = "../journal/data.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod data;
mod floor;
mod idle;
mod instance;
mod many;
mod marks;
mod output;
mod proc;
mod report;
mod restart;
mod sample;
mod start;
mod watchdog;

use std::path::PathBuf;
use std::process::ExitCode;

use report::Report;

/// Measures one thing and adds its lines to the report.
type Measure = fn(&Settings, &mut Report);

/// The measures, in the order in which they are taken.
const MEASURES: &[(&str, Measure)] = &[
    ("start", start::cold_start),
    ("stop", start::shutdown),
    ("restart", restart::single),
    ("storm", restart::storm),
    ("adopt", adopt::adoption),
    ("idle", idle::idle),
    ("watched", idle::watched),
    ("watchdog", watchdog::late),
    ("many", many::many),
    ("flood", output::flood),
    ("lines", output::lines),
    ("sample", sample::sampling),
];

const USAGE: &str = "\
whole [MEASURE…] [OPTIONS]
  MEASURE       start stop restart storm adopt idle watched watchdog many flood lines sample;
                all when none is named
  --n LIST      numbers of jobs (default 1,100,1000)
  --reps K      rounds (default 3)
  --kills K     kills in each round of `restart` (default 200)
  --idle S      seconds of watching in `idle` (default 35)
  --seconds S   seconds of writing in `lines` (default 5)
  --gib G       GiB written in each round of `flood` (default 1)
  --dir DIR     where state and output go (default: the system's temporary directory)
  --exe FILE    executable under test (default: the one built with this)
  --json FILE   writes the figures as JSON";

/// What was asked for.
pub(crate) struct Settings {
    pub(crate) n: Vec<usize>,
    pub(crate) reps: usize,
    pub(crate) kills: usize,
    pub(crate) idle_s: u64,
    pub(crate) seconds: u64,
    pub(crate) gib: f64,
    pub(crate) dir: PathBuf,
    pub(crate) exe: PathBuf,
    json: Option<PathBuf>,
    measures: Vec<String>,
}

impl Settings {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut settings = Self {
            n: vec![1, 100, 1000],
            reps: 3,
            kills: 200,
            idle_s: 35,
            seconds: 5,
            gib: 1.0,
            dir: std::env::temp_dir(),
            exe: PathBuf::from(env!("CARGO_BIN_EXE_outlive")),
            json: None,
            measures: Vec::new(),
        };
        while let Some(word) = arguments.next() {
            if word == "--bench" {
                // What cargo adds.
                continue;
            }
            if !word.starts_with("--") {
                if !MEASURES.iter().any(|(name, _)| *name == word) {
                    return Err(format!("there is no measure {word}"));
                }
                settings.measures.push(word);
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<usize>().map_err(|_| format!("{word}: {value} is no number"));
            match word.as_str() {
                "--n" => {
                    let list = value.split(',').map(str::parse).collect::<Result<_, _>>();
                    settings.n = list.map_err(|_| format!("--n: {value} is no list of numbers"))?;
                }
                "--reps" => settings.reps = number()?.max(1),
                "--kills" => settings.kills = number()?.max(1),
                "--idle" => settings.idle_s = number()? as u64,
                "--seconds" => settings.seconds = number()? as u64,
                "--gib" => {
                    settings.gib = value.parse().map_err(|_| format!("--gib: {value} is no number"))?
                }
                "--dir" => settings.dir = value.into(),
                "--exe" => settings.exe = value.into(),
                "--json" => settings.json = Some(value.into()),
                _ => return Err(format!("unknown option {word}")),
            }
        }
        Ok(settings)
    }

    /// The largest number of jobs asked for.
    pub(crate) fn most(&self) -> usize {
        self.n.iter().copied().max().unwrap_or(1)
    }
}

fn main() -> ExitCode {
    // Before anything else: a child's first act is to look at the clock.
    let began = marks::now_ns();
    let mut arguments = std::env::args();
    let _ = arguments.next();
    let mut arguments = arguments.peekable();
    if arguments.next_if(|word| word == child::MARK).is_some() {
        return child::run(began, arguments);
    }
    let settings = match Settings::parse(arguments) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    proc::become_subreaper();
    proc::raise_descriptor_limit();
    let mut report = Report::new(settings.reps);
    for (name, measure) in MEASURES {
        if settings.measures.is_empty() || settings.measures.iter().any(|wanted| wanted == name) {
            eprintln!("{name} …");
            measure(&settings, &mut report);
        }
    }
    instance::clean_up();
    report.print();
    if let Some(path) = &settings.json
        && let Err(error) = std::fs::write(path, report.json())
    {
        eprintln!("cannot write {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

//! Run directories that nobody remembers: what a crash between two steps of ours may leave. They are
//! reported, and left alone.

use std::collections::BTreeSet;

use super::main_loop::{Entropy, Supervisor};
use crate::core::Fresh;
use crate::core::ids::RunId;
use crate::state_dir::layout::StateDir;

/// Directories that are named; more of them are counted.
const NAMED_MAX: usize = 100;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Directories looked at.
    looked: u64,
    /// Words about those that nobody remembers.
    words: Vec<String>,
}

impl Supervisor {
    /// Begins to look, unless somebody has said not to.
    pub(super) fn look_for_strays(&mut self) {
        if !self.startup.is_pending("strays") {
            return;
        }
        self.startup.begin("strays");
        let jobs = self.state.awake().map(|(name, _)| name);
        let mut known: BTreeSet<RunId> =
            jobs.flat_map(|job| self.state.runs(job)).map(|past| past.run).collect();
        let rest = self.state.rest().clone();
        // Whatever is started from here on is none.
        let next = Entropy.run_id();
        let (tell, state_dir) = (self.tell_strays.clone(), self.state_dir.clone());
        tokio::task::spawn_blocking(move || {
            // Not by the loop: there may be very many.
            for rested in rest.names().filter_map(|name| rest.look(name)) {
                known.extend(rested.runs().map(|past| past.run));
            }
            let found = look(&state_dir, &known, next).map_err(|error| error.to_string());
            drop((known, rest));
            crate::sys::memory::give_back();
            let _ = tell.blocking_send(found);
        });
    }

    pub(super) fn strays_found(&mut self, found: Result<Strays, String>) {
        match found {
            Ok(strays) => {
                self.startup.count("strays", strays.looked, strays.looked);
                self.startup.damage(strays.words);
                self.startup.done("strays");
            }
            Err(why) => self.startup.fail("strays", &why, false),
        }
    }
}

fn look(state_dir: &StateDir, known: &BTreeSet<RunId>, before: RunId) -> std::io::Result<Strays> {
    let mut strays = Strays::default();
    let mut more = 0_u64;
    // The ids of runs are in the order of time.
    for run in state_dir.list_runs()? {
        strays.looked += 1;
        if known.contains(&run) || run >= before {
            continue;
        }
        if strays.words.len() >= NAMED_MAX {
            more += 1;
            continue;
        }
        let whose = match state_dir.run(run).read_run() {
            Ok(Some(record)) => format!("of job {}", record.job),
            Ok(None) => "which was never launched".to_owned(),
            Err(error) => format!("which cannot be read: {error}"),
        };
        strays
            .words
            .push(format!("the directory of run {run}, {whose}, belongs to no run that is remembered"));
    }
    if more > 0 {
        strays.words.push(format!("{more} more run directories belong to no run that is remembered"));
    }
    Ok(strays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_nobody_remembers_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("s")).unwrap();
        let ids: Vec<RunId> = (0..104).map(|n| RunId::from_bytes([n; 16])).collect();
        for id in &ids {
            state.run(*id).create().unwrap();
        }
        let found = look(&state, &BTreeSet::from([ids[0]]), ids[103]).unwrap();
        assert_eq!((found.looked, found.words.len()), (104, NAMED_MAX + 1));
        assert!(found.words[0].contains(&ids[1].to_string()), "{}", found.words[0]);
        assert!(found.words[NAMED_MAX].starts_with("2 more"), "{}", found.words[NAMED_MAX]);
        assert_eq!(state.list_runs().unwrap().len(), 104);
    }
}

//! The counts, for people.

use std::time::Duration;

use super::account::Fate;
use super::plan::Case;

/// One round: who was killed, and how long until all was well again.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub case: Case,
    pub took: Duration,
}

/// Prints counts per case.
pub fn print(title: &str, cases: &[Case], rounds: &[Round], fates: &[(Option<Case>, Fate)]) {
    let kills: usize = rounds.iter().map(|r| r.case.roles().len()).sum();
    eprintln!("\n{title}: {} rounds, {kills} kills, {} ended runs", rounds.len(), fates.len());
    eprintln!(
        "{:<20} {:>7} {:>7} {:>11} {:>7} {:>6} {:>10} {:>9} {:>9}",
        "killed", "rounds", "kills", "runs ended", "exact", "lost", "never ran", "p50 ms", "max ms"
    );
    for case in cases.iter().copied().map(Some).chain([None]) {
        let mut times: Vec<u128> =
            rounds.iter().filter(|r| Some(r.case) == case).map(|r| r.took.as_millis()).collect();
        times.sort_unstable();
        let count = |fate: Fate| fates.iter().filter(|(c, f)| *c == case && *f == fate).count();
        eprintln!(
            "{:<20} {:>7} {:>7} {:>11} {:>7} {:>6} {:>10} {:>9} {:>9}",
            case.map_or("(nobody)", Case::name),
            times.len(),
            times.len() * case.map_or(0, |c| c.roles().len()),
            fates.iter().filter(|(c, _)| *c == case).count(),
            count(Fate::Exact),
            count(Fate::Lost),
            count(Fate::NeverRan),
            times.get(times.len() / 2).unwrap_or(&0),
            times.last().unwrap_or(&0),
        );
    }
}

//! Many wait, one writes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};

use super::rig::{Rig, Rng, entry, stamp, state_dir};
use crate::core::ids::Generation;
use crate::core::state::State;
use crate::journal::simulated::SimFs;
use crate::journal::{Entry, JournalError, Writer, recover_on};

fn start(fs: &SimFs) -> Writer {
    let read = recover_on(Arc::new(fs.clone()), &state_dir(), State::new(), &mut |_, _| {}).unwrap();
    Writer::start(read.open(stamp(1), Generation(1)).0).unwrap()
}

fn one(n: u64) -> Vec<Entry> {
    vec![entry(&mut Rng::new(n), n)]
}

type Told = Receiver<Result<u64, JournalError>>;

fn ask(what: impl FnOnce(crate::journal::Answer)) -> Told {
    let (tell, told) = channel();
    what(Box::new(move |result| drop(tell.send(result))));
    told
}

#[test]
fn many_threads_share_syncs_and_every_number_is_told_once() {
    let fs = SimFs::default();
    let writer = Arc::new(start(&fs));
    let before = fs.ops();
    let sum = Arc::new(AtomicU64::new(0));
    let begin = Arc::new(Barrier::new(16));
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (writer, sum, begin) = (Arc::clone(&writer), Arc::clone(&sum), Arc::clone(&begin));
            scope.spawn(move || {
                begin.wait();
                for i in 0..50 {
                    let told = ask(|answer| writer.submit(&one(n * 50 + i), answer));
                    sum.fetch_add(told.recv().unwrap().unwrap(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(sum.load(Ordering::Relaxed), (1..=800).sum::<u64>());
    println!("{} operations for 800 decisions", fs.ops() - before);
    let journal = Arc::into_inner(writer).unwrap().close().unwrap();
    // Closed in order: marked, and the next segment begun.
    assert_eq!(journal.last_seq(), 801);
    let read = Rig::new(fs.killed(), 1).read().unwrap();
    assert_eq!((read.last_seq(), read.report.is_damaged()), (801, false));
    assert_eq!(read.report.superseded, 0);
}

#[test]
fn a_refused_batch_is_indeterminate_the_queue_behind_it_is_refused_and_healing_makes_both_void() {
    let fs = SimFs::default();
    let writer = start(&fs);
    ask(|answer| writer.submit(&one(1), answer)).recv().unwrap().unwrap();
    fs.refuse(fs.ops() + 2, 2);
    let told: Vec<Told> = (2..6).map(|n| ask(|answer| writer.submit(&one(n), answer))).collect();
    let told: Vec<JournalError> = told.into_iter().map(|told| told.recv().unwrap().unwrap_err()).collect();
    assert!(matches!(told[0], JournalError::Indeterminate { .. }), "{told:?}");
    for error in &told {
        let fine = matches!(error, JournalError::Indeterminate { .. } | JournalError::Poisoned { .. });
        assert!(fine, "{error}");
    }
    let refused = ask(|answer| writer.submit(&one(7), answer)).recv().unwrap().unwrap_err();
    assert!(matches!(&refused, JournalError::Poisoned { first } if first.contains("sync")), "{refused}");
    fs.refuse(fs.ops() + 3, 0);
    let still = ask(|answer| writer.heal(answer)).recv().unwrap().unwrap_err();
    assert!(matches!(still, JournalError::Poisoned { .. }), "{still}");
    assert_eq!(ask(|answer| writer.heal(answer)).recv().unwrap().unwrap(), 1);
    assert_eq!(ask(|answer| writer.submit(&one(8), answer)).recv().unwrap().unwrap(), 2);
    let mut lines = Vec::new();
    let fs = Arc::new(fs.killed());
    recover_on(fs, &state_dir(), State::new(), &mut |_, line| lines.push(line.entry.at.boot_us)).unwrap();
    assert_eq!(lines, [1, 8]);
}

#[test]
fn silence_is_marked() {
    let fs = SimFs::default();
    let writer = start(&fs);
    ask(|answer| writer.submit(&one(1), answer)).recv().unwrap().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while Rig::new(fs.killed(), 1).read().unwrap().last_seq() < 2 {
        assert!(std::time::Instant::now() < end, "no mark");
        std::thread::yield_now();
    }
    assert_eq!(ask(|answer| writer.submit(&one(2), answer)).recv().unwrap().unwrap(), 3);
}

#[test]
fn a_checkpoint_is_made_beside_the_writing_and_files_nobody_needs_go() {
    let fs = SimFs::default();
    let writer = start(&fs);
    for n in 1..=30 {
        ask(|answer| writer.submit(&one(n), answer)).recv().unwrap().unwrap();
        if n % 10 == 0 {
            let covered = ask(|answer| writer.checkpoint(answer)).recv().unwrap().unwrap();
            assert!(covered >= n, "{covered}");
        }
    }
    let names: Vec<_> = fs.files().into_keys().filter(|path| path.starts_with("/s/checkpoints")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // Nothing was marked in a test that takes less than a second; allow for one that does not.
    let read = Rig::new(fs.killed(), 1).read().unwrap();
    assert!(read.report.checkpoint.is_some_and(|seq| seq >= 30) && read.report.lines < 9, "{}", read.report);
    writer.abandon();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // Who asks a thread that is gone is told so.
    while ask(|answer| writer.heal(answer)).recv().is_ok() {
        assert!(std::time::Instant::now() < end);
    }
}

#[test]
fn a_start_that_met_damage_makes_a_checkpoint_at_once() {
    let mut rig = super::rig::bare_sample(7, 12);
    let (path, mut bytes) = super::rig::log_files(&rig.fs).remove(0);
    bytes[300] ^= 1;
    rig.fs = rig.fs.copy();
    rig.fs.put(&path, &bytes);
    let writer = start(&rig.fs);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while rig.read().unwrap().report.checkpoint.is_none() {
        assert!(std::time::Instant::now() < end, "no checkpoint");
        std::thread::yield_now();
    }
    assert!(writer.close().is_some());
    let read = rig.read().unwrap();
    assert!(!read.report.is_damaged() && read.state == *rig.states.last().unwrap(), "{}", read.report);
}

#[test]
fn a_memory_is_written_down_where_the_files_cannot_be_read() {
    let fs = SimFs::default();
    let writer = start(&fs);
    let mut state = State::new();
    let submit = |n: u64| ask(|answer| writer.submit(&one(n), answer)).recv().unwrap().unwrap();
    let mut last = 0;
    for n in 1..=20 {
        last = submit(n);
        for event in &one(n)[0].events {
            state.apply(event, stamp(n));
        }
    }
    // The only segment that has the lines is no more than noise.
    let path = state_dir().join("journal/00000000000000000001.jsonl");
    let bytes = fs.files()[&path].clone();
    ask(|answer| writer.checkpoint_of(state.clone(), last - 1, answer)).recv().unwrap().unwrap_err();
    fs.put(&path, &vec![b'?'; bytes.len()]);
    ask(|answer| writer.checkpoint(answer)).recv().unwrap().unwrap_err();
    let covered = ask(|answer| writer.checkpoint_of(state.clone(), last, answer)).recv().unwrap().unwrap();
    assert!(covered >= last, "a mark may follow");
    let read = Rig::new(fs.killed(), 1).read().unwrap();
    assert_eq!((read.report.is_lossy(), read.report.checkpoint), (false, Some(covered)), "{}", read.report);
    assert_eq!(read.state, state);
    submit(21);
    let read = Rig::new(fs.killed(), 1).read().unwrap();
    assert_eq!((read.report.is_lossy(), read.last_seq()), (false, covered + 1), "{}", read.report);
}

//! What need not hold up the pump: deleting old segments and compressing closed ones.
//!
//! Two threads, because deleting must keep pace with a flood and compressing need not. They may meet at one
//! segment: the deleter removes the plain file and then the compressed one; the compressor gives the
//! compressed file its name and then removes the plain one, and if that is gone already, removes its own
//! work. In every order nothing is left.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::state_dir::output::index::{IndexFile, SIZE};
use crate::state_dir::output::{self, Series};
use crate::sys::{disk, thread};

/// One closed segment.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub(super) dir: PathBuf,
    pub(super) series: Series,
    pub(super) start: u64,
}

/// A segment to delete, and the start of the oldest one that stays.
#[derive(Debug)]
struct Old {
    segment: Closed,
    first_kept: u64,
}

/// The two threads; each comes with its first work.
#[derive(Debug, Default)]
pub(super) struct Background {
    delete: Option<(Sender<Old>, JoinHandle<()>)>,
    compress: Option<(Sender<Closed>, JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
}

impl Background {
    /// Deletes a segment, and the index records before `first_kept`.
    pub(super) fn delete(&mut self, segment: Closed, first_kept: u64) {
        let old = Old { segment, first_kept };
        let start = |work: Receiver<Old>| move || work.into_iter().for_each(|old| delete(&old));
        if let Some(old) = hand_over(&mut self.delete, old, "capture-delete", start) {
            delete(&old);
        }
    }

    /// Compresses a segment some time. Without a thread it stays as it is, which is right too.
    pub(super) fn compress(&mut self, segment: Closed) {
        let stop = self.stop.clone();
        let start = |work: Receiver<Closed>| {
            move || {
                let _ = thread::lower_priority();
                for segment in work {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // On an error the plain file stays; the next keeper tries again.
                    let Closed { dir, series, start } = &segment;
                    let _ = output::compress(dir, *series, *start, &stop);
                }
            }
        };
        let _ = hand_over(&mut self.compress, segment, "capture-gzip", start);
    }

    /// Ends both threads: deletions are finished, compressions are broken off.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let threads = [
            self.delete.map(|(work, t)| (drop(work), t).1),
            self.compress.map(|(work, t)| (drop(work), t).1),
        ];
        for thread in threads.into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

/// Gives work to a thread, which is started if there is none. Returns the work if that was impossible.
fn hand_over<T: Send + 'static, F: FnOnce() + Send + 'static>(
    slot: &mut Option<(Sender<T>, JoinHandle<()>)>,
    work: T,
    name: &str,
    body: impl FnOnce(Receiver<T>) -> F,
) -> Option<T> {
    if slot.is_none() {
        let (sender, receiver) = channel();
        let body = body(receiver);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = thread::block_signals();
            body();
        });
        *slot = thread.ok().map(|t| (sender, t));
    }
    match slot {
        Some((sender, _)) => sender.send(work).err().map(|e| e.0),
        None => Some(work),
    }
}

fn delete(old: &Old) {
    let Closed { dir, series, start } = &old.segment;
    // An error here is met again at the next start, which lists the directory anew.
    let _ = std::fs::remove_file(series.plain(dir, *start));
    let _ = std::fs::remove_file(series.compressed(dir, *start));
    let _ = forget_records(dir, *series, old.first_kept);
}

/// Gives back the blocks of records that lie before the oldest segment. The index keeps its size, so that the
/// writer's position and readers are not disturbed.
fn forget_records(dir: &Path, series: Series, first_kept: u64) -> io::Result<()> {
    let file = disk::open_rw(&series.index(dir))?;
    let old = IndexFile::new(&file)?.partition(|r| r.end() <= first_kept && r.offset < first_kept)?;
    // Whole blocks only: the rest would be written as zeros.
    let len = old * SIZE / 4096 * 4096;
    if len > 0 { disk::punch_head(&file, len) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn segment(dir: &Path, content: &[u8]) -> Closed {
        let closed = Closed { dir: dir.to_owned(), series: Series::Merged, start: 0 };
        disk::create_or_truncate(&closed.series.plain(dir, 0), 0o600).unwrap().write_all(content).unwrap();
        closed
    }

    #[test]
    fn work_handed_over_is_done_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let closed = segment(dir.path(), b"x\n");
        let mut background = Background::default();
        background.delete(closed, 2);
        background.finish();
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}

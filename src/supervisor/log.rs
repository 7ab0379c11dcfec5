//! Our own messages, on stderr. A reader that stopped reading must never stop the supervisor: lines go to
//! a thread through a bounded queue, and what does not fit is dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for stderr: some seconds of the busiest start.
const LINES_MAX: usize = 4096;

#[derive(Clone)]
struct Queue {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(line.to_vec()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Maker(Mutex<Queue>);

impl<'a> MakeWriter<'a> for Maker {
    type Writer = Queue;
    fn make_writer(&'a self) -> Queue {
        match self.0.lock() {
            Ok(queue) => queue.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }
}

/// Waits for the queue to be written, at most for a moment, when dropped.
#[derive(Debug)]
pub(super) struct Guard {
    done: Option<Receiver<()>>,
    end: SyncSender<Vec<u8>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // An empty line ends the thread.
        if self.end.try_send(Vec::new()).is_ok()
            && let Some(done) = self.done.take()
        {
            let _ = done.recv_timeout(std::time::Duration::from_secs(1));
        }
    }
}

/// Sends messages of this level and above to stderr, in colour on a terminal (unless `NO_COLOR` is set).
pub(super) fn init(level: LevelFilter) -> io::Result<Guard> {
    let (lines, receive) = sync_channel(LINES_MAX);
    let (say_done, done) = sync_channel(1);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue { lines: lines.clone(), dropped: Arc::clone(&dropped) };
    std::thread::Builder::new().name("log".to_owned()).stack_size(128 * 1024).spawn(move || {
        write_lines(&receive, &dropped);
        let _ = say_done.send(());
    })?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(colour)
        .with_target(false)
        .log_internal_errors(false)
        .with_writer(Maker(Mutex::new(queue)))
        .finish();
    // Fails only if there is one already.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(Guard { done: Some(done), end: lines })
}

fn write_lines(lines: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    let mut stderr = io::stderr();
    for line in lines {
        if line.is_empty() {
            return;
        }
        // Whether anybody reads is not our business.
        let _ = stderr.write_all(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(stderr, "({lost} messages were dropped here: nobody read them in time)");
        }
    }
}

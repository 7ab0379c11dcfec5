//! Looking at runs: at the times of their files, at what their processes do, at what they write. The processes of
//! all that are due in a turn are looked at by one thread; each file by one of its own, for it may hang.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::main_loop::Supervisor;
use super::super::perform::Pending;
use super::{Looked, Seen, What, aside, probe};
use crate::core::ids::RunId;
use crate::core::job::Job;
use crate::core::vigil::{Look, Sampled};
use crate::core::watch::{ReadyBy, Watch};
use crate::state_dir::output::{Reader, Series};
use crate::sys::clock;
use crate::sys::sample::{self, Wanted};
use crate::wire::keeper::Request;

/// Most bytes of output that one look goes through.
const LOG_BYTES: usize = 1024 * 1024;
/// A line of this length has been looked at when it is complete; its end is not waited for.
const LINE_BYTES: usize = 64 * 1024;

/// What is to be looked at in a turn.
#[derive(Default)]
pub(super) struct Looks {
    beats: Vec<RunId>,
    files: Vec<(RunId, Look, PathBuf)>,
    logs: Vec<(RunId, Box<LogWatch>)>,
    samples: Vec<(RunId, Wanted)>,
}

/// How far the output of a run was searched for the line that says that it is ready.
#[derive(Debug)]
pub(super) struct LogWatch {
    output: PathBuf,
    wanted: regex::bytes::Regex,
    /// For each series the offset of the first byte not yet looked at, and the beginning of its line.
    places: Vec<(Series, u64, Vec<u8>)>,
}

impl LogWatch {
    fn new(output: PathBuf, expression: &str) -> Option<Self> {
        // It was tried when the configuration was read.
        let wanted = regex::bytes::Regex::new(expression).ok()?;
        let places = Series::ALL.iter().map(|series| (*series, 0, Vec::new())).collect();
        Some(Self { output, wanted, places })
    }

    /// Whether this is the line that is waited for.
    pub(super) fn is_for(&self, watch: &Watch) -> bool {
        watch.ready.as_ref().is_some_and(
            |ready| matches!(&ready.by, ReadyBy::Log(expression) if expression == self.wanted.as_str()),
        )
    }

    /// Whether the line has come. A line counts when it is complete, or too long to be waited for.
    fn look(&mut self) -> bool {
        let Ok(mut reader) = Reader::open(&self.output) else { return false };
        let mut left = LOG_BYTES;
        for (series, offset, rest) in &mut self.places {
            if !reader.series().contains(series) {
                continue;
            }
            while left > 0 {
                let Ok(chunk) = reader.read_at(*series, *offset, left.min(LINE_BYTES)) else { break };
                if chunk.data.is_empty() {
                    break;
                }
                left -= chunk.data.len().min(left);
                *offset = chunk.offset + chunk.data.len() as u64;
                if search(&self.wanted, rest, &chunk.data) {
                    return true;
                }
            }
        }
        false
    }
}

/// Searches the lines that these bytes complete; what follows the last of them is kept.
fn search(wanted: &regex::bytes::Regex, rest: &mut Vec<u8>, bytes: &[u8]) -> bool {
    rest.extend_from_slice(bytes);
    let complete = memchr::memrchr(b'\n', rest).map_or(0, |end| end + 1);
    let complete = if rest.len() - complete >= LINE_BYTES { rest.len() } else { complete };
    let found = rest[..complete]
        .split(|byte| *byte == b'\n')
        .any(|line| wanted.is_match(line.strip_suffix(b"\r").unwrap_or(line)));
    rest.drain(..complete);
    found
}

impl Supervisor {
    /// Arranges for a look at a run.
    pub(super) fn arrange(&mut self, run: RunId, look: Look, looks: &mut Looks) {
        let Some(job) = self.state.job_of(run).cloned() else { return };
        let Some(spec) = self.state.shared_spec(&job).cloned() else { return };
        let Some(watch) = spec.watch.as_deref() else { return };
        let output = || self.state_dir.run(run).output();
        match look {
            Look::Beat => looks.beats.push(run),
            Look::Output => looks.files.push((run, look, output())),
            Look::File => {
                let path = watch.heartbeat.file.as_ref().map(|file| PathBuf::from(&file.path));
                looks.files.extend(path.map(|path| (run, look, path)));
            }
            Look::Sample => {
                let wanted = self.state.job(&job).and_then(|job| self.wanted(run, job));
                looks.samples.extend(wanted.map(|wanted| (run, wanted)));
            }
            Look::Log => {
                let kept = self.vigils.runs.get_mut(&run).and_then(|watched| watched.log.take());
                let kept = kept.filter(|log| log.is_for(watch));
                let log = kept.or_else(|| log_watch(watch, self.state_dir.run(run).output()).map(Box::new));
                looks.logs.extend(log.map(|log| (run, log)));
            }
            Look::Probe(role) => {
                let Some(asked) = watch.probe.of(role).cloned() else { return };
                let asker = probe::Asker::new(self, run, &spec);
                let tell = self.vigils.tell.clone();
                let asked_us = clock::boot_us();
                tokio::spawn(async move {
                    let answer = asker.ask(&asked).await;
                    let _ = tell
                        .send(Seen::Probed { run, role, answer, asked_us, at_us: clock::boot_us() })
                        .await;
                });
            }
        }
    }

    /// The processes of a live run, to be looked at.
    pub(in super::super) fn wanted(&self, run: RunId, job: &Job) -> Option<Wanted> {
        let identity = job.identity()?;
        Some(Wanted {
            pid: identity.pid,
            start_ticks: identity.start_ticks,
            pidfs: identity.pidfs,
            group: self
                .vigils
                .groups
                .as_ref()
                .map(|base| base.join(run.to_string()))
                .filter(|group| group.exists()),
        })
    }

    /// Looks.
    pub(super) fn look(&mut self, looks: Looks) {
        let Looks { beats, files, logs, samples } = looks;
        if !beats.is_empty() && !self.keeper_tells {
            self.beats_unknown(&beats);
        } else if !beats.is_empty() {
            let request = Request::Beats { runs: beats.clone() };
            self.request(request, Pending::Beats(beats, clock::boot_us()));
        }
        // What looks at /proc does not wait; a disk may, and one that hangs holds up nobody's look but its own.
        let (runs, wanted): (Vec<RunId>, Vec<Wanted>) = samples.into_iter().unzip();
        self.look_at_processes(runs, wanted);
        for (run, kind, path) in files {
            self.look_aside(run, kind, move || {
                let at = if kind == Look::Output { written_us(&path) } else { touched_us(&path) };
                What::Sign(kind, at)
            });
        }
        for (run, mut log) in logs {
            self.look_aside(run, Look::Log, move || {
                let found = log.look();
                What::Log(log, found)
            });
        }
    }

    fn look_at_processes(&mut self, runs: Vec<RunId>, wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let (tell, looked_at) = (self.vigils.tell.clone(), runs.clone());
        let begun = aside(move || {
            let samples = sample::sample(&wanted, false);
            let at_us = clock::boot_us();
            let see = |(run, sample): (RunId, Option<sample::Sample>)| Looked {
                run,
                at_us,
                what: What::Sample(sample.map(sampled)),
            };
            let seen = looked_at.into_iter().zip(samples).map(see).collect();
            // Only a loop that has ended does not take it.
            let _ = tell.blocking_send(Seen::Looked(seen));
        });
        let now_us = clock::boot_us();
        for run in runs.into_iter().filter(|_| !begun) {
            self.vigils.change(run, |vigil| vigil.sampled(None, now_us));
        }
    }

    fn look_aside(&mut self, run: RunId, kind: Look, look: impl FnOnce() -> What + Send + 'static) {
        let tell = self.vigils.tell.clone();
        let begun = aside(move || {
            let what = look();
            let _ = tell.blocking_send(Seen::Looked(vec![Looked { run, at_us: clock::boot_us(), what }]));
        });
        if !begun {
            // That nobody could look is no fault of the run: it is looked at anew when it has had its time again.
            let now_us = clock::boot_us();
            self.vigils.change(run, |vigil| vigil.looked(kind, Some(now_us), now_us));
        }
    }
}

fn log_watch(watch: &Watch, output: PathBuf) -> Option<LogWatch> {
    match watch.ready.as_ref().map(|ready| &ready.by) {
        Some(ReadyBy::Log(expression)) => LogWatch::new(output, expression),
        Some(ReadyBy::Notify | ReadyBy::Fd(_) | ReadyBy::Probe) | None => None,
    }
}

fn sampled(sample: sample::Sample) -> Sampled {
    Sampled { state: sample.state, cpu_us: sample.cpu_us, memory: sample.rss_bytes, tasks: sample.threads }
}

/// When a file was touched last, on the boot clock. Who sets the wall clock between that and now moves it.
fn touched_us(path: &Path) -> Option<u64> {
    match std::fs::metadata(path).and_then(|meta| meta.modified()) {
        Ok(touched) => Some(on_boot_clock(touched)),
        Err(error) => could_not_look(&error),
    }
}

/// A lack of ours, or a disk that fails, says nothing about a run: it has had a sign as far as we know.
fn could_not_look(error: &std::io::Error) -> Option<u64> {
    let lacks = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR, libc::EIO, libc::ESTALE];
    error.raw_os_error().is_some_and(|code| lacks.contains(&code)).then(clock::boot_us)
}

fn on_boot_clock(moment: SystemTime) -> u64 {
    let us = moment.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let ahead_us = i64::try_from(us).unwrap_or(i64::MAX).saturating_sub(clock::wall_us());
    clock::boot_us().saturating_add_signed(ahead_us)
}

/// When bytes were last captured. Only plain segments count: compressing a closed one is our own work.
fn written_us(output: &Path) -> Option<u64> {
    let entries = match std::fs::read_dir(output) {
        Ok(entries) => entries,
        Err(error) => return could_not_look(&error),
    };
    let touched = entries.map(|entry| match entry {
        Ok(entry) if entry.file_name().to_string_lossy().ends_with(".log") => touched_us(&entry.path()),
        Ok(_) => None,
        Err(error) => could_not_look(&error),
    });
    touched.flatten().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_however_it_arrives() {
        let wanted = regex::bytes::Regex::new("^ready$").unwrap();
        let mut rest = Vec::new();
        for piece in ["not ready\nrea", "dy", "\r"] {
            assert!(!search(&wanted, &mut rest, piece.as_bytes()), "{piece:?}");
        }
        assert!(search(&wanted, &mut rest, b"\nmore"));
        assert_eq!(rest, b"more");
        // A line without an end is looked at as far as it goes, and does not grow for ever.
        let wanted = regex::bytes::Regex::new("^x+$").unwrap();
        let mut rest = Vec::new();
        assert!(!search(&wanted, &mut rest, &[b'x'; LINE_BYTES - 1]));
        assert!(search(&wanted, &mut rest, b"x"));
        assert!(rest.is_empty());
    }

    #[test]
    fn a_lack_of_our_own_is_no_silence() {
        for (code, says_something) in [(libc::EMFILE, false), (libc::EIO, false), (libc::ENOENT, true)] {
            let seen = could_not_look(&std::io::Error::from_raw_os_error(code));
            assert_eq!(seen.is_none(), says_something, "{code}");
        }
    }

    #[test]
    fn only_what_was_captured_is_output() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(written_us(dir.path()), None);
        assert_eq!(written_us(&dir.path().join("none")), None);
        for name in ["index", "00000000000000000000.log.gz"] {
            std::fs::File::create(dir.path().join(name)).unwrap();
        }
        assert_eq!(written_us(dir.path()), None);
        let segment = std::fs::File::create(dir.path().join("00000000000000000007.log")).unwrap();
        let wall = |ahead_s: i64| {
            let us = u64::try_from(clock::wall_us() + ahead_s * 1_000_000).unwrap();
            SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(us)
        };
        segment.set_modified(wall(-60)).unwrap();
        let (seen, now) = (written_us(dir.path()).unwrap(), clock::boot_us());
        assert!((59_000_000..61_000_000).contains(&(now - seen)), "{seen} {now}");
        let ahead = on_boot_clock(wall(60));
        assert!(ahead > clock::boot_us());
    }
}

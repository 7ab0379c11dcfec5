//! Transcripts: every `*.md` beside this file is a session at the command line, told for a reader and played
//! on a real instance. What the commands say has to be what the file says, to the letter, but for what
//! differs from one time to the next: that has a placeholder.
//!
//! - A `toml` block is the configuration: the first one starts the instance, a later one is what somebody
//!   writes into the file while it runs. Behind the word may be the name of another file that is written.
//! - A `console` block has commands for a shell, each behind `$ `. What follows is what it says on stdout and
//!   stderr, before that `? N` if its exit code is N and not 0.
//! - `[PID]`, `[RUN]`, `[TIME]` and the others of `redact` stand for what varies, `[..]` for anything in a
//!   line, a line `...` for any lines.
//!
//! `SNAPSHOTS=overwrite cargo test --test cmd` writes into the files what was said instead. No command in
//! them sleeps: they wait for what happens, by `wait`, `--wait` and `stop`.
#![allow(missing_docs, unreachable_pub, reason = "nothing outside uses a test")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the fixture serves several test binaries")]

#[path = "../common/mod.rs"]
mod common;

mod redact;
mod session;

use std::fs;

/// One test for each file, so that a failure names it.
macro_rules! transcripts {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                session::play(stringify!($name));
            }
        )*
    };
}

transcripts! {
    check
    completions
    events
    jobs
    journal
    logs
    reload
    run
    send
    shutdown
    status
    usage
    wait
}

#[test]
fn every_transcript_is_played() {
    let mut found: Vec<String> = fs::read_dir(session::dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, NAMES);
}

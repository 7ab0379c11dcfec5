//! One line: encoding and decoding.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::{JournalError, VERSION};
use crate::core::event::Event;
use crate::core::ids::Generation;
use crate::core::time::Stamp;

/// One decision, to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was taken.
    pub at: Stamp,
    /// By which supervisor.
    pub generation: Generation,
    /// What happened.
    pub events: Vec<Event>,
}

/// One recorded decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its number.
    pub seq: u64,
    /// What it says.
    pub entry: Entry,
}

#[derive(Serialize)]
struct Out<'a> {
    v: u32,
    seq: u64,
    t: i64,
    m: u64,
    g: Generation,
    ev: &'a [Event],
}

#[derive(Deserialize)]
struct In {
    v: u32,
    seq: u64,
    t: i64,
    m: u64,
    g: Generation,
    ev: Vec<Event>,
}

/// What a line of any version has.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) v: u32,
    pub(super) seq: u64,
}

/// What a stretch of bytes up to a newline turned out to be.
#[derive(Debug)]
pub(super) enum Read {
    /// A line.
    Good(Line),
    /// A whole line with a number, but not one that this build understands.
    Foreign { v: u32, seq: u64, why: String },
    /// No line.
    Bad { why: String },
}

pub(super) fn encode(out: &mut Vec<u8>, seq: u64, entry: &Entry) -> Result<(), JournalError> {
    let line = Out {
        v: VERSION,
        seq,
        t: entry.at.wall_us,
        m: entry.at.boot_us,
        g: entry.generation,
        ev: &entry.events,
    };
    serde_json::to_writer(&mut *out, &line).map_err(JournalError::Encode)?;
    out.write_all(b"\n").map_err(|e| JournalError::Encode(serde_json::Error::io(e)))
}

/// `bytes` without the newline.
pub(super) fn decode(bytes: &[u8]) -> Read {
    let why = match serde_json::from_slice::<In>(bytes) {
        Ok(line) if line.v == VERSION => {
            let at = Stamp { boot_us: line.m, wall_us: line.t };
            let entry = Entry { at, generation: line.g, events: line.ev };
            return Read::Good(Line { seq: line.seq, entry });
        }
        Ok(line) => format!("version {}", line.v),
        Err(e) => e.to_string(),
    };
    match serde_json::from_slice::<Head>(bytes) {
        Ok(head) => Read::Foreign { v: head.v, seq: head.seq, why },
        Err(_) => Read::Bad { why },
    }
}

/// Version and number of a line, without looking at its events.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    serde_json::from_slice(bytes).ok()
}

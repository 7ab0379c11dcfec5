//! The first layout: lines without checksums, segments without headers. Read, never written.
//!
//! ```text
//! {"v":1,"seq":17,"t":1763600000123456,"m":8123456789,"g":3,"ev":[…]}
//! ```

use serde::Deserialize;

use super::line::{Entry, Line};
use crate::core::event::Event;
use crate::core::ids::Generation;
use crate::core::time::Stamp;

const START: &[u8] = b"{\"v\":1,";
const LATER: &[u8] = b"{\"v\":2,";

#[derive(Deserialize)]
struct In {
    v: u32,
    seq: u64,
    t: i64,
    m: u64,
    g: Generation,
    ev: Vec<Event>,
}

/// Whether a segment is in this layout. Most of its lines decide, so that a wrong bit does not.
pub(super) fn is_old(data: &[u8]) -> bool {
    if data.starts_with(LATER) {
        return false;
    }
    let count =
        |start: &[u8]| data.split(|byte| *byte == b'\n').filter(|line| line.starts_with(start)).count();
    count(START) > count(LATER)
}

/// A line, or why it is none.
pub(super) fn decode(bytes: &[u8]) -> Result<Line, String> {
    let line: In = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if line.v != 1 {
        return Err(format!("version {} among lines of version 1", line.v));
    }
    let at = Stamp { boot_us: line.m, wall_us: line.t };
    Ok(Line { seq: line.seq, entry: Entry { at, generation: line.g, events: line.ev } })
}

/// The number of a line, without looking at its events.
pub(super) fn seq(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(b"{\"v\":1,\"seq\":")?;
    super::line::number(rest).map(|(seq, _)| seq)
}

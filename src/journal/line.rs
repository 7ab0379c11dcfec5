//! One line of events: encoding and decoding.

use std::borrow::Cow;
use std::io::Write;

use serde::Deserialize;

use super::planted::{Fault, planted};
use super::sealed::{self, Sealed};
use super::{JournalError, VERSION};
use crate::core::event::Event;
use crate::core::ids::Generation;
use crate::core::quick;
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

/// A line with its events still as bytes.
#[derive(Debug, Clone)]
pub(super) struct Raw<'a> {
    pub(super) seq: u64,
    /// Number of the first line of the write that carried it.
    pub(super) batch: u64,
    pub(super) at: Stamp,
    pub(super) generation: Generation,
    ev: Cow<'a, [u8]>,
}

/// What a line says when its fields are not where this build puts them.
#[derive(Deserialize)]
struct Loose {
    seq: u64,
    b: u64,
    t: i64,
    m: u64,
    g: Generation,
    ev: Vec<serde_json::Value>,
}

/// What the first fields of every line of every layout have.
#[derive(Deserialize)]
struct Version {
    v: u32,
    #[serde(default)]
    min_reader: u32,
}

/// A decision as bytes, before it has a number.
#[derive(Debug)]
pub(super) struct Body {
    at: Stamp,
    generation: Generation,
    ev: Vec<u8>,
}

impl Body {
    pub(super) fn of(entry: &Entry) -> Result<Self, JournalError> {
        let ev = serde_json::to_vec(&entry.events)?;
        Ok(Self { at: entry.at, generation: entry.generation, ev })
    }

    /// When it was taken, and by whom.
    pub(super) const fn by(&self) -> (Stamp, Generation) {
        (self.at, self.generation)
    }
}

/// Appends one line and returns its checksum.
pub(super) fn encode(out: &mut Vec<u8>, (seq, batch): (u64, u64), body: &Body, prev: u32) -> u32 {
    let start = out.len();
    let (t, m, g) = (body.at.wall_us, body.at.boot_us, body.generation.0);
    let nought = if planted(Fault::NoJson) { "0" } else { "" };
    // Nothing refuses to be put into memory.
    let _ = write!(
        out,
        "{{\"v\":{VERSION},\"seq\":{seq},\"b\":{batch},\"t\":{nought}{t},\"m\":{m},\"g\":{g},\"ev\":"
    );
    out.extend_from_slice(&body.ev);
    sealed::seal(out, start, prev)
}

/// The layout a verified line needs, if this build does not know it.
pub(super) fn newer(line: &Sealed<'_>) -> Option<u32> {
    if line.body.starts_with(b"{\"v\":2,\"seq\"") || planted(Fault::NewerIgnored) {
        return None;
    }
    let Version { v, min_reader } = serde_json::from_slice(&closed(line.body)).ok()?;
    let needs = if min_reader == 0 { v } else { min_reader };
    (needs > VERSION).then_some(needs)
}

/// `body` with the brace that ends it.
pub(super) fn closed(body: &[u8]) -> Vec<u8> {
    [body, b"}"].concat()
}

/// Takes a verified line apart.
pub(super) fn parse<'a>(line: &Sealed<'a>) -> Option<Raw<'a>> {
    fast(line.body).or_else(|| slow(line.body))
}

/// The fields in the order in which [`encode`] puts them.
fn fast(body: &[u8]) -> Option<Raw<'_>> {
    let rest = body.strip_prefix(b"{\"v\":2,\"seq\":")?;
    let (seq, rest) = number(rest)?;
    let (batch, rest) = number(rest.strip_prefix(b",\"b\":")?)?;
    let rest = rest.strip_prefix(b",\"t\":")?;
    let (before_epoch, rest) = rest.strip_prefix(b"-").map_or((false, rest), |rest| (true, rest));
    let (wall, rest) = number(rest)?;
    let (boot_us, rest) = number(rest.strip_prefix(b",\"m\":")?)?;
    let (generation, rest) = number(rest.strip_prefix(b",\"g\":")?)?;
    let ev = rest.strip_prefix(b",\"ev\":")?;
    let wall = i64::try_from(wall).ok()?;
    let at = Stamp { boot_us, wall_us: if before_epoch { -wall } else { wall } };
    Some(Raw { seq, batch, at, generation: Generation(generation), ev: Cow::Borrowed(ev) })
}

pub(super) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 19 {
        return None;
    }
    let (digits, rest) = bytes.split_at(digits);
    Some((digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')), rest))
}

fn slow(body: &[u8]) -> Option<Raw<'static>> {
    let loose: Loose = serde_json::from_slice(&closed(body)).ok()?;
    let ev = serde_json::to_vec(&loose.ev).ok()?;
    let at = Stamp { boot_us: loose.m, wall_us: loose.t };
    Some(Raw { seq: loose.seq, batch: loose.b, at, generation: loose.g, ev: Cow::Owned(ev) })
}

/// The first value in proved bytes; fields of a later build may follow.
fn first<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, serde_json::Error> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(bytes))
}

impl Raw<'_> {
    /// The events; what this build does not know is left out where it says that it may be.
    pub(super) fn events(&self) -> Result<Vec<Event>, serde_json::Error> {
        if let Some(events) = quick::list(&self.ev) {
            return Ok(events);
        }
        match first(&self.ev) {
            Ok(events) => Ok(events),
            Err(error) => {
                let Ok(all) = first::<Vec<serde_json::Value>>(&self.ev) else {
                    return Err(error);
                };
                let known = all.into_iter().filter_map(|value| {
                    let optional = value.get("opt").is_some_and(|opt| opt == true);
                    match serde_json::from_value::<Event>(value) {
                        Err(_) if optional => None,
                        other => Some(other),
                    }
                });
                known.collect()
            }
        }
    }

    /// With its events decoded.
    pub(super) fn line(&self) -> Result<Line, serde_json::Error> {
        let entry = Entry { at: self.at, generation: self.generation, events: self.events()? };
        Ok(Line { seq: self.seq, entry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::JobName;

    fn entry() -> Entry {
        let job = JobName::new("a").unwrap();
        Entry {
            at: Stamp { boot_us: 5, wall_us: -7 },
            generation: Generation(3),
            events: vec![Event::JobRemoved { job }],
        }
    }

    #[test]
    fn a_line_is_what_the_documentation_says() {
        let mut out = Vec::new();
        let crc = encode(&mut out, (18, 17), &Body::of(&entry()).unwrap(), 1);
        let text = String::from_utf8(out.clone()).unwrap();
        let expected = format!(
            "{{\"v\":2,\"seq\":18,\"b\":17,\"t\":-7,\"m\":5,\"g\":3,\"ev\":[{{\"k\":\"job.removed\",\"job\":\"a\"}}],\
             \"prev\":\"00000001\",\"crc\":\"{crc:08x}\"}}\n"
        );
        assert_eq!(text, expected);
        let sealed = sealed::unseal(&out[..out.len() - 1]).unwrap();
        let raw = parse(&sealed).unwrap();
        assert_eq!((raw.batch, newer(&sealed)), (17, None));
        assert_eq!(raw.line().unwrap(), Line { seq: 18, entry: entry() });
    }

    #[test]
    fn fields_and_events_of_a_later_build_are_no_obstacle_where_they_may_be_ignored() {
        let read = |body: &str| {
            let mut out = body.as_bytes().to_vec();
            sealed::seal(&mut out, 0, 0);
            let sealed = sealed::unseal(&out[..out.len() - 1]).unwrap();
            (newer(&sealed), parse(&sealed).unwrap().line())
        };
        let known = "{\"k\":\"job.removed\",\"job\":\"a\"}";
        let head = "{\"v\":2,\"seq\":18,\"b\":17,\"t\":-7,\"m\":5,\"g\":3,\"ev\":[";
        let (newer, line) = read(&format!("{head}{known}],\"x\":[1]"));
        assert_eq!((newer, line.unwrap().entry), (None, entry()));
        let (_, line) = read(&format!("{head}{{\"k\":\"new\",\"opt\":true}},{known}]"));
        assert_eq!(line.unwrap().entry, entry());
        let (_, line) = read(&format!("{head}{{\"k\":\"new\"}},{known}]"));
        assert!(line.unwrap_err().to_string().contains("new"));
        let (newer, _) = read("{\"v\":3,\"seq\":18,\"b\":17,\"t\":-7,\"m\":5,\"g\":3,\"ev\":[]");
        assert_eq!(newer, Some(3));
        let (newer, _) =
            read("{\"v\":3,\"min_reader\":2,\"seq\":18,\"b\":17,\"t\":-7,\"m\":5,\"g\":3,\"ev\":[]");
        assert_eq!(newer, None);
    }
}

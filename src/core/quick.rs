//! Events out of JSON without a detour.
//!
//! A log is mostly made of what happens to runs, and a start reads all of it. We write the fields of these
//! events in one order; in that order they are read here, straight from the text. All else (another kind,
//! another order, a field of a later build, a text with an escape in it) is left to serde, which gives the same
//! and takes three times as long.

use serde::Deserialize;

use super::event::Event;
use super::identity::{Epoch, Identity};
use super::ids::{JobName, RunId};
use super::outcome::{Asked, ExitRecord, Outcome, Source};
use super::time::{Millis, Stamp};

/// The events of a list that begins here; fields of a later build may follow behind it. `None` if one of them
/// is not understood.
#[must_use]
pub fn list(text: &[u8]) -> Option<Vec<Event>> {
    let mut text = Text(text);
    let mut events = Vec::with_capacity(1);
    text.skip(b"[")?;
    if text.has(b"]") {
        return Some(events);
    }
    loop {
        events.push(text.event()?);
        if text.has(b"]") {
            return Some(events);
        }
        text.skip(b",")?;
    }
}

/// What is still to be read.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn event(&mut self) -> Option<Event> {
        let begin = self.0;
        self.known_event().or_else(|| {
            self.0 = begin;
            self.json()
        })
    }

    fn known_event(&mut self) -> Option<Event> {
        self.skip(b"{\"k\":\"")?;
        let event = match self.plain()? {
            "run.requested" => self.requested()?,
            "run.started" => self.started()?,
            "run.ended" => self.ended()?,
            "job.submitted" => {
                self.skip(b",\"spec\":")?;
                let spec = self.json()?;
                self.skip(b",\"by\":")?;
                Event::JobSubmitted { spec, by: self.asked()? }
            }
            _ => return None,
        };
        self.skip(b"}")?;
        Some(event)
    }

    fn requested(&mut self) -> Option<Event> {
        self.skip(b",\"job\":\"")?;
        let job = self.job()?;
        self.skip(b",\"run\":\"")?;
        let run = self.run()?;
        self.skip(b",\"attempt\":")?;
        let attempt = self.number()?;
        self.skip(b",\"at\":")?;
        Some(Event::RunRequested { job, run, attempt, at: self.stamp()? })
    }

    fn started(&mut self) -> Option<Event> {
        self.skip(b",\"job\":\"")?;
        let job = self.job()?;
        self.skip(b",\"run\":\"")?;
        let run = self.run()?;
        self.skip(b",\"identity\":")?;
        let identity = self.identity()?;
        self.skip(b",\"at\":")?;
        let at = self.stamp()?;
        let grace = Millis(if self.has(b",\"grace\":") { self.number()? } else { 0 });
        Some(Event::RunStarted { job, run, identity, at, grace, awaits: false })
    }

    fn ended(&mut self) -> Option<Event> {
        self.skip(b",\"job\":\"")?;
        let job = self.job()?;
        self.skip(b",\"record\":")?;
        let record = Box::new(self.record()?);
        self.skip(b",\"leftovers\":")?;
        let leftovers = self.truth()?;
        let failures = if self.has(b",\"failures\":") { self.number()?.try_into().ok()? } else { 0 };
        let interrupted = if self.has(b",\"interrupted\":") { self.truth()? } else { false };
        Some(Event::RunEnded { job, record, leftovers, failures, interrupted })
    }

    fn record(&mut self) -> Option<ExitRecord> {
        self.skip(b"{\"v\":")?;
        let v = self.number()?.try_into().ok()?;
        self.skip(b",\"run\":\"")?;
        let run = self.run()?;
        self.skip(b",\"job\":\"")?;
        let job = self.job()?;
        self.skip(b",\"outcome\":")?;
        let outcome = self.outcome()?;
        self.skip(b",\"source\":")?;
        let source = if self.has(b"\"wait\"") { Source::Wait } else { self.json()? };
        self.skip(b",\"asked\":")?;
        let asked = self.asked()?;
        self.skip(b",\"started\":")?;
        let started = if self.has(b"null") { None } else { Some(self.stamp()?) };
        self.skip(b",\"ended\":")?;
        let ended = self.stamp()?;
        self.skip(b",\"rusage\":")?;
        let rusage = if self.has(b"null") { None } else { self.json()? };
        self.skip(b",\"stdout_bytes\":")?;
        let stdout_bytes = self.number()?;
        self.skip(b",\"stderr_bytes\":")?;
        let stderr_bytes = self.number()?;
        self.skip(b",\"dropped_bytes\":")?;
        let dropped_bytes = self.number()?;
        self.skip(b",\"output_complete\":")?;
        let output_complete = self.truth()?;
        self.skip(b"}")?;
        Some(ExitRecord {
            v,
            run,
            job,
            outcome,
            source,
            asked,
            started,
            ended,
            rusage,
            stdout_bytes,
            stderr_bytes,
            dropped_bytes,
            output_complete,
        })
    }

    fn identity(&mut self) -> Option<Identity> {
        self.skip(b"{\"pid\":")?;
        let pid = self.number()?.try_into().ok()?;
        self.skip(b",\"pidfs\":")?;
        let pidfs = self.number()?;
        self.skip(b",\"start_ticks\":")?;
        let start_ticks = self.number()?;
        self.skip(b",\"epoch\":{\"boot_id\":\"")?;
        let boot_id = self.plain()?.to_owned();
        self.skip(b",\"init\":")?;
        let init = self.number()?;
        self.skip(b"}}")?;
        Some(Identity { pid, pidfs, start_ticks, epoch: Epoch { boot_id, init } })
    }

    fn outcome(&mut self) -> Option<Outcome> {
        if self.has(b"{\"kind\":\"exited\",\"code\":") {
            let code = self.number()?.try_into().ok()?;
            self.skip(b"}")?;
            return Some(Outcome::Exited { code });
        }
        self.json()
    }

    fn asked(&mut self) -> Option<Asked> {
        if self.has(b"\"nobody\"") { Some(Asked::Nobody) } else { self.json() }
    }

    fn stamp(&mut self) -> Option<Stamp> {
        self.skip(b"{\"m\":")?;
        let boot_us = self.number()?;
        self.skip(b",\"t\":")?;
        let before_epoch = self.has(b"-");
        let wall: i64 = self.number()?.try_into().ok().filter(|wall| !before_epoch || *wall != 0)?;
        self.skip(b"}")?;
        Some(Stamp { boot_us, wall_us: if before_epoch { -wall } else { wall } })
    }

    fn job(&mut self) -> Option<JobName> {
        JobName::new(self.plain()?).ok()
    }

    fn run(&mut self) -> Option<RunId> {
        self.plain()?.parse().ok()
    }

    fn truth(&mut self) -> Option<bool> {
        if self.has(b"true") {
            return Some(true);
        }
        self.skip(b"false")?;
        Some(false)
    }

    fn number(&mut self) -> Option<u64> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // One digit more may not fit; and no number of ours begins with a zero, but that one.
        if digits == 0 || digits > 19 || digits > 1 && self.0[0] == b'0' {
            return None;
        }
        let (digits, rest) = self.0.split_at(digits);
        self.0 = rest;
        Some(digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
    }

    /// The rest of a text without escapes, and the quote that ends it.
    fn plain(&mut self) -> Option<&'a str> {
        let end = memchr::memchr2(b'"', b'\\', self.0).filter(|end| self.0[*end] == b'"')?;
        let text = std::str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    /// Any value.
    fn json<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let mut values = serde_json::Deserializer::from_slice(self.0).into_iter();
        let value = values.next()?.ok()?;
        self.0 = &self.0[values.byte_offset()..];
        Some(value)
    }

    fn has(&mut self, what: &[u8]) -> bool {
        self.skip(what).is_some()
    }

    fn skip(&mut self, what: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(what)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind that has a way of its own, with and without what may be left out, and some that have none.
    const EVENTS: &[&str] = &[
        r#"{"k":"run.requested","job":"a:2","run":"00000000-0000-0001-0000-000000000002","attempt":3,
            "at":{"m":5,"t":-6}}"#,
        r#"{"k":"run.started","job":"a","run":"00000000-0000-0001-0000-000000000002","identity":{"pid":7,
            "pidfs":8,"start_ticks":9,"epoch":{"boot_id":"b","init":1}},"at":{"m":5,"t":6},"grace":70}"#,
        r#"{"k":"run.started","job":"a","run":"00000000-0000-0001-0000-000000000002","identity":{"pid":7,
            "pidfs":8,"start_ticks":9,"epoch":{"boot_id":"b","init":1}},"at":{"m":5,"t":6}}"#,
        r#"{"k":"run.ended","job":"a","record":{"v":1,"run":"00000000-0000-0001-0000-000000000002","job":"a",
            "outcome":{"kind":"signaled","signal":9,"core":false},"source":"wait","asked":"nobody",
            "started":null,"ended":{"m":5,"t":6},"rusage":null,"stdout_bytes":1,"stderr_bytes":2,
            "dropped_bytes":3,"output_complete":true},"leftovers":true,"failures":2,"interrupted":true}"#,
        r#"{"k":"job.removed","job":"a"}"#,
        r#"{"k":"shutdown.forced"}"#,
        r#"{"k":"job.gave_up","job":"a","why":"a \"quoted\" reason","later":[1,{"x":null}]}"#,
    ];

    /// In the order and without the spaces of what we write.
    fn as_written(text: &str) -> String {
        serde_json::to_string(&serde_json::from_str::<Event>(text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_read_quickly_is_what_is_read_slowly() {
        for text in EVENTS {
            let slow: Event = serde_json::from_str(text).unwrap();
            let written = as_written(text);
            for text in [text, &*written] {
                assert_eq!(list(format!("[{text}]").as_bytes()), Some(vec![slow.clone()]));
                let two = format!("[{text},{text}],\"later\":[1]");
                assert_eq!(list(two.as_bytes()), Some(vec![slow.clone(), slow.clone()]));
            }
            // The field that tells as the last one.
            let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
            let kind = fields.remove("k").unwrap();
            let mut text = serde_json::to_string(&fields).unwrap();
            text.pop();
            let comma = if fields.is_empty() { "" } else { "," };
            assert_eq!(list(format!("[{text}{comma}\"k\":{kind}}}]").as_bytes()), Some(vec![slow]));
        }
        assert_eq!(list(b"[]"), Some(Vec::new()));
        for wrong in ["{}", r#"{"k":"new"}"#, r#"{"k":"run.ended","job":"a"}"#, r#"{"k":7}"#, "[]", ""] {
            assert_eq!(list(format!("[{wrong}]").as_bytes()).filter(|all| !all.is_empty()), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_cut_off_or_wrong_is_read_as_serde_reads_it() {
        for text in EVENTS {
            let text = format!("[{}]", as_written(text));
            for at in 0..text.len() {
                assert_eq!(list(&text.as_bytes()[..at]), None, "{}", &text[..at]);
                for wrong in [b'"', b'0', b'}', b' ', b'\\', b'x'] {
                    let mut bytes = text.clone().into_bytes();
                    bytes[at] = wrong;
                    let slow = serde_json::from_slice::<Vec<Event>>(&bytes).ok();
                    assert_eq!(list(&bytes), slow, "{}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }
}

//! Events out of JSON without a detour.
//!
//! An enum that is told apart by a field is read by buffering every field first, because the one that tells
//! may be the last. In what we write it is the first. So it is looked at, and the kinds that a log is mostly
//! made of are read straight from the text; all others, and any other order, as everywhere else.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::event::Event;
use super::identity::Identity;
use super::ids::{JobName, RunId};
use super::outcome::{Asked, ExitRecord};
use super::spec::JobSpec;
use super::time::{Millis, Stamp};

/// An event, read like this. What it gives is what [`Event`] itself gives.
#[derive(Debug)]
pub struct Quick(pub Event);

#[derive(Deserialize)]
struct Submitted {
    spec: Box<JobSpec>,
    by: Asked,
}

#[derive(Deserialize)]
struct Requested {
    job: JobName,
    run: RunId,
    attempt: u64,
    at: Stamp,
}

#[derive(Deserialize)]
struct Started {
    job: JobName,
    run: RunId,
    identity: Identity,
    at: Stamp,
    #[serde(default)]
    grace: Millis,
}

#[derive(Deserialize)]
struct Ended {
    job: JobName,
    record: Box<ExitRecord>,
    leftovers: bool,
    #[serde(default)]
    failures: u32,
    #[serde(default)]
    interrupted: bool,
}

impl<'de> Deserialize<'de> for Quick {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Quick;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Quick, A::Error> {
        let Some(first) = map.next_key::<&str>()? else { return Err(A::Error::missing_field("k")) };
        if first != "k" {
            return others(first, map).map(Quick);
        }
        let kind = map.next_value::<&str>()?;
        let fields = MapAccessDeserializer::new(&mut map);
        let event = match kind {
            "job.submitted" => {
                let Submitted { spec, by } = Submitted::deserialize(fields)?;
                Event::JobSubmitted { spec, by }
            }
            "run.requested" => {
                let Requested { job, run, attempt, at } = Requested::deserialize(fields)?;
                Event::RunRequested { job, run, attempt, at }
            }
            "run.started" => {
                let Started { job, run, identity, at, grace } = Started::deserialize(fields)?;
                Event::RunStarted { job, run, identity, at, grace }
            }
            "run.ended" => {
                let Ended { job, record, leftovers, failures, interrupted } = Ended::deserialize(fields)?;
                Event::RunEnded { job, record, leftovers, failures, interrupted }
            }
            kind => {
                let all = Behind { key: Some("k"), value: Some(kind), rest: map };
                return Event::deserialize(MapAccessDeserializer::new(all)).map(Quick);
            }
        };
        Ok(Quick(event))
    }
}

/// An object whose first field is not the one that tells.
fn others<'de, A: MapAccess<'de>>(first: &'de str, map: A) -> Result<Event, A::Error> {
    let all = Behind { key: Some(first), value: None, rest: map };
    Event::deserialize(MapAccessDeserializer::new(all))
}

/// A map of which the first key, and perhaps its value, has been read already.
struct Behind<'de, A> {
    key: Option<&'de str>,
    value: Option<&'de str>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Behind<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.key.take() {
            Some(key) => seed.deserialize(StrDeserializer::new(key)).map(Some),
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(StrDeserializer::new(value)),
            None => self.rest.next_value_seed(seed),
        }
    }
}

/// A list of events that ends before the text does: fields of a later build may follow.
#[derive(Debug, Default)]
pub struct QuickList(pub Vec<Event>);

impl<'de> Deserialize<'de> for QuickList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = QuickList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("events")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<QuickList, A::Error> {
                let mut all = Vec::with_capacity(1);
                while let Some(Quick(event)) = seq.next_element()? {
                    all.push(event);
                }
                Ok(QuickList(all))
            }
        }
        deserializer.deserialize_seq(List)
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

    #[test]
    fn what_is_read_quickly_is_what_is_read_slowly() {
        for text in EVENTS {
            let slow: Event = serde_json::from_str(text).unwrap();
            let Quick(quick) = serde_json::from_str(text).unwrap();
            assert_eq!(quick, slow);
            // The field that tells as the last one.
            let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
            let kind = fields.remove("k").unwrap();
            let mut text = serde_json::to_string(&fields).unwrap();
            text.pop();
            let comma = if fields.is_empty() { "" } else { "," };
            let Quick(quick) = serde_json::from_str(&format!("{text}{comma}\"k\":{kind}}}")).unwrap();
            assert_eq!(quick, slow);
        }
        for wrong in ["{}", r#"{"k":"new"}"#, r#"{"k":"run.ended","job":"a"}"#, r#"{"k":7}"#, "[]"] {
            assert!(serde_json::from_str::<Quick>(wrong).is_err(), "{wrong}");
        }
    }
}

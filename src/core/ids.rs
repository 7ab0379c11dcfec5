//! Names: of jobs, of runs, of supervisor generations.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

/// The name of a job: `web`, or `web:2` for the second instance of `web`. One text, however many hold it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(Arc<str>);

/// Why a text is no job name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJobName {
    /// Nothing in it.
    #[error("a job name cannot be empty")]
    Empty,
    /// Longer than [`JobName::MAX_BYTES`].
    #[error("a job name has at most {} bytes", JobName::MAX_BYTES)]
    TooLong,
    /// A character outside the allowed set, or a leading dot or dash.
    #[error(
        "a job name is made of letters, digits, '-', '_', '.' and '@', and starts with a letter or digit; \
         ':' and a number may follow for an instance"
    )]
    BadCharacter,
}

impl JobName {
    /// Longest name, in bytes: it becomes a file name, and leaves room for a suffix.
    pub const MAX_BYTES: usize = 128;

    /// Checks and wraps a name.
    pub fn new(name: impl AsRef<str>) -> Result<Self, BadJobName> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(BadJobName::Empty);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(BadJobName::TooLong);
        }
        let (base, instance) = match name.split_once(':') {
            Some((base, instance)) => (base, Some(instance)),
            None => (name, None),
        };
        let base_ok = base.starts_with(|c: char| c.is_ascii_alphanumeric())
            && base.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'));
        let instance_ok =
            instance.is_none_or(|n| !n.is_empty() && n.len() <= 6 && n.bytes().all(|b| b.is_ascii_digit()));
        if base_ok && instance_ok { Ok(Self(Arc::from(name))) } else { Err(BadJobName::BadCharacter) }
    }

    /// The name of instance `n` (from 1) of this job.
    #[must_use]
    pub fn instance(&self, n: u32) -> Self {
        Self(format!("{}:{n}", self.0).into())
    }

    /// The part before `:`: the job as configured.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(base, _)| base)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobName {
    type Err = BadJobName;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl Serialize for JobName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JobName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl de::Visitor<'_> for Name {
            type Value = JobName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a job name")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<JobName, E> {
                JobName::new(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// The name of a queue: one of a job without instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct QueueName(JobName);

/// Why a text is no name of a queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a queue is made of letters, digits, '-', '_', '.' and '@', starts with a letter or digit, and \
     has at most {} bytes",
    JobName::MAX_BYTES
)]
pub struct BadQueueName;

impl QueueName {
    /// Checks and wraps a name.
    pub fn new(name: impl AsRef<str>) -> Result<Self, BadQueueName> {
        let name = JobName::new(name).map_err(|_| BadQueueName)?;
        if name.as_str().contains(':') { Err(BadQueueName) } else { Ok(Self(name)) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// The queue of whoever names none.
impl Default for QueueName {
    fn default() -> Self {
        Self(JobName(Arc::from("default")))
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for QueueName {
    type Err = BadQueueName;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl<'de> Deserialize<'de> for QueueName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// One incarnation of a job: a UUIDv7, so that ids sort by the time they were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// Wraps the sixteen bytes of a UUID.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// Counts supervisor starts; a keeper refuses commands of a lower generation than the newest it has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_plain_and_instance_names() {
        for name in ["web", "web-1", "a.b_c@d", "7up", "web:1", "web:123"] {
            assert!(JobName::new(name).is_ok(), "{name}");
        }
        assert_eq!(JobName::new("web:2").unwrap().base(), "web");
    }

    #[test]
    fn refuses_names_that_would_be_paths_options_or_patterns() {
        for name in ["", ".", "..", "../x", "a/b", "-x", "a*", "a b", "a:", "a:b", ":1", "a:1:2", "é", "a\n"]
        {
            assert!(JobName::new(name).is_err(), "{name:?}");
        }
        assert!(JobName::new("x".repeat(129)).is_err());
    }
}

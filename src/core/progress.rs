//! What a run publishes about itself: how far it is, and a token with which the next run can go on.
//!
//! A token is recorded and synced before it is acknowledged; the next run of the job gets the last one,
//! whatever became of this run, over every restart and reboot, until a run ends well. How far it is is
//! recorded once a second at most: it is for people, and the newest is shown anyway.

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::event::Event;
use super::ids::RunId;
use super::job::{Job, PastRun};
use super::stats::Cause;
use super::time::{Millis, Stamp};

/// Between two records of progress without a token.
pub const EVERY: Millis = Millis(1000);

/// Longest message, in bytes.
pub const TEXT_MAX: usize = 512;

/// Longest token, in bytes: it is handed on in an environment variable, and kept in the event log.
pub const TOKEN_MAX: usize = 4096;

/// What a run says; absent: as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Said {
    /// Percent, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// For the next run; empty: there is none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

/// Why something cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSaid {
    /// It says nothing.
    #[error("nothing to publish: give progress, a message or a resume token")]
    Nothing,
    /// More than all.
    #[error("progress is {0}, and goes from 0 to 100")]
    Progress(u8),
    /// Too long.
    #[error("{what} has {length} bytes, and {max} are the most")]
    Long {
        /// What.
        what: &'static str,
        /// How long it is.
        length: usize,
        /// How long it may be.
        max: usize,
    },
    /// It does not fit into a variable or a line.
    #[error("{0} contains a control character")]
    Control(&'static str),
}

impl Said {
    /// Whether it may be recorded.
    ///
    /// # Errors
    /// If it says nothing, or too much.
    pub fn check(&self) -> Result<(), BadSaid> {
        if *self == Self::default() {
            return Err(BadSaid::Nothing);
        }
        if let Some(progress) = self.progress.filter(|progress| *progress > 100) {
            return Err(BadSaid::Progress(progress));
        }
        let texts = [("the message", &self.text, TEXT_MAX), ("the resume token", &self.resume, TOKEN_MAX)];
        for (what, text, max) in texts {
            let Some(text) = text else { continue };
            if text.len() > max {
                return Err(BadSaid::Long { what, length: text.len(), max });
            }
            if text.chars().any(char::is_control) {
                return Err(BadSaid::Control(what));
            }
        }
        Ok(())
    }
}

/// What a job has published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The run that said it last.
    pub run: RunId,
    /// When.
    pub at: Stamp,
    /// How far that run is. The token may be one of a run before.
    #[serde(flatten)]
    pub said: Said,
}

/// A run says something. Only what is recorded survives us.
pub(super) fn publish(d: &mut Draft<'_>, run: RunId, said: &Said) {
    let Some(job) = d.job_of(run) else { return };
    let recent = d.base.published(&job).is_some_and(|known| {
        known.run == run && known.said.progress.is_some() && d.now.since(known.at).0 < EVERY.0
    });
    if said.resume.is_some() || !recent {
        d.record(Event::RunProgress { job, run, said: said.clone() });
    }
}

/// Remembers what an event means, before the job itself does. `latest`: its latest run.
pub(super) fn note(
    published: &mut Option<Box<Published>>,
    job: &Job,
    latest: Option<&PastRun>,
    event: &Event,
    at: Stamp,
) {
    match event {
        Event::RunProgress { run, said, .. } if job.run() == Some(*run) => {
            let new = || Box::new(Published { run: *run, at, said: Said::default() });
            let known = published.get_or_insert_with(new);
            (known.run, known.at) = (*run, at);
            merge(&mut known.said, said);
        }
        Event::RunRequested { .. } => {
            // Its work is done: the next run begins anew.
            let well =
                latest.and_then(|run| run.end.as_ref()).is_some_and(|end| end.cause == Some(Cause::Ok));
            *published = published.take().filter(|_| !well).filter(|known| known.said.resume.is_some());
            if let Some(known) = published {
                (known.said.progress, known.said.text) = (None, None);
            }
        }
        _ => {}
    }
}

/// What is said last counts; what is not said stays.
pub fn merge(known: &mut Said, said: &Said) {
    if said.progress.is_some() {
        known.progress = said.progress;
    }
    if said.text.is_some() {
        known.text.clone_from(&said.text);
    }
    if let Some(token) = &said.resume {
        known.resume = Some(token.clone()).filter(|token| !token.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::{Fact, Input};
    use super::super::reconcile::plan::plan;
    use super::super::report::Class;
    use super::super::tests::{World, exited, expect, name, run, spec};
    use super::*;

    fn said(progress: Option<u8>, resume: Option<&str>) -> Said {
        Said { progress, text: None, resume: resume.map(str::to_owned) }
    }

    impl World {
        fn publish(&mut self, n: u128, said: Said) -> crate::core::Decision {
            self.feed(Input::Published { run: run(n), said })
        }

        fn token(&self) -> Option<&str> {
            self.state.published(&name("a"))?.said.resume.as_deref()
        }
    }

    #[test]
    fn a_token_is_always_recorded_and_bare_progress_once_a_second() {
        let mut world = World::with(&[spec("a")]);
        world.launched(1);
        expect(&world.publish(1, said(Some(1), None)), &["run.progress a"]);
        world.pass(999);
        expect(&world.publish(1, said(Some(2), None)), &[]);
        expect(&world.publish(1, said(Some(3), Some("page 3"))), &["run.progress a"]);
        expect(&world.publish(1, said(None, Some("page 4"))), &["run.progress a"]);
        world.pass(1000);
        expect(&world.publish(1, said(Some(5), None)), &["run.progress a"]);
        let known = world.state.published(&name("a")).unwrap();
        assert_eq!(known.said, said(Some(5), Some("page 4")));
        // A run that is over, or never was, says nothing any more.
        world.stop("a");
        world.ended("a", 1, exited(1), false);
        expect(&world.publish(1, said(Some(6), Some("late"))), &[]);
        expect(&world.publish(9, said(Some(6), Some("strange"))), &[]);
    }

    #[test]
    fn the_last_token_is_there_for_the_next_run_until_one_ends_well() {
        let mut world = World::with(&[spec("a")]);
        world.launched(1);
        world.publish(1, said(Some(40), Some("page 40")));
        world.ended("a", 1, exited(1), false);
        assert_eq!((world.word("a"), world.token()), ("starting", Some("page 40")));
        assert_eq!(
            world.state.published(&name("a")).unwrap().said.progress,
            None,
            "the new run is at its beginning"
        );
        world.launched(2);
        world.replayed();
        world.supervisor(2, false);
        world.configured(&[spec("a")]);
        assert_eq!(world.token(), Some("page 40"), "over a reboot");
        world.surveyed(vec![(2, "a", Fact::Lost { why: "gone".to_owned() })]);
        world.launched(3);
        assert_eq!(world.token(), Some("page 40"));
        world.publish(3, said(None, Some("")));
        assert_eq!(world.token(), None, "taken back");
        world.publish(3, said(None, Some("page 50")));
        world.ended("a", 3, exited(0), false);
        world.start("a");
        assert_eq!((world.word("a"), world.token()), ("starting", None));
        assert!(world.state.published(&name("a")).is_none());
    }

    #[test]
    fn a_lost_run_with_a_token_is_resumable() {
        for (token, class) in [(None, Class::Lost), (Some("page 7"), Class::Resumable)] {
            let mut world = World::with(&[spec("a")]);
            world.launched(1);
            world.publish(1, said(Some(7), token));
            world.replayed();
            world.supervisor(1, false);
            world.configured(&[spec("a")]);
            let lost = Fact::Lost { why: "gone".to_owned() };
            let survey = super::super::input::Survey {
                runs: vec![super::super::input::Surveyed::new(run(1), Some(name("a")), lost)],
                ..Default::default()
            };
            let report = plan(&world.state, &survey, world.now);
            assert_eq!(report.items[0].class, class, "{report:#?}");
            assert_eq!(report.items[0].why.contains("resume token"), token.is_some(), "{report:#?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = |said: Said| said.check().unwrap_err().to_string();
        assert!(bad(Said::default()).contains("nothing to publish"));
        assert_eq!(bad(said(Some(101), None)), "progress is 101, and goes from 0 to 100");
        assert!(bad(said(None, Some("a\0b"))).contains("control character"));
        assert!(bad(said(None, Some(&"x".repeat(TOKEN_MAX + 1)))).contains("4097 bytes"));
        assert_eq!(said(Some(100), Some("")).check(), Ok(()));
    }
}

//! Mistakes that are made on purpose, to see that the laws notice.

use outlive::core::Decision;
use outlive::core::effect::Effect;
use outlive::core::event::{Event, Want};
use outlive::core::input::Input;
use outlive::core::outcome::Asked;
use outlive::core::state::State;
use outlive::journal::simulated::Fault;

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// One of the event log's own.
    Journal(Fault),
    /// Effects leave before their line is durable.
    EffectsBeforeSync,
    /// Answers leave before their line is durable.
    AnswersBeforeSync,
    /// The keeper may forget an end before that is durable.
    ForgottenTooEarly,
    /// The keeper obeys any supervisor.
    GenerationUnchecked,
    /// The keeper starts a run id that it has seen.
    SeenRunsForgotten,
    /// The keeper tells an end once, and never in the inventory.
    EndsToldOnce,
    /// The keeper does not remember which signals it has sent.
    SignalsForgotten,
    /// The supervisor looks at no inventory and no file.
    SurveyIgnored,
    /// An inventory that comes after a survey is taken for another survey.
    LateSurveyTaken,
    /// The inventory of a recovery on request is taken for that of a survey.
    RecoveryTakenForSurvey,
    /// A reboot is taken for nothing.
    EpochIgnored,
    /// Deadlines pass unnoticed.
    DeadlinesMissed,
    /// A reload wants everything again.
    WantsLostOnReload,
    /// A supervisor that begins wants everything again.
    WantsLostOnStart,
    /// Every try is the first.
    TriesUncounted,
    /// After a refused write everything goes on.
    ReadOnlyIgnored,
    /// Starts that recovery spreads out go on while nothing can be recorded.
    PacedWhileReadOnly,
    /// After healing, what became void is still remembered.
    VoidKeptInMemory,
    /// A hole that a checkpoint covers meanwhile is missed when the log is read back.
    HolesMustStay,
    /// Tasks are started although entries are missing.
    HeldRuleOff,
    /// Runs that nobody remembers are left alone.
    StrangersLeftAlone,
}

/// The mistakes, and the laws of which at least one has to notice.
pub(crate) const ALL: [(Mistake, &[&str]); 33] = [
    (Mistake::Journal(Fault::AckBeforeSync), &["J2"]),
    (Mistake::Journal(Fault::SegmentNameUnsynced), &["J2"]),
    (Mistake::Journal(Fault::SegmentNamedUnsynced), &["J1", "J9"]),
    (Mistake::Journal(Fault::CheckpointNamedUnsynced), &["J1", "J9"]),
    (Mistake::Journal(Fault::CheckpointNameUnsynced), &["J1", "J9"]),
    (Mistake::Journal(Fault::OneGeneration), &["J14"]),
    (Mistake::Journal(Fault::DeletesTooEarly), &["J14"]),
    (Mistake::Journal(Fault::SyncRetried), &["J1", "J2", "J9"]),
    (Mistake::Journal(Fault::NoBatchRule), &["J9"]),
    (Mistake::Journal(Fault::NoSuperseding), &["J4", "J11"]),
    (Mistake::Journal(Fault::NoMending), &["J5"]),
    (Mistake::Journal(Fault::TailNotCopied), &["J1", "J9"]),
    (Mistake::EffectsBeforeSync, &["J2"]),
    (Mistake::AnswersBeforeSync, &["J2"]),
    (Mistake::ForgottenTooEarly, &["J24"]),
    (Mistake::GenerationUnchecked, &["J17"]),
    (Mistake::SeenRunsForgotten, &["J22"]),
    (Mistake::EndsToldOnce, &["J24", "truth", "sight", "one life"]),
    (Mistake::SignalsForgotten, &["once"]),
    (Mistake::SurveyIgnored, &["one life", "truth"]),
    (Mistake::LateSurveyTaken, &["one life", "truth", "J24"]),
    (Mistake::RecoveryTakenForSurvey, &["one life", "truth"]),
    (Mistake::EpochIgnored, &["truth"]),
    (Mistake::DeadlinesMissed, &["liveness"]),
    (Mistake::WantsLostOnReload, &["stop"]),
    (Mistake::WantsLostOnStart, &["stop"]),
    (Mistake::TriesUncounted, &["counts"]),
    (Mistake::ReadOnlyIgnored, &["J2", "J25"]),
    (Mistake::PacedWhileReadOnly, &["J25"]),
    // What was never recorded is remembered: which law breaks first depends on what it was.
    (Mistake::VoidKeptInMemory, &["J24", "stop", "counts", "J1", "J2", "J4", "J16", "truth", "one life"]),
    (Mistake::HolesMustStay, &["liveness"]),
    (Mistake::HeldRuleOff, &["J23"]),
    (Mistake::StrangersLeftAlone, &["one life"]),
];

/// Whether only a damaged event log shows it.
pub(crate) const fn needs_damage(mistake: Mistake) -> bool {
    matches!(
        mistake,
        Mistake::Journal(Fault::OneGeneration | Fault::DeletesTooEarly | Fault::NoMending)
            | Mistake::HolesMustStay
            | Mistake::HeldRuleOff
            | Mistake::StrangersLeftAlone
    )
}

/// Whether it shows so seldom that it is looked for only when there is time.
pub(crate) const fn is_rare(mistake: Mistake) -> bool {
    matches!(
        mistake,
        Mistake::Journal(Fault::DeletesTooEarly)
            | Mistake::HolesMustStay
            | Mistake::StrangersLeftAlone
            | Mistake::LateSurveyTaken
            | Mistake::RecoveryTakenForSurvey
            | Mistake::PacedWhileReadOnly
            | Mistake::SeenRunsForgotten
            | Mistake::HeldRuleOff
    )
}

/// Makes a decision wrong, if that is the mistake.
pub(crate) fn spoil(mistake: Option<Mistake>, input: &Input, before: &State, decision: &mut Decision) {
    let want_all = |decision: &mut Decision| {
        for (job, _) in before.jobs() {
            decision.events.push(Event::WantSet { job: job.clone(), want: Want::Up, by: Asked::Reload });
        }
    };
    match (mistake, input) {
        (Some(Mistake::WantsLostOnReload), Input::Configured { by: Asked::Operator { .. }, .. })
        | (Some(Mistake::WantsLostOnStart), Input::SupervisorStarted { .. }) => want_all(decision),
        (Some(Mistake::TriesUncounted), _) => {
            for event in &mut decision.events {
                if let Event::RunRequested { attempt, .. } = event {
                    *attempt = 1;
                }
            }
        }
        _ => {}
    }
}

/// Whether an effect leaves before the line that it belongs to is durable.
pub(crate) fn is_early(mistake: Option<Mistake>, effect: &Effect) -> bool {
    match mistake {
        Some(Mistake::EffectsBeforeSync) => true,
        Some(Mistake::ForgottenTooEarly) => matches!(effect, Effect::Forget { .. }),
        _ => false,
    }
}

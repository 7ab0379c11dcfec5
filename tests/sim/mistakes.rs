//! Mistakes that are made on purpose, to see that the laws notice.

use outlive::core::Decision;
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
    /// The keeper obeys any supervisor.
    GenerationUnchecked,
    /// The keeper starts a run id that it has seen.
    SeenRunsForgotten,
    /// The keeper tells an end once, and never in the inventory.
    EndsToldOnce,
    /// The supervisor looks at no inventory and no file.
    SurveyIgnored,
    /// A reboot is taken for nothing.
    EpochIgnored,
    /// Deadlines pass unnoticed.
    DeadlinesMissed,
    /// A reload wants everything again.
    WantsLostOnReload,
    /// After a refused write everything goes on.
    ReadOnlyIgnored,
    /// After healing, what became void is still remembered.
    VoidKeptInMemory,
}

/// Makes a decision wrong, if that is the mistake.
pub(crate) fn spoil(mistake: Option<Mistake>, input: &Input, before: &State, decision: &mut Decision) {
    if mistake == Some(Mistake::WantsLostOnReload)
        && let Input::Configured { by: Asked::Operator { .. }, .. } = input
    {
        for (job, _) in before.jobs() {
            decision.events.push(Event::WantSet { job: job.clone(), want: Want::Up, by: Asked::Reload });
        }
    }
}

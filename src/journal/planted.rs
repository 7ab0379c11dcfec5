//! Mistakes that a test can switch on, to see that the other tests notice. Always off in a release build; a
//! debug build takes the name of one from `OUTLIVE_TEST_FAULT`, for tests of the whole executable.
#![cfg_attr(
    not(any(test, feature = "simulation")),
    allow(dead_code, unreachable_pub, reason = "only a test switches one on")
)]

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A batch is acknowledged before it is synced.
    AckBeforeSync,
    /// The name of a new segment is not made durable.
    SegmentNameUnsynced,
    /// A segment gets its name before its content is durable.
    SegmentNamedUnsynced,
    /// A checkpoint gets its name before its content is durable.
    CheckpointNamedUnsynced,
    /// The name of a new checkpoint is not made durable before older files go.
    CheckpointNameUnsynced,
    /// Only one checkpoint is kept.
    OneGeneration,
    /// Segments go as soon as the newest checkpoint covers them.
    DeletesTooEarly,
    /// A checkpoint is taken for whole without its end.
    EndNotChecked,
    /// A failed sync is tried again on the same file.
    SyncRetried,
    /// What a crash leaves of the last write counts as a loss.
    NoBatchRule,
    /// Any damage in the newest segment counts as a torn tail.
    AllIsTorn,
    /// Lines are taken from an older segment although a newer one begins at or before them.
    NoSuperseding,
    /// A line is believed although the one before it is another.
    ChainIgnored,
    /// A single wrong bit is not put right.
    NoMending,
    /// The last write is not copied into the new segment.
    TailNotCopied,
    /// Of a line only the first event is applied.
    HalfALine,
    /// What cannot be read is not kept aside.
    NothingSetAside,
    /// A log of a later build is read as if it were one of ours.
    NewerIgnored,
    /// A checkpoint leaves something out.
    CheckpointForgets,
    /// A line is no JSON.
    NoJson,
    /// Reading leaves a file.
    ReadingWrites,
    /// Damage is a reason to panic.
    PanicsOnDamage,
}

#[cfg(not(any(test, feature = "simulation", debug_assertions)))]
pub(super) const fn planted(_: Fault) -> bool {
    false
}

/// The one that the environment of a debug build names.
#[cfg(debug_assertions)]
fn named(fault: Fault) -> bool {
    static NAMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var("OUTLIVE_TEST_FAULT").ok());
    named.as_ref().is_some_and(|name| *name == format!("{fault:?}"))
}

#[cfg(all(debug_assertions, not(any(test, feature = "simulation"))))]
pub(super) fn planted(fault: Fault) -> bool {
    named(fault)
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

#[cfg(any(test, feature = "simulation"))]
pub(super) fn planted(fault: Fault) -> bool {
    #[cfg(debug_assertions)]
    if named(fault) {
        return true;
    }
    PLANTED.get() == Some(fault)
}

/// Switches a mistake on for this thread, or all of them off.
#[cfg(any(test, feature = "simulation"))]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

//! Mistakes that a test can switch on, to see that the other tests notice. Always off in a release build; a
//! debug build takes the name of one from `OUTLIVE_TEST_FAULT`, for tests of the whole executable.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only a test switches one on"))]
pub(super) enum Fault {
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
}

#[cfg(all(not(test), not(debug_assertions)))]
pub(super) const fn planted(_: Fault) -> bool {
    false
}

#[cfg(all(not(test), debug_assertions))]
pub(super) fn planted(fault: Fault) -> bool {
    static NAMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var("OUTLIVE_TEST_FAULT").ok());
    named.as_ref().is_some_and(|name| *name == format!("{fault:?}"))
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(super) fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Switches a mistake on for this thread, or all of them off.
#[cfg(test)]
pub(super) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

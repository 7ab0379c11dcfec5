//! Every decision, and nothing else: no clock, no I/O, no logging, no async.
//!
//! ```text
//! decide(&State, Input, now, fresh) -> Decision { events, effects }   chooses; touches nothing
//! apply(&mut State, &Event)                                           remembers; never fails
//! next_deadline(&State) -> Option<Stamp>                              the only timer there is
//! ```
//!
//! The log stores events, so a replay is a fold of [`apply`]: what was decided happens again as it was
//! decided, also under a newer build that would decide otherwise.

pub mod effect;
pub mod event;
pub mod graph;
pub mod identity;
pub mod ids;
pub mod input;
pub mod outcome;
pub mod select;
pub mod signal;
pub mod spec;
pub mod time;

//! The driver around the core: gathers inputs, decides, makes events durable, performs effects, publishes.
//!
//! It may be killed at any instruction. What it decided is in the event log; what it asked of the keeper is
//! answered by the keeper's inventory; what it knew besides (the configuration in force, the listening
//! socket) init holds for the next one. So there is no way of ending it that matters, and it ends itself
//! without ceremony.

mod accepted;
mod alerting;
mod asks;
mod commands;
mod early;
mod event_log;
mod ground;
pub mod handle;
mod health_view;
mod hooks;
mod host;
mod init_link;
mod keeper_link;
mod launching;
mod live;
mod log;
mod main_loop;
mod memory;
pub mod offline;
mod pace;
mod patterns;
mod perform;
mod prune;
mod publish;
mod read_only;
mod rebuild;
mod recover;
mod saga;
mod scrub;
mod snapshot;
mod stalled;
mod start;
mod startup;
mod strays;
mod submit;
mod survey;
mod view;
mod vigils;

pub use asks::loader_environment;
pub use start::{Options, run};

/// An error and what caused it.
fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

//! The root of everything: starts keeper and supervisor, is the parent and the only reaper of every run,
//! forwards signals, and holds in escrow what must outlive the other two.
//!
//! # What it does
//!
//! - A child that dies is started again: at once, then after a delay that grows (see `respawn`).
//! - A run's main process that ends stays a zombie until the keeper has recorded how: init looks with
//!   `WNOWAIT`, tells the keeper, and reaps when that is acknowledged. So a pid is never reused while
//!   anybody may still act on it, and an outcome is never only in somebody's memory.
//! - Everything else that lands here (orphans of runs) is reaped at once.
//! - For each run it holds the read ends of its output FIFOs, the keeper's end of its stdin, and what it
//!   tells things by. A new keeper gets them back before it gets anything else.
//! - A signal asking for shutdown or reload is passed to the supervisor, now or when there is one again.
//!
//! # What it does not do
//!
//! It reads no configuration, touches no disk, allocates nothing in its loop, and has no path that
//! panics: its table is one fixed mapping, its messages have a fixed size. The mapping is a memory file,
//! so that the table survives when init executes itself anew: `execve` keeps the process id, the
//! children and the descriptors, and the new image finds the table by its descriptor number.
//!
//! # Who may die when
//!
//! A keeper that is replaced may leave a child behind that is still on its way to `execve`. Its
//! registration decides: init shuts the old socket for reading, drains what was sent, and closes it. What
//! was sent before is in the table; what comes later fails, and the child ends without having run.

mod deaths;
mod ending;
mod messages;
mod respawn;
mod root;
mod table;

pub use root::{Options, run};

//! Behaviour, shown on real processes: each module is one behaviour, each test one sentence about it.
#![allow(missing_docs, unreachable_pub, reason = "nothing outside uses a test")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the fixture serves several test binaries")]

#[path = "../common/mod.rs"]
mod common;

mod adopt;
mod alerts;
mod cgroup;
mod child;
mod cli;
mod control;
mod diskfull;
mod fixture;
mod forged;
mod graph;
mod health;
mod hooks;
mod init;
mod instance;
mod journal;
mod leftovers;
mod metrics;
mod notify;
mod outcome;
mod output;
mod progress;
mod queue;
mod recovery;
mod reload;
mod repeat;
mod restart;
mod restart_policy;
mod rollback;
mod soak;
mod stats;
mod stdin;
mod stop;
mod strategy;
mod tidy;
mod unreadable;
mod watch;
mod writers;
mod wrong_config;

//! outlive: a process supervisor for Linux whose jobs outlive it.
//!
//! The map, each module importing only from those named:
//!
//! | module | what is in it | imports |
//! |---|---|---|
//! | [`core`] | every decision, pure | nothing of ours |
//! | [`sys`] | one file per kernel subject; the only unsafe code | nothing of ours |
//! | [`wire`] | protocols between the roles and with clients | `core` |
//! | [`config`] | TOML to checked job specs | `core` |
//! | [`state_dir`] | name and format of every file we keep | `core`, `sys` |
//! | [`journal`] | the event log and its checkpoints: bytes and sync | `core`, `sys` |
//! | [`init`] | parent and reaper | `sys`, `wire` |
//! | [`keeper`] | spawns and captures | `core` types, `sys`, `wire`, `state_dir` |
//! | [`helper`] | a process around one command of the supervisor's | `core` types, `sys`, `wire` |
//! | [`supervisor`] | the driver around `core` | everything but `cli`, `client` |
//! | [`control`] | HTTP on the control socket | `core`, `wire`, `state_dir`, `journal`, the supervisor's handle |
//! | [`client`], [`cli`] | the command line | `wire`, `client`, `config`, `core`, what `journal` shows |

pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod core;
pub mod helper;
pub mod init;
pub mod journal;
pub mod keeper;
pub mod roles;
pub mod state_dir;
pub mod supervisor;
pub mod sys;
pub mod up;
pub mod wire;

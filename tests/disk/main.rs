//! Real processes on real disks that fill up, fail, hang, and lose their power.
#![allow(missing_docs, unreachable_pub, reason = "nothing outside uses a test")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the fixture serves several test binaries")]

#[path = "../common/mod.rs"]
mod common;

mod broken;
mod full;
mod hang;
mod machine;
mod site;

//! Real processes on real disks that fill up, fail, hang, and lose their power.
#![allow(missing_docs, unreachable_pub, reason = "nothing outside uses a test")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the fixture serves several test binaries")]

#[path = "../common/mod.rs"]
mod common;

mod broken;
mod full;
mod hang;
mod inject;
mod machine;
mod power;
mod site;

/// A number that the environment gives.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

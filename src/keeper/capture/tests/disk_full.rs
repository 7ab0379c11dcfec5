//! A disk that refuses: both policies, on a file system of 64 KiB. Needs root for the mount.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::core::spec::{OnLogStall, Output};
use crate::state_dir::output::{Reader, Series};

use super::super::CaptureEvent;
use super::rig::{Rig, read_all, settings, until, write_all};

struct Tiny(PathBuf);

impl Tiny {
    /// Mounts it, or says why not.
    fn mount(under: &Path) -> Option<Self> {
        let path = under.join("tiny");
        std::fs::create_dir(&path).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tiny"]).arg(&path).status();
        if done.is_ok_and(|s| s.success()) {
            return Some(Self(path));
        }
        println!("skipped: mounting a tmpfs needs root");
        None
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn stall(rig: &Rig, wanted: i32) -> u64 {
    rig.wait("stall", |event| match event {
        CaptureEvent::Stall { errno, dropped, .. } if *errno == wanted => Some(*dropped),
        _ => None,
    })
}

#[test]
fn blocked_bytes_wait_in_the_pipe_and_follow_when_there_is_space() {
    let rig = Rig::new();
    let Some(tiny) = Tiny::mount(rig.dir.path()) else { return };
    let ballast = tiny.0.join("ballast");
    crate::state_dir::atomic::write_unsynced(&ballast, &[0; 40_000], 0o600).unwrap();
    let job = rig.job_in(1, settings(), &tiny.0);
    let other = rig.job(2, settings());
    let text: Vec<u8> = (0..6_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    assert!(text.len() < 60_000);
    std::thread::scope(|scope| {
        scope.spawn(|| write_all(&job.out, &text));
        assert_eq!(stall(&rig, libc::ENOSPC), 0);
        assert!(!rig.drained(job.run).1);
        write_all(&other.out, b"not held up\n");
        assert_eq!(rig.drained(other.run).0.stdout_bytes, 12);
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(stall(&rig, 0), 0);
        until("all of it", || rig.capture.totals(job.run).stdout_bytes == text.len() as u64);
    });
    rig.drained(job.run);
    assert!(read_all(&job.output, Series::Merged) == text);
    let reader = Reader::open(&job.output).unwrap();
    let covered: u64 =
        reader.records(Series::Merged, 0, u64::MAX).unwrap().iter().map(|r| u64::from(r.len)).sum();
    assert_eq!(covered, text.len() as u64);
    rig.capture.finish();
}

#[test]
fn the_last_holder_of_a_blocked_run_is_told() {
    let rig = Rig::new();
    let Some(tiny) = Tiny::mount(rig.dir.path()) else { return };
    let job = rig.job_in(1, settings(), &tiny.0);
    crate::state_dir::atomic::write_unsynced(&tiny.0.join("ballast"), &[0; 60_000], 0o600).unwrap();
    write_all(&job.out, &[b'x'; 30_000]);
    stall(&rig, libc::ENOSPC);
    drop((job.out, job.err));
    rig.wait("the last holder's end", |event| matches!(event, CaptureEvent::HolderGone { .. }).then_some(()));
    std::fs::remove_file(tiny.0.join("ballast")).unwrap();
    until("all of it", || rig.capture.totals(job.run).stdout_bytes == 30_000);
    assert!(rig.drained(job.run).1);
    rig.capture.finish();
}

#[test]
fn dropped_bytes_are_counted_and_have_a_record() {
    let rig = Rig::new();
    let Some(tiny) = Tiny::mount(rig.dir.path()) else { return };
    let ballast = tiny.0.join("ballast");
    crate::state_dir::atomic::write_unsynced(&ballast, &[0; 40_000], 0o600).unwrap();
    let job = rig.job_in(1, Output { on_log_stall: OnLogStall::Drop, ..settings() }, &tiny.0);
    let text = b"0123456\n".repeat(100_000);
    // Nobody waits for space: this returns although the disk is full.
    write_all(&job.out, &text);
    stall(&rig, libc::ENOSPC);
    let (totals, _) = rig.drained(job.run);
    assert_eq!(totals.stdout_bytes + totals.dropped, text.len() as u64);
    std::fs::remove_file(&ballast).unwrap();
    let mut more = 0;
    let mut seen = false;
    until("writing again", || {
        write_all(&job.out, b"again\n");
        more += 6;
        rig.capture.drain(job.run);
        while let Ok(event) = rig.events.try_recv() {
            seen |= matches!(event, CaptureEvent::Stall { errno: 0, dropped, .. } if dropped > 0);
        }
        seen
    });
    let (totals, _) = rig.drained(job.run);
    assert!(totals.dropped > 0);
    assert_eq!(totals.stdout_bytes + totals.dropped, text.len() as u64 + more);
    let data = read_all(&job.output, Series::Merged);
    assert_eq!(data.len() as u64, totals.stdout_bytes);
    assert!(data.ends_with(b"again\n"));
    let reader = Reader::open(&job.output).unwrap();
    let records = reader.records(Series::Merged, 0, u64::MAX).unwrap();
    let lost: u64 = records.iter().filter(|r| r.is_dropped()).map(|r| u64::from(r.len)).sum();
    assert_eq!(lost, totals.dropped);
    rig.capture.finish();
}

//! Captured output: every byte once, in order, whatever the job does with its descriptors.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use crate::common::{Daemon, PATIENCE, job, procs, until, wait_child};

const TASKS: &str = "[defaults]\nkind = \"task\"\n";

fn numbered(prefix: &str, count: u64) -> String {
    (1..=count).map(|n| format!("{prefix}{n}\n")).collect()
}

#[test]
fn bytes_are_kept_exactly() {
    let text = r"nul \0, high \xff\xfe, cr \r\n, no newline at the end";
    let daemon =
        Daemon::start(&format!("{TASKS}[job.j]\ncommand = [\"@misbehave@\", \"print\", '{text}']\n"));
    daemon.wait_ended("j");
    assert_eq!(daemon.raw("j", None), b"nul \0, high \xff\xfe, cr \r\n, no newline at the end");
}

#[test]
fn a_flood_is_kept_whole() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "flood 20000000 100", "")));
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    let bytes = daemon.raw("j", None);
    assert_eq!(bytes.len(), 20_000_000);
    let line = [vec![b'x'; 99], vec![b'\n']].concat();
    assert!(bytes.chunks(100).all(|chunk| chunk == line));
}

#[test]
fn one_flood_does_not_starve_the_others() {
    let daemon = Daemon::start(
        &[
            job("flood", "flood forever", "output = { max_size = \"1MB\", keep = 2, compress = false }"),
            job("ticker", "lines 200 1ms", "kind = \"task\""),
        ]
        .concat(),
    );
    assert_eq!(daemon.wait_ended("ticker")["code"], 0);
    assert_eq!(daemon.log("ticker"), numbered("", 200));
    assert_eq!(daemon.job("flood")["state"], "running");
}

#[test]
fn merged_output_is_one_series_in_the_order_of_arrival() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "both 300 1ms", "")));
    daemon.wait_ended("j");
    let log = daemon.log("j");
    for (stream, count) in [("out ", 300), ("err ", 300)] {
        let lines: String = log.lines().filter(|l| l.starts_with(stream)).map(|l| format!("{l}\n")).collect();
        assert_eq!(lines, numbered(stream, count));
    }
    assert_eq!(log.lines().count(), 600);
    // The index tells the streams apart.
    assert_eq!(String::from_utf8(daemon.raw_stream("j", "stdout")).unwrap(), numbered("out ", 300));
    assert_eq!(String::from_utf8(daemon.raw_stream("j", "stderr")).unwrap(), numbered("err ", 300));
}

#[test]
fn separate_output_is_a_series_for_each_stream() {
    let daemon =
        Daemon::start(&(TASKS.to_owned() + &job("j", "both 500 0", "output = { mode = \"separate\" }")));
    daemon.wait_ended("j");
    assert_eq!(String::from_utf8(daemon.raw_stream("j", "stdout")).unwrap(), numbered("out ", 500));
    assert_eq!(String::from_utf8(daemon.raw_stream("j", "stderr")).unwrap(), numbered("err ", 500));
}

#[test]
fn no_output_is_kept_if_none_is_wanted() {
    let daemon = Daemon::start(
        &(TASKS.to_owned() + &job("j", "print lost fds exit 2", "output = { mode = \"none\" }")),
    );
    assert_eq!(daemon.wait_ended("j")["code"], 2);
    assert_eq!(daemon.raw("j", None), b"");
}

#[test]
fn files_are_cut_at_line_ends_and_named_by_their_offset() {
    let daemon = Daemon::start(
        &(TASKS.to_owned()
            + &job("j", "lines 5000 0 line", "output = { max_size = 1000, keep = 1000, compress = false }")),
    );
    daemon.wait_ended("j");
    let run = daemon.job("j")["run"].as_str().unwrap().to_owned();
    let mut files: Vec<_> = fs::read_dir(daemon.run_dir(&run).join("output"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    files.sort();
    assert!(files.len() > 3, "{files:?}");
    let mut whole = Vec::new();
    for file in &files {
        assert_eq!(file.file_stem().unwrap().to_str().unwrap(), format!("{:020}", whole.len()));
        let bytes = fs::read(file).unwrap();
        assert!(bytes.ends_with(b"\n"), "{} is cut inside a line", file.display());
        whole.extend(bytes);
    }
    assert_eq!(String::from_utf8(whole).unwrap(), numbered("line ", 5000));
    assert_eq!(daemon.log("j"), numbered("line ", 5000));
}

#[test]
fn compressed_segments_read_like_any_other() {
    let daemon = Daemon::start(
        &(TASKS.to_owned()
            + &job("j", "lines 5000 0 line", "output = { max_size = 1000, keep = 1000, compress = true }")),
    );
    daemon.wait_ended("j");
    assert_eq!(daemon.log("j"), numbered("line ", 5000));
}

#[test]
fn old_segments_go_and_the_rest_begins_at_a_line() {
    let daemon = Daemon::start(
        &(TASKS.to_owned()
            + &job("j", "lines 5000 100us line", "output = { max_size = 1000, keep = 2, compress = false }")),
    );
    daemon.wait_ended("j");
    let log = daemon.log("j");
    let whole = numbered("line ", 5000);
    assert!(log.len() < whole.len() / 2, "{} bytes are left", log.len());
    assert!(whole.ends_with(&log) && log.starts_with("line "), "{:?}", &log[..log.len().min(100)]);
}

#[test]
fn a_job_that_makes_its_descriptors_non_blocking_harms_nobody() {
    let daemon = Daemon::start(
        &[
            job("rude", "nonblock flood 5000000 100 exit 0", "kind = \"task\""),
            job("plain", "flood 5000000 100 exit 0", "kind = \"task\""),
        ]
        .concat(),
    );
    for name in ["rude", "plain"] {
        assert_eq!(daemon.wait_ended(name)["code"], 0, "{name}");
        assert_eq!(daemon.raw(name, None).len(), 5_000_000, "{name}");
    }
}

#[test]
fn truncating_standard_error_loses_nothing() {
    let daemon = Daemon::start(&format!(
        "{TASKS}{}[job.sh]\nshell = true\ncommand = \"echo one; echo two > /dev/stderr; echo three >/dev/stdout\"\n",
        job("j", "print before\\n stderr-truncate print after\\n", "")
    ));
    daemon.wait_ended("j");
    // Two pipes: between them the order is that of arrival, within each it is that of writing.
    assert_eq!(daemon.raw_stream("j", "stdout"), b"before\nafter\n");
    assert_eq!(daemon.raw_stream("j", "stderr"), b"after truncation\n");
    assert_eq!(daemon.log("j").len(), "before\nafter truncation\nafter\n".len());
    daemon.wait_ended("sh");
    let mut lines: Vec<String> = daemon.log("sh").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one", "three", "two"]);
}

#[test]
fn timestamps_are_added_when_reading_and_never_stored() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "lines 3 1ms", "")));
    daemon.wait_ended("j");
    let stamped = daemon.cli(["logs", "--timestamps", "j"]).expect(0).text();
    assert_eq!(stamped.lines().count(), 3, "{stamped}");
    for (n, line) in stamped.lines().enumerate() {
        let (time, text) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.len() >= 20, "{line}");
        assert!(text.trim_end().ends_with(&(n + 1).to_string()), "{line}");
    }
    assert_eq!(daemon.log("j"), "1\n2\n3\n");
}

#[test]
fn the_last_lines_can_be_asked_for() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "lines 50 0", "")));
    daemon.wait_ended("j");
    assert_eq!(daemon.cli(["logs", "--raw", "-n", "3", "j"]).expect(0).text(), "48\n49\n50\n");
}

#[test]
fn all_runs_of_a_job_can_be_read_one_after_the_other() {
    let daemon = Daemon::start(&job(
        "j",
        "print {attempt}\\n exit 1",
        "restart = \"always\"\nbackoff = { initial = \"1ms\" }\nstart_limit = { count = 3, within = \"1m\" }",
    ));
    daemon.wait_state("j", "fatal");
    assert_eq!(daemon.raw("j", Some("all")), b"1\n2\n3\n");
    let first = daemon.events_of("run.requested", "j")[0]["run"].as_str().unwrap().to_owned();
    assert_eq!(daemon.raw("j", Some(&first)), b"1\n");
}

#[test]
fn a_reader_follows_a_run_to_its_end() {
    let mut daemon =
        Daemon::prepare(&(TASKS.to_owned() + &job("j", "lines 100 1ms gate @dir@/door lines 100 1ms", "")));
    let mut door = daemon.gate("door");
    daemon.up();
    let run = until("a run", || daemon.job("j")["run"].as_str().map(str::to_owned));
    let mut follower = daemon
        .command(["logs", "--raw", "-f", "--run", &run, "j"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = follower.stdout.take().unwrap();
    let expected = numbered("", 100);
    let mut first = vec![0; expected.len()];
    assert!(procs::wait_readable(&stdout, PATIENCE));
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(String::from_utf8(first).unwrap(), expected);
    door.release();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, expected);
    assert_eq!(wait_child(&mut follower, PATIENCE), Some(0));
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "flood 30000000 exit 0", "")));
    let mut stuck = daemon
        .command(["logs", "--raw", "-f", "j"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    // A task that has done its work is well.
    assert_eq!(daemon.cli(["status"]).code, 0);
    assert_eq!(daemon.raw("j", None).len(), 30_000_000);
    stuck.kill().unwrap();
    stuck.wait().unwrap();
}

#[test]
fn a_range_of_bytes_can_be_read_over_the_socket() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "print 0123456789", "")));
    daemon.wait_ended("j");
    let reply = daemon.get("/v1/jobs/j/output?offset=3&limit=4").unwrap();
    assert_eq!((reply.code, reply.text().as_str()), (200, "3456"));
    let next = reply.headers.iter().find(|(name, _)| name == "x-outlive-next-offset").unwrap();
    assert_eq!(next.1, "7");
}

#[test]
fn output_can_go_to_a_directory_of_its_own() {
    let daemon = Daemon::start(
        &(TASKS.to_owned() + &job("j", "lines 10 0", "output = { dir = \"@dir@/elsewhere\" }")),
    );
    daemon.wait_ended("j");
    assert_eq!(daemon.log("j"), numbered("", 10));
    assert!(fs::read_dir(daemon.path("elsewhere")).unwrap().next().is_some());
}

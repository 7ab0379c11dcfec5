//! Wrong configurations, through the real program: all that is wrong at once, each with file, line, column
//! and key; exit code 2; nothing is started and nothing is made.

use std::path::Path;

use crate::common::{Daemon, job, procs};

/// A wrong file, and what is blamed: line, column and key.
type Case = (&'static str, &'static [(u32, u32, &'static str)]);

const WRONG: &[Case] = &[
    // No TOML, or not all of it.
    ("[job.a]\ncommand = [\"x\"\nnice = 1\n", &[(3, 1, "job.a.nice")]),
    ("[job.a]\ncommand = \"x\nnice = 1\n", &[(2, 13, "job.a.command")]),
    ("[job.a\ncommand = \"x\"\n", &[(1, 7, "job.a")]),
    ("[job.a]\ncommand = x\n", &[(2, 11, "job.a.command")]),
    ("[job.a]\ncommand = \"x\"\ncommand = \"y\"\n", &[(3, 1, "job.a.command")]),
    ("[job.a]\ncommand = \"x\"\n[job.b]\ncommand = \"x\"\n[job.a]\n", &[(5, 6, "job.a")]),
    // Unknown keys, at each level.
    ("[job.a]\ncomand = \"x\"\n", &[(2, 1, "job.a.comand")]),
    ("[jobs.a]\ncommand = \"x\"\n", &[(1, 2, "jobs")]),
    ("[supervisor]\nshutdown-timeout = \"1s\"\n", &[(2, 1, "supervisor.shutdown-timeout")]),
    ("[defaults]\ndepends_on = [\"a\"]\n", &[(2, 1, "defaults.depends_on")]),
    ("[job.a]\ncommand = \"x\"\nbackoff = { inital = \"1s\" }\n", &[(3, 13, "job.a.backoff.inital")]),
    ("[job.a]\ncommand = \"x\"\nstop = [{ signal = \"INT\", t = 1 }]\n", &[(3, 26, "job.a.stop[0].t")]),
    ("[job.a]\ncommand = \"x\"\nrlimits = { nofiles = 3 }\n", &[(3, 13, "job.a.rlimits.nofiles")]),
    // Names.
    ("[job.\"a/b\"]\ncommand = \"x\"\n", &[(1, 6, "job.\"a/b\"")]),
    ("[job.\"a:1\"]\ncommand = \"x\"\n", &[(1, 6, "job.\"a:1\"")]),
    // Types.
    ("[[job.a]]\ncommand = \"x\"\n", &[(1, 1, "job.a")]),
    ("[job.a]\ncommand = 3\n", &[(2, 11, "job.a.command")]),
    ("[job.a]\ncommand = [\"x\", 3]\n", &[(2, 17, "job.a.command[1]")]),
    ("[job.a]\ncommand = \"x\"\nautostart = \"yes\"\n", &[(3, 13, "job.a.autostart")]),
    ("[job.a]\ncommand = \"x\"\nenv = { A = 1.5 }\n", &[(3, 13, "job.a.env.A")]),
    ("include = \"conf.d/*.toml\"\n", &[(1, 11, "include")]),
    // Commands.
    ("[job.a]\nkind = \"task\"\n", &[(1, 6, "job.a")]),
    ("[job.a]\ncommand = []\n", &[(2, 11, "job.a.command")]),
    ("[job.a]\ncommand = \"x 'y\"\n", &[(2, 11, "job.a.command")]),
    ("[job.a]\ncommand = \"x | y\"\n", &[(2, 11, "job.a.command")]),
    ("[job.a]\ncommand = [\"x\"]\nshell = true\n", &[(2, 11, "job.a.command")]),
    // What is put in from outside.
    ("[job.a]\ncommand = \"x ${NOPE}\"\n", &[(2, 11, "job.a.command")]),
    ("[job.a]\ncommand = \"x\"\nenv = { P = \"${NOPE:?set it}\" }\n", &[(3, 13, "job.a.env.P")]),
    ("[job.a]\ncommand = \"x\"\ncwd = \"${HOME\"\n", &[(3, 7, "job.a.cwd")]),
    ("[job.a]\ncommand = \"x {n}\"\n", &[(2, 11, "job.a.command")]),
    // Numbers, words, times, sizes.
    ("[job.a]\ncommand = \"x\"\ninstances = 0\n", &[(3, 13, "job.a.instances")]),
    (
        "[job.a]\ncommand = \"x\"\nnice = 20\noom_score_adj = -1001\n",
        &[(3, 8, "job.a.nice"), (4, 17, "job.a.oom_score_adj")],
    ),
    ("[job.a]\ncommand = \"x\"\nbackoff = { factor = 0.5 }\n", &[(3, 22, "job.a.backoff.factor")]),
    ("[job.a]\ncommand = \"x\"\nstart_grace = \"5 minutes\"\n", &[(3, 15, "job.a.start_grace")]),
    ("[job.a]\ncommand = \"x\"\nsuccess_codes = [0, 256]\n", &[(3, 21, "job.a.success_codes[1]")]),
    ("[job.a]\ncommand = \"x\"\numask = \"089\"\n", &[(3, 9, "job.a.umask")]),
    ("[supervisor]\nlog_level = \"verbose\"\n", &[(2, 13, "supervisor.log_level")]),
    ("[job.a]\ncommand = \"x\"\nrestart = \"on-failre\"\n", &[(3, 11, "job.a.restart")]),
    ("[job.a]\ncommand = \"x\"\nstop = { signal = \"TREM\" }\n", &[(3, 19, "job.a.stop.signal")]),
    ("[job.a]\ncommand = \"x\"\noutput = { max_size = \"50M\" }\n", &[(3, 23, "job.a.output.max_size")]),
    ("[job.a]\ncommand = \"x\"\nstdin = \"open\"\n", &[(3, 9, "job.a.stdin")]),
    (
        "[job.a]\ncommand = \"x\"\non_supervisor_death = \"kill_after\"\n",
        &[(3, 23, "job.a.on_supervisor_death")],
    ),
    // Things that are not there.
    ("[job.a]\ncommand = \"x\"\ncwd = \"/no/such/directory\"\n", &[(3, 7, "job.a.cwd")]),
    ("[job.a]\ncommand = \"x\"\nenv_file = \"no.env\"\n", &[(3, 12, "job.a.env_file")]),
    ("[job.a]\ncommand = \"x\"\nstdin = { file = \"no.txt\" }\n", &[(3, 18, "job.a.stdin.file")]),
    ("[job.a]\ncommand = \"x\"\nuser = \"no-such-user-here\"\n", &[(3, 8, "job.a.user")]),
    ("[job.a]\ncommand = \"x\"\ndepends_on = [\"nobody\"]\n", &[(3, 15, "job.a.depends_on[0]")]),
    (
        "[job.a]\ncommand = \"x\"\ndepends_on = [\"b\"]\n[job.b]\ncommand = \"x\"\ndepends_on = [\"a\"]\n",
        &[(3, 15, "job.a.depends_on[0]")],
    ),
];

/// `FILE:LINE:COLUMN: KEY:` at the beginning of a line for everything that is blamed, and nothing else.
#[track_caller]
fn assert_blamed(what: &str, stderr: &str, file: &Path, wanted: &[(u32, u32, &str)]) {
    let file = file.display();
    let found: Vec<&str> = stderr.lines().filter(|line| line.contains(&format!("{file}:"))).collect();
    assert_eq!(found.len(), wanted.len(), "{what}\n{stderr}");
    for ((line, column, key), said) in wanted.iter().zip(found) {
        let place = format!("{file}:{line}:{column}: {key}: ");
        let at = said.find(&place).unwrap_or_else(|| panic!("no {place} in\n{stderr}\nof\n{what}"));
        assert!(said.len() > at + place.len() + 5, "it says nothing: {said}");
    }
}

#[test]
fn every_kind_is_named_with_its_place_and_its_key() {
    assert!(WRONG.len() >= 30);
    let daemon = Daemon::prepare("");
    for (text, wanted) in WRONG {
        daemon.write_config(text);
        let said = daemon.cli(["check", "-c", daemon.path("outlive.toml").to_str().unwrap()]);
        assert_eq!(said.code, 2, "{text}\n{}", said.stderr);
        assert_blamed(text, &said.stderr, &daemon.path("outlive.toml"), wanted);
    }
    assert!(!daemon.state_dir().exists() && !daemon.runtime_dir().exists(), "a look makes nothing");
}

#[test]
fn nothing_is_started_from_a_wrong_file() {
    let mut all = job("good", "mark @dir@/started hang", "");
    let mut wanted = Vec::new();
    // One file with many mistakes beside a job that is right.
    for (n, line) in ["nice = 20", "umask = \"089\"", "stdin = \"open\"", "colour = 1"].iter().enumerate() {
        let at = u32::try_from(all.lines().count()).unwrap() + 3;
        all += &format!("[job.w{n}]\ncommand = \"x\"\n{line}\n");
        let (key, value) = line.split_once(" = ").unwrap();
        let column = if key == "colour" { 1 } else { u32::try_from(line.len() - value.len()).unwrap() + 1 };
        wanted.push((at, column, format!("job.w{n}.{key}")));
    }
    let wanted: Vec<(u32, u32, &str)> = wanted.iter().map(|(l, c, k)| (*l, *c, k.as_str())).collect();
    let daemon = Daemon::prepare(&all);
    for verb in [vec!["up"], vec!["up", "--detach"]] {
        let said = daemon.cli(verb.iter().copied().chain(["-c", "outlive.toml"]));
        assert_eq!(said.code, 2, "{verb:?}: {said:?}");
        assert_blamed("up", &said.stderr, &daemon.path("outlive.toml"), &wanted);
    }
    assert!(procs::of_instance(daemon.home()).is_empty());
    assert!(!daemon.state_dir().exists() && !daemon.runtime_dir().exists(), "nothing is made");
    assert_eq!(daemon.read("started"), "");
}

#[test]
fn a_wrong_file_is_refused_by_a_living_instance_as_well() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    let before = daemon.wait_running("j");
    for (text, wanted) in WRONG.iter().step_by(6) {
        daemon.write_config(text);
        let said = daemon.cli(["reload"]);
        assert_ne!(said.code, 0, "{text}");
        let (line, column, key) = wanted[0];
        let place = format!("outlive.toml:{line}:{column}: {key}: ");
        assert!(said.stderr.contains(&place), "no {place} in\n{}\nof\n{text}", said.stderr);
        assert_eq!(daemon.wait_running("j"), before, "{text}");
    }
}

//! What is said about wrong configurations.

use super::*;

/// A wrong file and what is said about it, all of it.
const WRONG: &[(&str, &[&str])] = &[
    // Syntax.
    (
        "[job.a]\ncommand = [\"x\"\nnice = 1\n",
        &[
            "outlive.toml:3:1: job.a.nice: missing comma between array elements, expected `,`; is a `]` or `}` missing before this?",
        ],
    ),
    ("[job.a]\ncommand = \"x\nnice = 1\n", &["outlive.toml:2:13: job.a.command: the string is never closed"]),
    ("[job.a\ncommand = \"x\"\n", &["outlive.toml:1:7: job.a: unclosed table, expected `]`"]),
    (
        "[job.a]\ncommand \"x\"\nnice = 99\n",
        &[
            "outlive.toml:2:9: job.a.command: a key without a value, expected `=`",
            "outlive.toml:3:8: job.a.nice: 99 is not in the range -20 to 19",
        ],
    ),
    ("[job.a]\ncommand = x\n", &["outlive.toml:2:11: job.a.command: a string must stand in quotes"]),
    (
        "[job.a]\ncommand = \"x\"\ncommand = \"y\"\n",
        &["outlive.toml:3:1: job.a.command: duplicate key; the first is at line 2"],
    ),
    (
        "[job.a]\ncommand = \"x\"\n[job.b]\ncommand = \"x\"\n[job.a]\nnice = 99\n",
        &[
            "outlive.toml:5:6: job.a: duplicate table; the first is at line 1",
            "outlive.toml:6:8: job.a.nice: 99 is not in the range -20 to 19",
        ],
    ),
    // Keys.
    ("[job.a]\ncomand = \"x\"\n", &["outlive.toml:2:1: job.a.comand: unknown key; did you mean `command`?"]),
    (
        "[job.a]\ncomand = \"x\"\ncommand = \"x\"\n",
        &["outlive.toml:2:1: job.a.comand: unknown key; did you mean `command`?"],
    ),
    ("[job.a]\ncommand = \"x\"\ncolour = 3\n", &["outlive.toml:3:1: job.a.colour: unknown key"]),
    ("[jobs.a]\ncommand = \"x\"\n", &["outlive.toml:1:2: jobs: unknown key; did you mean `job`?"]),
    ("[program.a]\ncommand = \"x\"\n", &["outlive.toml:1:2: program: unknown key; did you mean `job`?"]),
    (
        "[supervisor]\nshutdown-timeout = \"1s\"\n",
        &["outlive.toml:2:1: supervisor.shutdown-timeout: unknown key; did you mean `shutdown_timeout`?"],
    ),
    // What is checked.
    (
        "[health]\nmemory = 85\ndisk = \"101%\"\ninodes = \"0%\"\npids = \"8.125%\"\nopen_files = \"on\"\n",
        &[
            "outlive.toml:2:10: health.memory: expected a percentage, found an integer; write \"85%\" or \"off\"",
            "outlive.toml:3:8: health.disk: not a percentage of more than 0 and at most 100; write \"85%\" or \"off\"",
            "outlive.toml:4:10: health.inodes: not a percentage of more than 0 and at most 100; write \"85%\" or \"off\"",
            "outlive.toml:5:8: health.pids: not a percentage of more than 0 and at most 100; write \"85%\" or \"off\"",
            "outlive.toml:6:14: health.open_files: not a percentage of more than 0 and at most 100; write \"85%\" or \"off\"",
        ],
    ),
    (
        "[health]\ninterval = \"0s\"\nheal_after = 0\non_disk = [\"expires\"]\non_pids = [{ restart = \"b\" }]\non_memory = {}\n[job.a]\ncommand = \"x\"\n",
        &[
            "outlive.toml:2:12: health.interval: no time at all; leave the key out for its default",
            "outlive.toml:3:14: health.heal_after: 0 is not in the range 1 to 1000",
            "outlive.toml:4:12: health.on_disk[0]: `expires` is not one of \"rotate\", \"expire\", \"hold-starts\", \"stop-lowest\", \"restart-largest\"; did you mean `expire`?",
            "outlive.toml:5:24: health.on_pids[0].restart: there is no job `b`",
            "outlive.toml:6:13: health.on_memory: an act is one thing; write { command = [\"…\"], timeout = \"30s\" } or { restart = \"job\" }",
        ],
    ),
    (
        "[health.check.a]\ninterval = \"1s\"\n[health.check.b]\ntcp = \"x:1\"\nunix = \"/x\"\n",
        &[
            "outlive.toml:1:15: health.check.a: `exec`, `http`, `tcp` or `unix` is missing",
            "outlive.toml:5:1: health.check.b.unix: a check asks one question",
        ],
    ),
    (
        "[defaults]\ndepends_on = [\"a\"]\n",
        &[
            "outlive.toml:2:1: defaults.depends_on: `depends_on` cannot be a default; it belongs in a [job.NAME]",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstop_signal = \"INT\"\nstop_timeout = 3\n",
        &[
            "outlive.toml:3:1: job.a.stop_signal: unknown key; did you mean `stop`, as in `stop = { signal = \"TERM\", timeout = \"10s\" }`?",
            "outlive.toml:4:1: job.a.stop_timeout: unknown key; did you mean `stop`, as in `stop = { signal = \"TERM\", timeout = \"10s\" }`?",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nbackoff = { inital = \"1s\" }\n",
        &["outlive.toml:3:13: job.a.backoff.inital: unknown key; did you mean `initial`?"],
    ),
    (
        "[job.a]\ncommand = \"x\"\n[job.a.output]\nmode = \"none\"\nmaxsize = 3\n",
        &["outlive.toml:5:1: job.a.output.maxsize: unknown key; did you mean `max_size`?"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstop = [{ signal = \"INT\" }, { signal = \"TERM\", timout = \"1s\" }]\n",
        &["outlive.toml:3:48: job.a.stop[1].timout: unknown key; did you mean `timeout`?"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nrlimits = { nofiles = 3 }\n",
        &["outlive.toml:3:13: job.a.rlimits.nofiles: unknown resource limit; did you mean `nofile`?"],
    ),
    (
        "[job.a]\ncommand = \"x\"\n[job.a.output]\nkeep = 1\nnice = 5\n",
        &[
            "outlive.toml:5:1: job.a.output.nice: unknown key; `nice` is a key of [job.NAME], and what follows the header of a table belongs to that table",
        ],
    ),
    // Names.
    (
        "[job.\"a/b\"]\ncommand = \"x\"\n",
        &[
            "outlive.toml:1:6: job.\"a/b\": a job name is made of letters, digits, '-', '_', '.' and '@', and starts with a letter or digit; ':' and a number may follow for an instance",
        ],
    ),
    (
        "[job.\"a:1\"]\ncommand = \"x\"\n",
        &[
            "outlive.toml:1:6: job.\"a:1\": `a:1` is the name of an instance, and those are made by `instances`",
        ],
    ),
    // Types.
    (
        "[[job.a]]\ncommand = \"x\"\n",
        &["outlive.toml:1:1: job.a: expected a table, found a list; write [job.a] in single brackets"],
    ),
    (
        "[job]\ncommand = \"x\"\n",
        &[
            "outlive.toml:2:11: job.command: expected a table, found a string; a job has a name: write [job.NAME] above it",
        ],
    ),
    ("job = 3\n", &["outlive.toml:1:7: job: expected tables [job.NAME], found an integer"]),
    (
        "job.a = \"x\"\n",
        &["outlive.toml:1:9: job.a: expected a table, found a string; write job.a.command = …"],
    ),
    (
        "[job.a]\ncommand = 3\n",
        &["outlive.toml:2:11: job.a.command: expected a list of strings or a string, found an integer"],
    ),
    (
        "[job.a]\ncommand = [\"x\", 3]\n",
        &["outlive.toml:2:17: job.a.command[1]: expected a string, found an integer"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nautostart = \"yes\"\n",
        &["outlive.toml:3:13: job.a.autostart: expected a boolean, found a string"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nautostart = \"true\"\n",
        &[
            "outlive.toml:3:13: job.a.autostart: expected a boolean, found a string; write true without quotes",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nenv = [\"A=1\"]\n",
        &["outlive.toml:3:7: job.a.env: expected a table of strings, found a list"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nenv = { A = 1.5 }\n",
        &["outlive.toml:3:13: job.a.env.A: expected a string, found a float"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ndepends_on = \"b\"\n",
        &["outlive.toml:3:14: job.a.depends_on: expected a list of job names, found a string; write [\"b\"]"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstop = \"INT\"\n",
        &[
            "outlive.toml:3:8: job.a.stop: expected a table { signal, timeout } or a list of such tables, found a string; write { signal = \"INT\", timeout = \"10s\" }",
        ],
    ),
    (
        "include = \"conf.d/*.toml\"\n",
        &["outlive.toml:1:11: include: expected a list of paths with wildcards, found a string"],
    ),
    // Commands.
    (
        "[job.a]\nkind = \"task\"\n",
        &["outlive.toml:1:6: job.a: `command` is missing; write `command = [\"program\", \"argument\"]`"],
    ),
    ("[job.a]\ncommand = \"\"\n", &["outlive.toml:2:11: job.a.command: the command is empty"]),
    ("[job.a]\ncommand = []\n", &["outlive.toml:2:11: job.a.command: the command is empty"]),
    (
        "[job.a]\ncommand = [\"\", \"x\"]\n",
        &["outlive.toml:2:11: job.a.command: the name of the program is empty"],
    ),
    (
        "[job.a]\ncommand = \"x 'y\"\n",
        &[
            "outlive.toml:2:11: job.a.command: a ' in the command is never closed; close it, or write the command as a list",
        ],
    ),
    (
        "[job.a]\ncommand = \"x | y\"\n",
        &[
            "outlive.toml:2:11: job.a.command: `|` outside quotes is for a shell, and none is asked for; write [\"sh\", \"-c\", \"…\"], quote it, or set `shell = true` for the command of a job",
        ],
    ),
    (
        "[job.a]\ncommand = [\"x\"]\nshell = true\n",
        &[
            "outlive.toml:2:11: job.a.command: expected a string, because of `shell = true`, found a list; write one string, or leave `shell` out",
        ],
    ),
    // Substitution.
    (
        "[job.a]\ncommand = \"x ${NOPE}\"\n",
        &[
            "outlive.toml:2:11: job.a.command: the environment variable `NOPE` is not set; write `${NOPE:-default}`, or `$${NOPE}` for the text itself",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nenv = { P = \"${PASSWORD:?set it}\" }\n",
        &["outlive.toml:3:13: job.a.env.P: `PASSWORD` is not set: set it"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ncwd = \"${HOME\"\n",
        &["outlive.toml:3:7: job.a.cwd: a `${` is never closed; write `$${` for the text `${`"],
    ),
    (
        "[job.a]\ncommand = \"x {n}\"\n",
        &[
            "outlive.toml:2:11: job.a.command: `{n}` is used in a job without `instances`; set `instances`, or write `{{n}}` for the text `{n}`",
        ],
    ),
    (
        "[defaults]\nenv = { N = \"{n}\" }\n[job.a]\ncommand = \"x\"\n",
        &[
            "outlive.toml:2:13: defaults.env.N: `{n}` is used in a job without `instances`; set `instances`, or write `{{n}}` for the text `{n}`",
        ],
    ),
    // Numbers and words.
    (
        "[job.a]\ncommand = \"x\"\ninstances = 0\n",
        &["outlive.toml:3:13: job.a.instances: 0 is not in the range 1 to 10000"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ninstances = 10001\n",
        &["outlive.toml:3:13: job.a.instances: 10001 is not in the range 1 to 10000"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nnice = 20\noom_score_adj = -1001\n",
        &[
            "outlive.toml:3:8: job.a.nice: 20 is not in the range -20 to 19",
            "outlive.toml:4:17: job.a.oom_score_adj: -1001 is not in the range -1000 to 1000",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nnice = 99999999999999999999\n",
        &["outlive.toml:3:8: job.a.nice: 99999999999999999999 is not in the range -20 to 19"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nbackoff = { factor = 0.5, jitter = 2, initial = 5 }\n",
        &[
            "outlive.toml:3:22: job.a.backoff.factor: 0.5 is not 1.0 or more",
            "outlive.toml:3:36: job.a.backoff.jitter: 2 is not between 0.0 and 1.0",
            "outlive.toml:3:49: job.a.backoff.initial: 5 has no unit; write \"5s\" for seconds",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nbackoff = { factor = nan, initial = \"2s\", max = \"1s\" }\n",
        &[
            "outlive.toml:3:22: job.a.backoff.factor: NaN is not 1.0 or more",
            "outlive.toml:3:37: job.a.backoff.initial: `initial` is longer than `max`",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstart_limit = { count = -1, within = \"0s\" }\n",
        &[
            "outlive.toml:3:25: job.a.start_limit.count: -1 is not in the range 0 to 4294967295",
            "outlive.toml:3:38: job.a.start_limit.within: no start fits in a time of zero; `count = 0` switches the limit off",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstart_grace = \"5 minutes\"\n",
        &[
            "outlive.toml:3:15: job.a.start_grace: `5 minutes` is no duration; write a number with ms, s, m, h or d, as in \"500ms\" or \"1m30s\"",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstart_grace = \"5\"\n",
        &["outlive.toml:3:15: job.a.start_grace: `5` has no unit; write \"5s\" for seconds"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nsuccess_codes = [0, 256]\n",
        &["outlive.toml:3:21: job.a.success_codes[1]: 256 is not in the range 0 to 255"],
    ),
    (
        "[job.a]\ncommand = \"x\"\numask = \"089\"\n",
        &[
            "outlive.toml:3:9: job.a.umask: `089` is no octal mode; write octal digits, 000 to 777, as in \"022\" or 0o022",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\numask = 22\n",
        &["outlive.toml:3:9: job.a.umask: 22 is no octal mode; write \"022\""],
    ),
    (
        "[supervisor]\nsocket_mode = \"1777\"\nlog_level = \"verbose\"\nkeep_runs = 0\n",
        &[
            "outlive.toml:2:15: supervisor.socket_mode: `1777` is no octal mode; write octal digits, 000 to 777, as in \"022\" or 0o022",
            "outlive.toml:3:13: supervisor.log_level: `verbose` is not one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
            "outlive.toml:4:13: supervisor.keep_runs: 0 is not in the range 1 to 1000000",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nrestart = \"on-failre\"\nkill_scope = \"all\"\n",
        &[
            "outlive.toml:3:11: job.a.restart: `on-failre` is not one of \"always\", \"on-failure\", \"never\"; did you mean `on-failure`?",
            "outlive.toml:4:14: job.a.kill_scope: `all` is not one of \"mixed\", \"tree\", \"group\", \"process\"",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstop = { signal = \"TREM\" }\n",
        &["outlive.toml:3:19: job.a.stop.signal: unknown signal `TREM`; did you mean `TERM`?"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstop = {}\n",
        &["outlive.toml:3:1: job.a.stop: `signal` or `command` is missing"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstop = { signal = \"INT\", command = \"y\" }\n",
        &[
            "outlive.toml:3:26: job.a.stop.command: a step has a `signal` or a `command`, not both; make two steps of it: [{ command = … }, { signal = … }]",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstop = []\n",
        &[
            "outlive.toml:3:8: job.a.stop: the stop ladder is empty; write { signal = \"KILL\" } to kill without asking",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\noutput = { max_size = \"50M\", keep = -1 }\n",
        &[
            "outlive.toml:3:23: job.a.output.max_size: `50M` is no size; write \"50MB\" (a million bytes each) or \"64KiB\" (1024 bytes each)",
            "outlive.toml:3:37: job.a.output.keep: -1 is not in the range 0 to 4294967295",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nrlimits = { nofile = \"many\", core = { soft = 2, hard = 1 }, cpu = { soft = 1 } }\n",
        &[
            "outlive.toml:3:22: job.a.rlimits.nofile: `many` is no limit; write a number without quotes, or \"unlimited\"",
            "outlive.toml:3:37: job.a.rlimits.core: the soft limit is above the hard limit",
            "outlive.toml:3:61: job.a.rlimits.cpu: `hard` is missing",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstdin = \"open\"\n",
        &["outlive.toml:3:9: job.a.stdin: `open` is not one of \"null\", \"keep\""],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstdin = {}\n",
        &[
            "outlive.toml:3:1: job.a.stdin: `file` is missing; write \"null\", \"keep\" or { file = \"path\" }",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\non_supervisor_death = \"kill_after\"\n",
        &[
            "outlive.toml:3:23: job.a.on_supervisor_death: `kill_after` needs a time; write { kill_after = \"30s\" }",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\non_supervisor_death = { kill_after = 30 }\n",
        &[
            "outlive.toml:3:38: job.a.on_supervisor_death.kill_after: 30 has no unit; write \"30s\" for seconds",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\nenv = { \"A=B\" = \"1\" }\ninherit_env = [\"\"]\n",
        &[
            "outlive.toml:3:9: job.a.env.\"A=B\": `=` cannot be in the name of an environment variable",
            "outlive.toml:4:16: job.a.inherit_env[0]: the name of an environment variable cannot be empty",
        ],
    ),
    (
        "[job.a]\ncommand = [\"x\", \"\\u0000\"]\n",
        &["outlive.toml:2:17: job.a.command[1]: a NUL character is not possible here"],
    ),
    // The machine.
    (
        "[job.a]\ncommand = \"x\"\nuser = \"www-dta\"\ngroup = \"nobody\"\n",
        &[
            "outlive.toml:3:8: job.a.user: unknown user `www-dta`; did you mean `www-data`?",
            "outlive.toml:4:9: job.a.group: unknown group `nobody`; a group from elsewhere is given by its number",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\ncwd = \"nowhere\"\n",
        &["outlive.toml:3:7: job.a.cwd: the directory `nowhere` does not exist"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ncwd = \"outlive.toml\"\n",
        &["outlive.toml:3:7: job.a.cwd: `outlive.toml` is not a directory"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ncwd = \"~/work\"\n",
        &["outlive.toml:3:7: job.a.cwd: `~` is not expanded; write \"${HOME}/work\""],
    ),
    (
        "[job.a]\ncommand = \"x\"\nenv_file = [\"none.env\"]\n",
        &["outlive.toml:3:13: job.a.env_file[0]: cannot read `none.env`: it does not exist"],
    ),
    (
        "[job.a]\ncommand = \"x\"\nstdin = { file = \"none.txt\" }\n",
        &["outlive.toml:3:18: job.a.stdin.file: the file `none.txt` does not exist"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ninstances = 3\nuser = \"w{n}\"\n",
        &["outlive.toml:4:8: job.a.user: unknown user `w2`; did you mean `w1`?"],
    ),
    (
        "include = [\"none.toml\", \"conf.d/*.toml\"]\n",
        &["outlive.toml:1:12: include[0]: the file `none.toml` does not exist"],
    ),
    // Dependencies.
    (
        "[job.web]\ncommand = \"x\"\ndepends_on = [\"bd\"]\n[job.db]\ncommand = \"x\"\n",
        &["outlive.toml:3:15: job.web.depends_on[0]: unknown job `bd`; did you mean `db`?"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ndepends_on = [\"b\"]\n[job.b]\ncommand = \"x\"\ndepends_on = [\"a\"]\n",
        &["outlive.toml:3:15: job.a.depends_on[0]: dependency cycle: a -> b -> a"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ninstances = 2\ndepends_on = [\"a\"]\n",
        &["outlive.toml:4:15: job.a.depends_on[0]: dependency cycle: a -> a"],
    ),
    (
        "[job.a]\ncommand = \"x\"\ninstances = 2\n[job.b]\ncommand = \"x\"\ndepends_on = [\"a:3\", \"b:1\", \"*\"]\n",
        &[
            "outlive.toml:6:15: job.b.depends_on[0]: unknown job `a:3`: `a` has the instances 1 to 2",
            "outlive.toml:6:22: job.b.depends_on[1]: unknown job `b:1`: `b` has no instances",
            "outlive.toml:6:29: job.b.depends_on[2]: `*` is no job name: a job name is made of letters, digits, '-', '_', '.' and '@', and starts with a letter or digit; ':' and a number may follow for an instance",
        ],
    ),
    (
        "[job.a]\ncommand = \"x\"\ninstances = 10000\n[job.b]\ncommand = \"x\"\ninstances = 10000\ndepends_on = [\"a\"]\n",
        &["outlive.toml:7:15: job.b.depends_on[0]: more than 1000000 dependencies between instances"],
    ),
];

#[test]
fn every_kind_of_wrong_configuration_is_named_with_its_place() {
    assert!(WRONG.len() >= 35);
    for (text, wanted) in WRONG {
        assert_eq!(Dir::new(&[("outlive.toml", text)]).errors(), *wanted, "{text}");
    }
}

#[test]
fn all_errors_of_all_files_come_at_once_and_in_order() {
    let dir = Dir::new(&[
        (
            "outlive.toml",
            "include = [\"conf.d/*.toml\"]\n[job.z]\ncommand = 1\nnice = 77\n[job.a]\ncommand = \"x\"\n",
        ),
        ("conf.d/1.toml", "[job.b]\ncommand = \"x\"\ndepends_on = [\"nope\"]\n[job.a]\ncommand = \"\"\n"),
        ("conf.d/2.toml", "include = []\n[supervisor]\n[defaults]\n[jop.x]\n[job.b]\n"),
    ]);
    assert_eq!(
        dir.errors(),
        [
            "outlive.toml:3:11: job.z.command: expected a list of strings or a string, found an integer",
            "outlive.toml:4:8: job.z.nice: 77 is not in the range -20 to 19",
            "conf.d/1.toml:3:15: job.b.depends_on[0]: unknown job `nope`",
            "conf.d/1.toml:4:6: job.a: duplicate name `a`; the first is at outlive.toml:5:6",
            "conf.d/1.toml:5:11: job.a.command: the command is empty",
            "conf.d/2.toml:1:1: include: `include` belongs in the main file",
            "conf.d/2.toml:2:2: supervisor: `supervisor` belongs in the main file",
            "conf.d/2.toml:3:2: defaults: `defaults` belongs in the main file",
            "conf.d/2.toml:4:2: jop: unknown key; did you mean `job`?",
            "conf.d/2.toml:5:6: job.b: `command` is missing; write `command = [\"program\", \"argument\"]`",
            "conf.d/2.toml:5:6: job.b: duplicate name `b`; the first is at conf.d/1.toml:1:6",
        ]
    );
}

#[test]
fn a_default_is_blamed_once_where_it_stands() {
    let text = "[defaults]\nnice = 50\ncwd = \"nowhere\"\nbackoff = { max = 3 }\n\
                [job.a]\ncommand = \"x\"\n[job.b]\ncommand = \"x\"\n[job.c]\ncommand = \"x\"\ncwd = \"/\"\n";
    let dir = Dir::new(&[("outlive.toml", text)]);
    assert_eq!(
        dir.errors(),
        [
            "outlive.toml:2:8: defaults.nice: 50 is not in the range -20 to 19",
            "outlive.toml:3:7: defaults.cwd: the directory `nowhere` does not exist",
            "outlive.toml:4:19: defaults.backoff.max: 3 has no unit; write \"3s\" for seconds",
        ]
    );
    assert_eq!(Dir::new(&[("outlive.toml", "[defaults]\nnice = 50\n")]).errors().len(), 1, "unused defaults");
}

#[test]
fn files_that_cannot_be_read() {
    let dir = Dir::new(&[]);
    assert_eq!(dir.errors(), ["outlive.toml: cannot read the file: it does not exist"]);
    std::fs::create_dir(dir.path().join("outlive.toml")).unwrap();
    assert_eq!(dir.errors(), ["outlive.toml: cannot read the file: it is a directory"]);

    let dir = Dir::new(&[]);
    dir.write("outlive.toml", b"[job.a]\ncommand = \"\xff\"\n");
    assert_eq!(dir.errors(), ["outlive.toml:2:12: cannot read the file: it is not UTF-8 text"]);

    let main = "include = [\"a.toml\", \"d\", \"\"]\n[job.x]\ncommand = \"x\"\ndepends_on = [\"from-a\"]\n";
    let dir = Dir::new(&[("outlive.toml", main), ("d/file", "")]);
    dir.write("a.toml", b"\xff");
    assert_eq!(
        dir.errors(),
        [
            "outlive.toml:1:27: include[2]: the path is empty",
            "a.toml:1:1: cannot read the file: it is not UTF-8 text",
            "d: cannot read the file: it is a directory",
        ],
        "and `from-a`, which may be in the unread file, is not called unknown"
    );
}

#[test]
fn what_a_broken_file_may_have_held_is_not_missed() {
    let dir = Dir::new(&[
        (
            "outlive.toml",
            "include = [\"b.toml\"]\n[job.a]\ncommand = \"x\"\ndepends_on = [\"b\"]\nnice = 30\n",
        ),
        ("b.toml", "[job.c]\ncommand = [\"x\"\n[job.b]\ncommand = \"x\"\n"),
    ]);
    let errors = dir.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("outlive.toml:5:8: job.a.nice: 30"), "{errors:?}");
    assert!(errors[1].starts_with("b.toml:3:"), "{errors:?}");
}

#[test]
fn an_environment_file_is_blamed_at_its_line_without_showing_it() {
    let main = "[job.a]\ncommand = \"x\"\nenv_file = \"secret.env\"\n[job.b]\ncommand = \"x\"\nenv_file = \"secret.env\"\n";
    let dir = Dir::new(&[("outlive.toml", main), ("secret.env", "OK=1\nhunter2\n")]);
    assert_eq!(dir.errors(), ["secret.env:2:1: a line `KEY=VALUE` is expected"]);
    assert!(!dir.load().unwrap_err().to_string().contains("hunter2"));
}

#[test]
fn errors_are_plain_data_too() {
    let dir = Dir::new(&[("outlive.toml", "[job.web]\ncommand = \"x\"\n  comand = 2\n")]);
    let errors = dir.load().unwrap_err();
    let error = &errors.0[0];
    assert_eq!(error.file, dir.path().join("outlive.toml"));
    assert_eq!((error.line, error.column, error.width), (3, 3, 6));
    assert_eq!((error.key.as_str(), error.message.as_str()), ("job.web.comand", "unknown key"));
    assert_eq!(error.suggestion.as_deref(), Some("did you mean `command`?"));
    let shown = errors.to_string();
    assert!(shown.ends_with("\n  3 |   comand = 2\n    |   ^^^^^^"), "{shown}");
    let json = serde_json::to_string(&errors).unwrap();
    assert_eq!(serde_json::from_str::<Errors>(&json).unwrap(), errors);
}

#[test]
fn no_text_makes_the_reader_panic() {
    let whole = EVERY_KEY;
    let dir = Dir::new(&[]);
    for cut in (0..whole.len()).filter(|n| whole.is_char_boundary(*n)) {
        dir.write("outlive.toml", &whole.as_bytes()[..cut]);
        let _ = dir.load().map_err(|e| e.to_string());
    }
    // Each quote, bracket and equals sign left out once.
    for (at, c) in whole.char_indices().filter(|(_, c)| "\"'[]{}=,\n".contains(*c)) {
        dir.write("outlive.toml", format!("{}{}", &whole[..at], &whole[at + c.len_utf8()..]).as_bytes());
        let _ = dir.load().map_err(|e| e.to_string());
    }
}

#[test]
fn a_flood_of_errors_is_counted_not_shown() {
    let text: String = (0..2000).map(|n| format!("[job.j{n}]\ncommand = {n}\n")).collect();
    let errors = Dir::new(&[("outlive.toml", &text)]).errors();
    assert_eq!(errors.len(), 501);
    assert_eq!(errors[500], "outlive.toml: 1500 more errors are not shown");
    let junk = "]".repeat(200_000);
    assert!(!Dir::new(&[("outlive.toml", &junk)]).errors().is_empty());
}

#[test]
fn a_name_leaves_room_for_the_number_of_the_instance() {
    let name = "x".repeat(126);
    let text = format!("[job.{name}]\ncommand = \"x\"\ninstances = 10\n");
    let errors = Dir::new(&[("outlive.toml", &text)]).errors();
    assert!(errors.len() == 1 && errors[0].contains("at most 128 bytes"), "{errors:?}");
}

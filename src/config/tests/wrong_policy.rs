//! What is said about wrong restart policies, groups and hooks.

use super::*;

const WRONG: &[(&str, &[&str])] = &[
    (
        "breaker = { failures = 0, open_for = \"0s\" }",
        &[
            "3:24: job.a.breaker.failures: 0 is not in the range 1 to 4294967295",
            "3:38: job.a.breaker.open_for: no time at all; leave the key out for its default",
        ],
    ),
    (
        "breaker = \"yes\"",
        &["3:11: job.a.breaker: expected `true` or a table { failures, open_for }, found a string"],
    ),
    ("breaker = { failure = 3 }", &["3:13: job.a.breaker.failure: unknown key; did you mean `failures`?"]),
    ("retry_fatal = 10", &["3:15: job.a.retry_fatal: 10 has no unit; write \"10s\" for seconds"]),
    ("retry_fatal = \"0s\"", &["3:15: job.a.retry_fatal: no time at all; leave the key out for its default"]),
    ("resume_command = []", &["3:18: job.a.resume_command: the command is empty"]),
    (
        "hooks = { before_start = { timeout = \"5s\" }, on_fatal = \"\" }",
        &[
            "3:11: job.a.hooks.before_start: `command` is missing",
            "3:57: job.a.hooks.on_fatal: the command is empty",
        ],
    ),
    (
        "hooks = { after_exit = { command = \"x\", timeout = \"0s\" } }",
        &["3:51: job.a.hooks.after_exit.timeout: no time at all; leave the key out for its default"],
    ),
    (
        "hooks = { befor_start = \"x\" }",
        &["3:11: job.a.hooks.befor_start: unknown key; did you mean `before_start`?"],
    ),
    ("queue = 3", &["3:9: job.a.queue: expected the name of a queue, found an integer"]),
    (
        "queue = \"c\"\n[queue.b]\nslots = -1\nslot = 2\n[queue.\"a b\"]",
        &[
            "3:9: job.a.queue: there is no queue `c`; there are: b, default; another is made by `[queue.c]`",
            "5:9: queue.b.slots: -1 is not in the range 0 to 100000",
            "6:1: queue.b.slot: unknown key; did you mean `slots`?",
            "7:8: queue.\"a b\": `a b` is no name of a queue: the name of a queue is made of letters, digits, '-', \
             '_', '.' and '@', starts with a letter or digit, and has at most 128 bytes",
        ],
    ),
    ("[group.g]\njobs = [\"a\", \"other\"]", &["4:14: group.g.jobs[1]: unknown job `other`"]),
    ("[group.g]\njobs = [\"a\", \"a\"]", &["4:14: group.g.jobs[1]: `a` is in the group `g` already"]),
    (
        "[group.g]\njobs = [\"a\"]\n[group.h]\njobs = [\"a\"]",
        &["6:9: group.h.jobs[0]: `a` is in the group `g` already"],
    ),
    ("[group.g]\njobs = []", &["4:8: group.g.jobs: a group without members"]),
    (
        "[group.g]\nstrategy = \"one-for-one\"",
        &["3:8: group.g: `jobs` is missing; write `jobs = [\"a\", \"b\"]`"],
    ),
    (
        "[group.g]\njobs = [\"a\"]\nstrategy = \"one-for-two\"",
        &[
            "5:12: group.g.strategy: `one-for-two` is not one of \"one-for-one\", \"one-for-all\", \"rest-for-one\"; did you mean `one-for-one`?",
        ],
    ),
    (
        "[group.g]\njobs = [\"a\"]\nstart_limit = { count = 3, within = \"0s\" }",
        &[
            "5:37: group.g.start_limit.within: no start fits in a time of zero; `count = 0` switches the limit off",
        ],
    ),
];

#[test]
fn each_wrong_policy_is_told_with_its_place() {
    for (lines, wanted) in WRONG {
        let text = format!("[job.a]\ncommand = \"x\"\n{lines}\n");
        let dir = Dir::new(&[("outlive.toml", &text)]);
        let wanted: Vec<String> = wanted.iter().map(|line| format!("outlive.toml:{line}")).collect();
        assert_eq!(dir.errors(), wanted, "{text}");
    }
}

#[test]
fn a_breaker_is_on_with_its_defaults_off_or_as_it_says() {
    use crate::core::circuit::Breaker;
    use crate::core::time::Millis;
    let breaker = |lines: &str| job(&format!("command = 'x'\n{lines}")).breaker.map(|breaker| *breaker);
    let usual = Breaker { failures: 5, open_for: Millis::from_secs(60) };
    assert_eq!(breaker(""), None);
    assert_eq!(breaker("breaker = false"), None);
    assert_eq!(breaker("breaker = true"), Some(usual));
    assert_eq!(breaker("breaker = {}"), Some(usual));
    assert_eq!(breaker("breaker = { failures = 1 }"), Some(Breaker { failures: 1, ..usual }));
}

#[test]
fn hooks_are_merged_with_those_of_the_defaults_one_by_one() {
    let (_dir, config) = good(
        "[defaults]\nhooks = { on_fatal = \"page\", after_exit = \"tidy\" }\n[job.a]\ncommand = \"x\"\n\
         hooks.after_exit = \"own\"\n",
    );
    let hooks = config.jobs[0].hooks.as_deref().unwrap();
    let words = |hook: &Option<crate::core::hook::Hook>| hook.as_ref().unwrap().command.join(" ");
    assert_eq!((words(&hooks.on_fatal), words(&hooks.after_exit)), ("page".to_owned(), "own".to_owned()));
}

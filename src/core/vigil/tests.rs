//! Schedules in virtual time.

use super::super::ids::JobName;
use super::super::watch::{BeatFile, Heartbeat, Limits, Probe, ProbeAsk, Probes, Ready, Watch};
use super::pulse::ILL_US;
use super::sampling::SAMPLE_US;
use super::*;

const S: u64 = 1_000_000;
/// When runs of these tests are started.
const T0: u64 = 1000 * S;

fn spec(watch: Watch) -> Arc<JobSpec> {
    let name = JobName::new("a").unwrap();
    Arc::new(JobSpec { watch: Some(Box::new(watch)), ..JobSpec::new(name, vec!["x".to_owned()]) })
}

fn heartbeat(heartbeat: Heartbeat) -> Watch {
    Watch { heartbeat, ..Watch::default() }
}

/// A vigil from the start of the run on, without the looks at its processes.
fn vigil(watch: Watch) -> Vigil {
    let mut vigil = Vigil::new(&spec(watch), T0, true, (T0, 0)).unwrap();
    vigil.sample = None;
    vigil
}

fn fault(vigil: &mut Vigil, at: u64) -> Option<Fault> {
    vigil.judge(at).fault.map(|(fault, _)| fault)
}

fn sampled(state: u8, cpu_us: u64) -> Option<Sampled> {
    Some(Sampled { state, cpu_us, memory: 1 << 20, tasks: 1 })
}

#[test]
fn nothing_is_watched_of_a_job_that_asks_for_nothing() {
    let name = JobName::new("a").unwrap();
    let plain = Arc::new(JobSpec::new(name, vec!["x".to_owned()]));
    assert!(Vigil::new(&plain, T0, true, (T0, 0)).is_none());
}

#[test]
fn a_healthy_run_is_looked_at_once_in_the_time_it_has() {
    let mut vigil =
        vigil(heartbeat(Heartbeat { output: Some(Millis::from_secs(600)), ..Heartbeat::default() }));
    let mut looks = 0;
    let mut now = T0;
    // A day of output every ten seconds.
    while now < T0 + 86_400 * S {
        now = vigil.next_us().unwrap();
        for look in vigil.judge(now).looks {
            looks += 1;
            vigil.looked(look, Some(now / (10 * S) * 10 * S), now);
        }
        assert_eq!(fault(&mut vigil, now), None);
    }
    assert!((140..=150).contains(&looks), "{looks}");
}

#[test]
fn silence_counts_to_the_microsecond_and_its_last_moment_is_too_late() {
    let timeout = Millis::from_secs(15);
    let mut vigil = vigil(heartbeat(Heartbeat { notify: Some(timeout), ..Heartbeat::default() }));
    assert_eq!(vigil.next_us(), Some(T0 + 15 * S));
    assert_eq!(vigil.judge(T0 + 15 * S - 1), Judgement::default());
    assert_eq!(vigil.judge(T0 + 15 * S).looks, [Look::Beat]);
    assert_eq!(vigil.next_us(), None, "the look is under way");
    assert_eq!(fault(&mut vigil, T0 + 16 * S), None, "and decides");
    vigil.looked(Look::Beat, Some(T0 + 1), T0 + 16 * S);
    assert_eq!(fault(&mut vigil, T0 + 16 * S), Some(Fault::Watchdog));
    let (_, why) = vigil.judge(T0 + 16 * S).fault.unwrap();
    assert_eq!(why, "no WATCHDOG=1 for 15s");
    // A sign of life at last.
    vigil.beat(T0 + 17 * S, T0 + 17 * S);
    assert_eq!(fault(&mut vigil, T0 + 17 * S), None);
    assert_eq!(vigil.next_us(), Some(T0 + 32 * S));
}

#[test]
fn what_is_wrong_is_looked_at_again_and_less_often_with_time() {
    let mut vigil = vigil(heartbeat(Heartbeat { output: Some(Millis(1000)), ..Heartbeat::default() }));
    let (mut now, mut looks) = (T0, Vec::new());
    while now < T0 + 3600 * S {
        now = vigil.next_us().unwrap();
        for look in vigil.judge(now).looks {
            looks.push(now);
            vigil.looked(look, None, now);
        }
    }
    assert_eq!(looks[1] - looks[0], ILL_US);
    let last = looks.len() - 1;
    assert_eq!(looks[last] - looks[last - 1], SAMPLE_US);
    assert!(looks.len() < 900, "{}", looks.len());
}

#[test]
fn a_sign_from_the_future_is_one_of_this_moment() {
    let file = BeatFile { path: "/beat".to_owned(), timeout: Millis(1000) };
    let mut vigil = vigil(heartbeat(Heartbeat { file: Some(file), ..Heartbeat::default() }));
    vigil.judge(T0 + S);
    vigil.looked(Look::File, Some(T0 + 9999 * S), T0 + S);
    assert_eq!((fault(&mut vigil, T0 + S), vigil.next_us()), (None, Some(T0 + 2 * S)));
    vigil.judge(T0 + 2 * S);
    vigil.looked(Look::File, Some(T0 + S), T0 + 2 * S);
    let (_, why) = vigil.judge(T0 + 2 * S).fault.unwrap();
    assert_eq!(why, "/beat was not touched for 1s");
}

#[test]
fn the_watchdog_begins_when_the_run_is_ready() {
    let beat = Heartbeat { notify: Some(Millis(1000)), ..Heartbeat::default() };
    let ready = Some(Ready { by: ReadyBy::Notify, timeout: Millis(60_000) });
    let watch = Watch { ready, ..heartbeat(beat) };
    let mut vigil = Vigil::new(&spec(watch), T0, false, (T0, 0)).unwrap();
    vigil.sample = None;
    assert_eq!((vigil.next_us(), vigil.judge(T0 + 50 * S)), (None, Judgement::default()));
    vigil.is_ready(T0 + 50 * S);
    assert_eq!(vigil.next_us(), Some(T0 + 51 * S));
}

#[test]
fn a_run_may_change_its_interval_and_switch_it_off() {
    let mut vigil = vigil(heartbeat(Heartbeat { notify: Some(Millis(10_000)), ..Heartbeat::default() }));
    vigil.interval(Millis(5000), T0 + 9 * S, T0 + 9 * S);
    assert_eq!(vigil.next_us(), Some(T0 + 14 * S), "to say so is a sign");
    vigil.interval(Millis(5000), T0 + 9 * S, T0 + 12 * S);
    assert_eq!(vigil.next_us(), Some(T0 + 14 * S), "to hear it again is none");
    vigil.interval(Millis(5000), T0 + 12 * S, T0 + 12 * S);
    assert_eq!(vigil.next_us(), Some(T0 + 17 * S), "to say it again is one");
    vigil.interval(Millis(0), T0 + 12 * S, T0 + 12 * S);
    assert_eq!((vigil.next_us(), vigil.judge(T0 + 999 * S)), (None, Judgement::default()));
    // One that was not configured to begins by its own word.
    let mut other = self::vigil(Watch { progress_timeout: Some(Millis(100_000)), ..Watch::default() });
    other.interval(Millis(2000), T0 + 7 * S, T0 + 7 * S);
    assert_eq!(other.next_us(), Some(T0 + 9 * S));
    // Who hears later when it was said counts from then.
    let mut heir = self::vigil(Watch { progress_timeout: Some(Millis(100_000)), ..Watch::default() });
    heir.interval(Millis(2000), T0 + 7 * S, T0 + 8 * S);
    assert_eq!(heir.next_us(), Some(T0 + 9 * S));
}

#[test]
fn a_run_that_says_it_is_in_trouble_is_until_it_beats_again() {
    let mut vigil = vigil(heartbeat(Heartbeat { notify: Some(Millis(9000)), ..Heartbeat::default() }));
    vigil.trigger(T0 + S);
    assert_eq!(fault(&mut vigil, T0 + S), Some(Fault::Trigger));
    vigil.beat(T0 + S, T0 + S);
    assert_eq!(fault(&mut vigil, T0 + S), Some(Fault::Trigger), "not by the beat before");
    vigil.beat(T0 + 2 * S, T0 + 2 * S);
    assert_eq!(fault(&mut vigil, T0 + 2 * S), None);
}

#[test]
fn progress_needs_no_look() {
    let mut vigil = vigil(Watch { progress_timeout: Some(Millis(1000)), ..Watch::default() });
    vigil.progress(T0 + S / 2, T0 + S / 2);
    assert_eq!(vigil.next_us(), Some(T0 + S + S / 2));
    assert_eq!(fault(&mut vigil, T0 + S + S / 2 - 1), None);
    assert_eq!(fault(&mut vigil, T0 + S + S / 2), Some(Fault::NoProgress));
    assert_eq!(vigil.next_us(), None, "it has been said");
}

#[test]
fn a_run_may_take_so_long_and_longer_if_it_asks() {
    let mut vigil = vigil(Watch { max_runtime: Some(Millis(10_000)), ..Watch::default() });
    assert_eq!((vigil.next_us(), fault(&mut vigil, T0 + 10 * S - 1)), (Some(T0 + 10 * S), None));
    vigil.extend(T0 + 12 * S);
    assert_eq!((vigil.next_us(), fault(&mut vigil, T0 + 10 * S)), (Some(T0 + 12 * S), None));
    let (fault, why) = vigil.judge(T0 + 12 * S).fault.unwrap();
    assert_eq!((fault, why.as_str()), (Fault::MaxRuntime, "took longer than 10s"));
    assert_eq!(vigil.next_us(), None);
}

#[test]
fn a_stop_is_believed_at_the_second_look_and_ends_at_the_first_without() {
    let watch = heartbeat(Heartbeat { notify: Some(Millis(60_000)), ..Heartbeat::default() });
    let mut vigil = Vigil::new(&spec(watch), T0, true, (T0, 0)).unwrap();
    assert_eq!(vigil.judge(T0).looks, [Look::Sample]);
    vigil.sampled(sampled(b'S', 1), T0);
    assert_eq!(vigil.next_us(), Some(T0 + SAMPLE_US));
    vigil.judge(T0 + 5 * S);
    vigil.sampled(sampled(b'T', 1), T0 + 5 * S);
    assert_eq!((fault(&mut vigil, T0 + 5 * S), vigil.next_us()), (None, Some(T0 + 6 * S)));
    vigil.judge(T0 + 6 * S);
    vigil.sampled(sampled(b'T', 1), T0 + 6 * S);
    assert_eq!(fault(&mut vigil, T0 + 6 * S), Some(Fault::Stopped));
    assert_eq!(vigil.next_us(), Some(T0 + 6 * S + ILL_US));
    vigil.judge(T0 + 6 * S + ILL_US);
    vigil.sampled(sampled(b'S', 1), T0 + 6 * S + ILL_US);
    assert_eq!(fault(&mut vigil, T0 + 7 * S), None);
    // A debugger's stop is none, nor is a process that cannot be seen.
    vigil.sampled(sampled(b't', 1), T0 + 8 * S);
    vigil.sampled(sampled(b't', 1), T0 + 20 * S);
    vigil.sampled(None, T0 + 30 * S);
    assert_eq!(fault(&mut vigil, T0 + 30 * S), None);
}

#[test]
fn who_waits_for_the_kernel_for_a_minute_and_gets_nowhere_is_blocked() {
    let watch = heartbeat(Heartbeat { notify: Some(Millis(600_000)), ..Heartbeat::default() });
    let mut vigil = Vigil::new(&spec(watch), T0, true, (T0, 0)).unwrap();
    // A slow disk: always waiting, and getting on.
    for n in 0..20 {
        vigil.sampled(sampled(b'D', n), T0 + n * 5 * S);
    }
    assert_eq!(fault(&mut vigil, T0 + 95 * S), None);
    for n in 20..31 {
        vigil.sampled(sampled(b'D', 19), T0 + n * 5 * S);
    }
    assert_eq!(fault(&mut vigil, T0 + 150 * S), None, "since it got on last, at 95 s, it is 55");
    vigil.sampled(sampled(b'D', 19), T0 + 155 * S);
    assert_eq!(fault(&mut vigil, T0 + 155 * S), Some(Fault::Blocked));
    // Two looks far apart say nothing of the time between them.
    vigil.sampled(sampled(b'D', 19), T0 + 300 * S);
    assert_eq!(fault(&mut vigil, T0 + 300 * S), None);
}

#[test]
fn a_run_that_leaves_the_cpu_alone_is_idle_after_a_look_at_the_end() {
    let mut vigil = Vigil::new(
        &spec(heartbeat(Heartbeat { cpu: Some(Millis(20_000)), ..Heartbeat::default() })),
        T0,
        true,
        (T0, 0),
    )
    .unwrap();
    vigil.sampled(sampled(b'S', 10), T0);
    vigil.sampled(sampled(b'S', 20), T0 + 5 * S);
    // We were away for an hour, and it worked.
    assert_eq!(fault(&mut vigil, T0 + 3600 * S), None);
    vigil.sampled(sampled(b'S', 30), T0 + 3600 * S);
    assert_eq!(fault(&mut vigil, T0 + 3600 * S), None);
    vigil.sampled(sampled(b'S', 30), T0 + 3620 * S - 1);
    assert_eq!(fault(&mut vigil, T0 + 3620 * S), None);
    vigil.sampled(sampled(b'S', 30), T0 + 3620 * S);
    assert_eq!(fault(&mut vigil, T0 + 3620 * S), Some(Fault::Idle));
    assert!(vigil.next_us().is_some_and(|at| at > T0 + 3620 * S));
}

#[test]
fn exactly_as_much_as_it_may_is_not_too_much() {
    let limits = Limits { memory: Some(1 << 20), pids: Some(1), cpu: Some(50), ..Limits::default() };
    let mut vigil = Vigil::new(&spec(Watch { limits, ..Watch::default() }), T0, true, (T0, 0)).unwrap();
    let at_limit = Sampled { state: b'S', cpu_us: 0, memory: 1 << 20, tasks: 1 };
    vigil.sampled(Some(at_limit), T0);
    assert_eq!(fault(&mut vigil, T0), None);
    vigil.sampled(Some(Sampled { memory: (1 << 20) + 1, ..at_limit }), T0);
    let (fault_, why) = vigil.judge(T0).fault.unwrap();
    assert_eq!((fault_, why.as_str()), (Fault::Memory, "uses 1.0 MiB of memory, and may use 1.0 MiB"));
    vigil.sampled(Some(Sampled { tasks: 2, ..at_limit }), T0);
    assert_eq!(fault(&mut vigil, T0), Some(Fault::Pids));
    // Half a core is what it may; a whole one for five seconds of thirty is less than that.
    for n in 0..7 {
        let cpu_us = (n * 5 * S).min(5 * S);
        vigil.sampled(Some(Sampled { cpu_us, ..at_limit }), T0 + n * 5 * S);
        assert_eq!(fault(&mut vigil, T0 + n * 5 * S), None, "{n}");
    }
    for n in 7..20 {
        vigil.sampled(Some(Sampled { cpu_us: 5 * S + (n - 6) * 3 * S, ..at_limit }), T0 + n * 5 * S);
    }
    let (fault, why) = vigil.judge(T0 + 100 * S).fault.unwrap();
    assert_eq!((fault, why.as_str()), (Fault::Cpu, "uses 60 % of a core, and may use 50 %"));
}

#[test]
fn what_is_measured_is_allowed_its_error() {
    for (percent, over) in [(800, false), (817, false), (818, true)] {
        let limits = Limits { cpu: Some(800), ..Limits::default() };
        let mut vigil = Vigil::new(&spec(Watch { limits, ..Watch::default() }), T0, true, (T0, 0)).unwrap();
        for n in 0..8 {
            let seen = Sampled { state: b'R', cpu_us: n * 5 * S * percent / 100, memory: 0, tasks: 1 };
            vigil.sampled(Some(seen), T0 + n * 5 * S);
        }
        assert_eq!(fault(&mut vigil, T0 + 40 * S), over.then_some(Fault::Cpu), "{percent}");
    }
}

#[test]
fn who_sets_the_clock_makes_no_file_look_old() {
    let beat = Heartbeat { output: Some(Millis(1000)), notify: Some(Millis(60_000)), ..Heartbeat::default() };
    let mut vigil = vigil(heartbeat(beat));
    vigil.sample = None;
    vigil.clock_was_set(T0 + S);
    assert!(vigil.judge(T0 + S).looks.is_empty(), "it has its time again");
    assert_eq!(vigil.judge(T0 + 2 * S).looks, [Look::Output]);
    vigil.looked(Look::Output, None, T0 + 2 * S);
    assert_eq!(fault(&mut vigil, T0 + 2 * S), Some(Fault::Silent));
    // What comes by the keeper has the clock of the boot, which nobody sets.
    vigil.clock_was_set(T0 + 60 * S);
    vigil.looked(Look::Beat, None, T0 + 60 * S);
    assert_eq!(fault(&mut vigil, T0 + 60 * S), Some(Fault::Watchdog));
}

fn probe(failures: u32, successes: u32) -> Probe {
    let delay = Millis(2000);
    Probe { failures, successes, delay, ..Probe::new(ProbeAsk::Tcp("x:1".to_owned())) }
}

fn no() -> Result<(), String> {
    Err("connection refused".to_owned())
}

#[test]
fn a_probe_is_asked_at_its_times_and_fails_after_so_many() {
    let probe = Probes { liveness: Some(probe(3, 2)), ..Probes::default() };
    let mut vigil = vigil(Watch { probe, ..Watch::default() });
    let mut now = T0 + 2 * S;
    assert_eq!(vigil.next_us(), Some(now));
    for n in 1..=3 {
        assert_eq!(fault(&mut vigil, now), None, "{n}");
        vigil.probed(Role::Liveness, no(), now);
        now += 10 * S;
        assert_eq!(vigil.next_us(), Some(now));
    }
    let judged = vigil.judge(now);
    assert_eq!(judged.looks, [Look::Probe(Role::Liveness)]);
    let why = "liveness probe failed 3 times: connection refused".to_owned();
    assert_eq!(judged.fault, Some((Fault::Liveness, why)));
    vigil.probed(Role::Liveness, Ok(()), now);
    assert_eq!(fault(&mut vigil, now), Some(Fault::Liveness), "one success is not two");
    vigil.probed(Role::Liveness, Ok(()), now);
    assert_eq!(fault(&mut vigil, now), None);
    vigil.probed(Role::Liveness, no(), now);
    vigil.probed(Role::Liveness, Ok(()), now);
    vigil.probed(Role::Liveness, no(), now);
    assert_eq!(fault(&mut vigil, now), None, "not in a row");
}

#[test]
fn a_question_that_could_not_be_asked_is_neither_a_success_nor_a_failure_and_is_asked_again() {
    let probe = Probes { liveness: Some(probe(2, 1)), ..Probes::default() };
    let mut vigil = vigil(Watch { probe, ..Watch::default() });
    let mut now = T0 + 2 * S;
    let mut hear = |answer: Option<Result<(), String>>| {
        let asked = vigil.judge(now);
        assert_eq!(asked.looks, [Look::Probe(Role::Liveness)]);
        match answer {
            Some(answer) => vigil.probed(Role::Liveness, answer, now),
            None => vigil.unasked(Role::Liveness, now),
        }
        now += 10 * S;
        assert_eq!(vigil.next_us(), Some(now));
        asked.fault.is_some()
    };
    let answers = [None, Some(no()), None, None, Some(no()), None, Some(Ok(())), Some(Ok(()))];
    let faults = answers.map(&mut hear);
    assert_eq!(faults, [false, false, false, false, false, true, true, false]);
}

#[test]
fn nothing_else_is_asked_before_the_startup_probe_succeeds() {
    let probes =
        Probes { startup: Some(probe(2, 1)), readiness: Some(probe(1, 1)), liveness: Some(probe(1, 1)) };
    let ready = Some(Ready { by: ReadyBy::Probe, timeout: Millis(90_000) });
    let watch = Watch { probe: probes, ready, ..Watch::default() };
    let mut vigil = Vigil::new(&spec(watch), T0, false, (T0, 0)).unwrap();
    vigil.sample = None;
    let now = T0 + 2 * S;
    assert_eq!(vigil.judge(now).looks, [Look::Probe(Role::Startup)]);
    vigil.probed(Role::Startup, no(), now);
    assert_eq!(fault(&mut vigil, now), None);
    let mut failing = vigil.clone();
    failing.probed(Role::Startup, no(), now);
    assert_eq!(fault(&mut failing, now), Some(Fault::Startup));
    vigil.probed(Role::Startup, Ok(()), now);
    let judged = vigil.judge(now);
    assert_eq!(judged.looks, [Look::Probe(Role::Readiness), Look::Probe(Role::Liveness)]);
    assert!(!judged.ready);
    vigil.probed(Role::Readiness, Ok(()), now);
    assert!(vigil.judge(now).ready);
    vigil.is_ready(now);
    assert!(!vigil.judge(now).ready, "it is said once");
    assert_eq!(vigil.unready(), None);
    vigil.probed(Role::Readiness, no(), now);
    assert_eq!(vigil.unready().as_deref(), Some("readiness probe failed once: connection refused"));
    assert_eq!(fault(&mut vigil, now), None, "it lives, it only cannot be used");
}

#[test]
fn many_runs_are_not_asked_at_once() {
    let spec = spec(Watch {
        probe: Probes { liveness: Some(probe(1, 1)), ..Probes::default() },
        ..Watch::default()
    });
    let next = |salt: u64| {
        let mut vigil = Vigil::new(&spec, T0, true, (T0, salt)).unwrap();
        vigil.sample = None;
        vigil.judge(T0 + 2 * S);
        vigil.probed(Role::Liveness, Ok(()), T0 + 2 * S);
        vigil.next_us().unwrap()
    };
    let all: std::collections::BTreeSet<u64> = (0..100).map(|n| next(n * 7_919_317)).collect();
    assert!(all.len() > 90 && all.iter().all(|at| (T0 + 12 * S..T0 + 13 * S).contains(at)), "{}", all.len());
}

#[test]
fn a_line_that_says_ready_is_looked_for_until_it_is_there() {
    let ready = Some(Ready { by: ReadyBy::Log("up".to_owned()), timeout: Millis(90_000) });
    let mut vigil = Vigil::new(&spec(Watch { ready, ..Watch::default() }), T0, false, (T0, 0)).unwrap();
    assert_eq!(vigil.judge(T0).looks, [Look::Log]);
    assert_eq!(vigil.next_us(), None);
    vigil.looked(Look::Log, None, T0 + 3);
    assert_eq!(vigil.next_us(), Some(T0 + 3 + LOG_US));
    vigil.is_ready(T0 + S);
    assert_eq!(vigil.next_us(), None);
}

#[test]
fn a_sign_that_is_missing_is_looked_into_and_a_stop_is_what_is_wrong_then() {
    for (state, fault) in [(b'S', Fault::Watchdog), (b'T', Fault::Stopped)] {
        let watch = heartbeat(Heartbeat { notify: Some(Millis(1000)), ..Heartbeat::default() });
        let mut vigil = Vigil::new(&spec(watch), T0, true, (T0, 0)).unwrap();
        vigil.judge(T0);
        vigil.sampled(sampled(b'S', 1), T0);
        assert_eq!(vigil.next_us(), Some(T0 + S));
        assert_eq!(vigil.judge(T0 + S).looks, [Look::Beat], "who is well is not looked at because it is due");
        vigil.looked(Look::Beat, None, T0 + S + 1);
        let judged = vigil.judge(T0 + S + 1);
        assert_eq!((judged.looks, judged.fault), (vec![Look::Sample], None));
        assert_eq!(vigil.judge(T0 + S + 1), Judgement::default(), "its processes are being looked at");
        vigil.sampled(sampled(state, 1), T0 + S + 2);
        let found = vigil.judge(T0 + S + 2).fault.unwrap();
        assert_eq!(found.0, fault);
        assert!(found.1.starts_with("no WATCHDOG=1 for 1s"), "{found:?}");
    }
}

#[test]
fn a_silence_while_nobody_watched_does_not_count() {
    let beat = Heartbeat { notify: Some(Millis(1000)), output: Some(Millis(5000)), ..Heartbeat::default() };
    let watch =
        Watch { max_runtime: Some(Millis(10_000)), progress_timeout: Some(Millis(1000)), ..heartbeat(beat) };
    let mut vigil = Vigil::new(&spec(watch), T0, true, (T0, 0)).unwrap();
    vigil.judge(T0);
    vigil.sampled(sampled(b'T', 1), T0);
    // The host sleeps for an hour.
    let now = T0 + 3600 * S;
    vigil.away(3599 * S, now);
    let judged = vigil.judge(now);
    assert_eq!((judged.fault, judged.looks), (None, vec![Look::Sample]));
    vigil.sample = None;
    assert_eq!(fault(&mut vigil, now + S - 1), None);
    assert_eq!(fault(&mut vigil, now + S), Some(Fault::NoProgress));
    vigil.progress(now + 8 * S, now + 8 * S);
    assert_eq!(fault(&mut vigil, now + 9 * S - 1), None, "nor does it count as time it took");
    assert_eq!(fault(&mut vigil, now + 9 * S), Some(Fault::MaxRuntime));
}

//! Metrics are what Prometheus can read, and say what status and stats say.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Daemon, job, skip, until};
use crate::stats::four_fates;

/// The samples of a page: name and labels as they are written, and the value.
pub type Samples = BTreeMap<String, f64>;

/// Reads a page as strictly as the format is written: what is not allowed is a panic.
fn parse(page: &str) -> Samples {
    let name = |text: &str| {
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !text.is_empty() && text.chars().all(ok) && !text.starts_with(|c: char| c.is_ascii_digit())
    };
    assert!(page.ends_with('\n'), "the last line has no end");
    let (mut samples, mut seen, mut now) = (Samples::new(), BTreeSet::new(), (String::new(), String::new()));
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (metric, text) = help.split_once(' ').unwrap();
            assert!(name(metric) && text.ends_with('.'), "{line}");
            assert!(seen.insert(metric.to_owned()), "{metric} twice");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {metric} ")).unwrap();
            assert!(["gauge", "counter", "histogram", "summary"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", metric.ends_with("_total"), "{metric} is a {kind}");
            now = (metric.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(now.1 != "counter" || value >= 0.0, "{line}");
        let (metric, labels) = series.split_once('{').unwrap_or((series, "}"));
        let parts = ["_bucket", "_sum", "_count"];
        let of = if now.1 == "histogram" {
            parts
                .iter()
                .find_map(|part| metric.strip_suffix(part))
                .unwrap_or_else(|| panic!("no part: {line}"))
        } else {
            metric
        };
        assert_eq!(of, now.0, "a sample in the wrong place");
        if metric != of && metric.ends_with("_bucket") {
            buckets.entry(now.0.clone()).or_default().push((le(labels), value));
        }
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no end: {line}"));
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (label, text) = label.split_once("=\"").unwrap();
            assert!(name(label) && !text.contains('\n'), "{line}");
            assert!(label != "quantile" || now.1 == "summary", "{line}");
        }
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {series}");
    }
    for (metric, buckets) in buckets {
        check_histogram(&metric, &buckets, &samples);
    }
    samples
}

/// The bound of a bucket.
fn le(labels: &str) -> f64 {
    let bound = labels.strip_prefix("le=\"").and_then(|rest| rest.split('"').next());
    match bound.unwrap_or_else(|| panic!("a bucket without a bound: {labels}")) {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().unwrap(),
    }
}

/// Bounds grow, each bucket holds those before it, the last one has no bound and holds all.
fn check_histogram(metric: &str, buckets: &[(f64, f64)], samples: &Samples) {
    for pair in buckets.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{metric}: the bounds are not in order: {buckets:?}");
        assert!(pair[0].1 <= pair[1].1, "{metric}: the buckets are not cumulative: {buckets:?}");
    }
    let (bound, all) = *buckets.last().unwrap();
    assert!(bound.is_infinite() && all == samples[&format!("{metric}_count")], "{metric}: {buckets:?}");
    assert!(samples[&format!("{metric}_sum")] >= 0.0);
}

pub fn metrics(daemon: &Daemon) -> Samples {
    let reply = daemon.get("/metrics").unwrap();
    assert_eq!(reply.code, 200);
    let kind = reply.headers.iter().find(|(name, _)| name == "content-type").unwrap();
    assert!(kind.1.starts_with("text/plain; version=0.0.4"), "{kind:?}");
    parse(&reply.text())
}

#[test]
fn metrics_say_what_status_and_stats_say() {
    let (mut daemon, _) = four_fates();
    let now = metrics(&daemon);
    let is = |series: &str| *now.get(series).unwrap_or_else(|| panic!("no {series}"));
    assert_eq!(is(r#"outlive_instance_state{state="running"}"#), 1.0);
    assert_eq!(is(r#"outlive_instance_state{state="read_only"}"#), 0.0);
    assert_eq!(is("outlive_ready"), 1.0);
    assert_eq!(is("outlive_supervisor_starts_total"), 1.0);
    for (state, n) in [("running", 1.0), ("fatal", 1.0), ("exited", 1.0), ("stopped", 1.0), ("held", 0.0)] {
        assert_eq!(is(&format!("outlive_jobs{{state=\"{state}\"}}")), n, "{state}");
    }
    assert_eq!(is(r#"outlive_job_up{job="steady"}"#), 1.0);
    assert_eq!(is(r#"outlive_job_up{job="failing"}"#), 0.0);
    assert_eq!(is(r#"outlive_job_wanted{job="never"}"#), 0.0);
    assert_eq!(is(r#"outlive_job_state{job="failing",state="fatal"}"#), 1.0);
    assert_eq!(is(r#"outlive_job_starts_total{job="failing"}"#), 3.0);
    assert_eq!(is(r#"outlive_job_exits_total{job="failing",cause="failed"}"#), 3.0);
    assert_eq!(is(r#"outlive_job_exits_total{job="once",cause="ok"}"#), 1.0);
    assert!(is(r#"outlive_job_restart_time_seconds{job="failing",quantile="0.5"}"#) >= 0.01);
    assert!(is(r#"outlive_job_max_resident_memory_bytes{job="failing"}"#) > 0.0);
    for role in ["init", "keeper", "supervisor"] {
        assert!(is(&format!("outlive_process_resident_memory_bytes{{role=\"{role}\"}}")) > 100_000.0);
        assert!(is(&format!("outlive_process_open_fds{{role=\"{role}\"}}")) > 2.0);
    }
    let uptime = |now: &Samples| now[r#"outlive_job_uptime_seconds_total{job="steady"}"#];
    let later = until("the live run to be counted", || {
        Some(metrics(&daemon)).filter(|later| uptime(later) > uptime(&now))
    });

    // What is counted goes on, whoever dies.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let after = metrics(&daemon);
    assert_eq!(after["outlive_supervisor_starts_total"], 2.0);
    for (series, before) in later.iter().filter(|(series, _)| series.starts_with("outlive_job_")) {
        let (name, _) = series.split_once('{').unwrap();
        let now = after.get(series).unwrap_or_else(|| panic!("{series} is gone"));
        assert!(!name.ends_with("_total") || now >= before, "{series}: {now} after {before}");
    }
    assert!(after["outlive_journal_entries_total"] > later["outlive_journal_entries_total"]);
}

/// Names of metrics in a text, with the labels that are asked for by them.
fn asked_for(text: &str) -> BTreeSet<(String, Vec<String>)> {
    let end = |text: &str| text.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(text.len());
    text.match_indices("outlive_")
        .map(|(at, _)| {
            let name = &text[at..at + end(&text[at..])];
            let behind = &text[at + name.len()..];
            let selector = behind.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |s| s.0);
            let labels = selector.split(',').filter_map(|matcher| matcher.split_once(['=', '!']));
            (name.to_owned(), labels.map(|(label, _)| label.trim().to_owned()).collect())
        })
        .collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let again = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 2 }";
    let config = [job("failing", "exit 3", again), job("steady", "hang", "")].concat();
    let daemon = Daemon::start(&config);
    daemon.wait_state("failing", "fatal");
    let (_, run) = daemon.wait_running("steady");
    daemon.post(&format!("/v1/runs/{run}/progress"), &serde_json::json!({ "progress": 40 }));
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let page = until("the progress and the alert", || {
        let page = daemon.get("/metrics").unwrap().text();
        let there =
            ["outlive_job_progress_ratio{", "outlive_alert{"].iter().all(|metric| page.contains(metric));
        there.then_some(page)
    });
    let samples = parse(&page);
    for file in ["prometheus/outlive.rules.yml", "grafana/outlive.json"] {
        let text = std::fs::read_to_string(format!("{root}/packaging/{file}")).unwrap();
        let text = text.replace("\\\"", "\"");
        let asked = asked_for(&text);
        assert!(asked.len() > 5, "{asked:?}");
        for (name, labels) in asked {
            let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
            let is = |kind: &str, name: &str| page.contains(&format!("# TYPE {name} {kind}"));
            let known = is("", &name) || parts.into_iter().any(|name| is("histogram", name));
            assert!(known, "{file}: there is no {name}");
            // Prometheus itself adds where a sample came from.
            for label in labels.iter().filter(|label| *label != "instance") {
                let has = |series: &String| {
                    series.starts_with(&format!("{name}{{")) && series.contains(&format!("{label}=\""))
                };
                assert!(samples.keys().any(has), "{file}: {name} has no label {label}");
            }
        }
    }
    let dashboard = std::fs::read_to_string(format!("{root}/packaging/grafana/outlive.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 8);
}

#[test]
fn the_checker_of_prometheus_finds_nothing_to_say() {
    use std::process::{Command, Stdio};
    let tool = |arguments: &[&str]| {
        let mut tool = Command::new("promtool");
        tool.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tool.spawn()
    };
    let Ok(mut checker) = tool(&["check", "metrics"]) else { return skip("there is no promtool here") };
    let (daemon, _) = four_fates();
    let page = daemon.get("/metrics").unwrap().text();
    std::io::Write::write_all(&mut checker.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let said = checker.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}");
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus/outlive.rules.yml");
    let said = tool(&["check", "rules", rules]).unwrap().wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

//! What is said about settings that could never have an effect, and about addresses that nobody can be asked at.

use super::*;

fn errors(lines: &str) -> Vec<String> {
    Dir::new(&[("outlive.toml", &format!("[job.a]\ncommand = \"x\"\n{lines}\n"))]).errors()
}

#[test]
fn a_time_to_wait_beside_that_of_a_continue_is_an_error() {
    let wrong =
        "3:33: job.a.on_frozen[0].wait: the time of `continue` is how long it waits; leave `wait` out";
    let found = errors("on_frozen = [{ continue = \"2s\", wait = \"5s\" }]");
    assert_eq!(found, [format!("outlive.toml:{wrong}")]);
}

#[test]
fn what_is_done_about_a_limit_needs_one() {
    let wrong = "3:12: job.a.limits.on_exceed: there is no limit to exceed; write limits = { memory = \"512MB\", on_exceed = … }";
    assert_eq!(errors("limits = { on_exceed = \"stop\" }"), [format!("outlive.toml:{wrong}")]);
    assert_eq!(errors("limits = { on_exceed = \"stop\", memry = \"1GB\" }").len(), 1);
    good("[defaults]\nlimits.on_exceed = \"stop\"\n[job.a]\ncommand = \"x\"\n");
    good("[defaults]\nlimits.pids = 5\n[job.a]\ncommand = \"x\"\nlimits.on_exceed = \"stop\"\n");
}

#[test]
fn what_is_not_captured_can_be_no_sign() {
    let none = "output.mode = \"none\"\n";
    let wrong = |key: &str| {
        let at = format!("outlive.toml:4:{}: job.a.{key}", key.len() + 4);
        [format!("{at}: no output is captured; leave out `output.mode = \"none\"`")]
    };
    assert_eq!(errors(&format!("{none}heartbeat = {{ output = \"5s\" }}")), wrong("heartbeat"));
    assert_eq!(errors(&format!("{none}ready = {{ log = \"up\" }}")), wrong("ready"));
    assert_eq!(errors(&format!("{none}heartbeat = {{ cpu = \"5s\" }}\nready = {{ fd = 3 }}")), [""; 0]);
}

#[test]
fn lines_are_looked_for_by_what_people_write() {
    for expression in [r"port \d+$", r"(?i)\bready\b", r"^\w+\s+up", "größe"] {
        assert_eq!(errors(&format!("ready = {{ log = '{expression}' }}")), [""; 0], "{expression}");
    }
}

#[test]
fn an_address_has_a_port_that_there_is_or_none() {
    let probe = |address: &str| errors(&format!("probe.liveness = {{ http = \"{address}\" }}"));
    for address in ["h:80800/x", "h:0", "h:", "h:eighty?a:1", "[::1]:80800", "me:secret@h:65536/"] {
        let wrong = "3:27: job.a.probe.liveness.http: the port is not a number from 1 to 65535; write \"http://127.0.0.1:8080/health\"";
        assert_eq!(probe(&format!("http://{address}")), [format!("outlive.toml:{wrong}")], "{address}");
    }
    for address in ["h", "h:65535/x:0", "[::1]", "[::1]:80/", "me:secret@h/", "h?at=1:0"] {
        assert_eq!(probe(&format!("http://{address}")), [""; 0], "{address}");
    }
    assert!(probe("http:///x")[0].contains("not an http:// address"));
}

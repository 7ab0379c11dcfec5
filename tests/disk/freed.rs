//! A disk that fills up with the output of ended runs.

use std::collections::BTreeSet;

use super::common::{Daemon, job, until};
use super::machine::{Disk, in_own_mounts};
use super::site::STATE;

/// Room is made until there is enough and no further: the oldest runs go, and what is left are the newest.
#[test]
fn ended_runs_go_from_the_oldest_on_until_there_is_room() {
    in_own_mounts(|| {
        let again = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 12 }";
        let health = "[health]\ninterval = \"50ms\"\nheal_after = 2\nmemory = \"off\"\ndisk = \"DISK\"\n\
            inodes = \"off\"\nopen_files = \"off\"\npids = \"off\"\non_disk = [\"expire\"]\n";
        let config =
            |disk: &str| format!("{}{}", health.replace("DISK", disk), job("many", "flood 300000", again));
        let mut daemon = Daemon::prepare(&config("off"));
        daemon.state = STATE;
        let Some(_disk) = Disk::tmpfs(&mut daemon, "disk", "8m") else { return };
        daemon.up();
        daemon.wait_state("many", "fatal");
        let mut all: Vec<String> = daemon
            .events_of("run.requested", "many")
            .iter()
            .map(|event| event["run"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        let name = format!("disk:{}", daemon.state_dir().display());
        let check = || {
            let health = daemon.get("/v1/health")?.json();
            let checks = health["checks"].as_array()?.clone();
            checks.into_iter().find(|check| check["name"] == name.as_str() && check["percent"].is_number())
        };
        // So much is in use that half of the runs have to go.
        daemon.write_config(&config("99%"));
        daemon.cli(["reload"]).expect(0);
        let used = until("a look at the disk", check)["percent"].as_f64().unwrap();
        let limit = used - 20.0;
        daemon.write_config(&config(&format!("{limit:.0}%")));
        daemon.cli(["reload"]).expect(0);
        until("room", || {
            let check = check()?;
            let there = check["limit"].as_f64()? < used && check["state"] == "ok";
            (there && check["percent"].as_f64()? <= limit).then_some(())
        });
        let left: BTreeSet<String> = std::fs::read_dir(daemon.state_dir().join("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let newest: BTreeSet<String> = all.iter().skip(all.len() - left.len()).cloned().collect();
        assert_eq!(left, newest);
        assert!((2..all.len()).contains(&left.len()), "{left:?}");
        assert_eq!(daemon.raw("many", None).len(), 300_000);
    });
}

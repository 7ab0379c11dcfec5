//! Samples for the tests of the verbs, and the command line as a whole.

use super::*;
use crate::core::ids::JobName;
use crate::core::spec::Kind;
use crate::wire::control::{
    Instance, InstanceState, JobStatus, OutcomeView, Role, Roles, StateWord, WantWord,
};

pub(crate) fn instance() -> Instance {
    let role = |pid| Role { pid: Some(pid) };
    Instance {
        version: "0.1.0".to_owned(),
        state: InstanceState::Running,
        roles: Roles { init: role(1), keeper: role(2), supervisor: role(3) },
        since: "1970-01-01T00:00:00.000Z".to_owned(),
        generation: 4,
        state_dir: "/s".to_owned(),
        config: None,
        config_changed: false,
        degraded: Vec::new(),
    }
}

pub(crate) fn job(name: &str, state: StateWord) -> JobStatus {
    JobStatus {
        name: JobName::new(name).unwrap(),
        kind: Kind::Service,
        state,
        want: WantWord::Up,
        pid: None,
        run: None,
        restarts: 0,
        since: "1970-01-01T00:00:00.000Z".to_owned(),
        outcome: None,
        reason: String::new(),
        adopted: false,
        next_try: None,
        depends_on: Vec::new(),
        command: vec!["true".to_owned()],
    }
}

pub(crate) fn outcome_view(kind: &str, code: Option<i32>) -> OutcomeView {
    OutcomeView {
        kind: kind.to_owned(),
        code,
        signal: None,
        core: None,
        step: None,
        errno: None,
        why: None,
        asked: None,
        at: None,
        text: code.map_or_else(|| kind.to_owned(), |code| format!("exit {code}")),
    }
}

//! From settings to a launch in which nothing is left to choose.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::core::ids::RunId;
use crate::core::spec::JobSpec;
use crate::core::watch::OnExceed;
use crate::wire::keeper::{GroupLimits, Launch, Listen, UserIds};

/// Variables that speak about our own relation to whoever started us; a job must not take them as its own.
const NOT_INHERITED: [&str; 13] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "OUTLIVE_HELPER",
    "OUTLIVE_PID",
    "OUTLIVE_RESUME_TOKEN",
    "OUTLIVE_HOOK",
    "OUTLIVE_OUTCOME",
    "OUTLIVE_EXIT_CODE",
    "OUTLIVE_WHY",
];

/// Why a job cannot be launched, as a step and an error number for its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CannotLaunch {
    pub(super) step: String,
    pub(super) errno: i32,
}

/// A user as `/etc/passwd` and `/etc/group` know it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    ids: UserIds,
    name: Option<String>,
    home: Option<String>,
    shell: Option<String>,
}

/// Builds the launch of a run.
pub(super) fn launch(
    run: RunId,
    attempt: u64,
    spec: &JobSpec,
    (socket, resume): (&Path, Option<&str>),
) -> Result<Launch, CannotLaunch> {
    Ok(Launch {
        run,
        job: spec.name.clone(),
        attempt,
        argv: arguments(spec, resume),
        env: environment(run, attempt, spec, (socket, resume)),
        cwd: spec.cwd.clone().unwrap_or_else(|| "/".to_owned()),
        user: user(spec)?,
        umask: spec.umask,
        rlimits: spec.rlimits.iter().map(|(name, limit)| (name.clone(), *limit)).collect(),
        nice: spec.nice,
        oom_score_adj: spec.oom_score_adj,
        stdin: spec.stdin.clone(),
        output: spec.output.clone(),
        on_supervisor_death: spec.on_supervisor_death,
        listen: listen(spec),
        limits: group_limits(spec),
    })
}

/// Who the runs of a job are, if that is configured.
pub(super) fn user(spec: &JobSpec) -> Result<Option<UserIds>, CannotLaunch> {
    match (&spec.user, &spec.group) {
        (None, None) => Ok(None),
        _ => user_of(spec).map(|user| Some(user.ids)),
    }
}

/// What the kernel is to hold a run to. Only where that is what would be done about it anyway: who is only to be
/// told of it must be able to use more.
pub(super) fn group_limits(spec: &JobSpec) -> GroupLimits {
    match spec.watch.as_ref().map(|watch| &watch.limits) {
        Some(limits) if limits.on_exceed == OnExceed::Restart => {
            GroupLimits { memory: limits.memory, pids: limits.pids.map(u64::from), cpu_percent: limits.cpu }
        }
        Some(_) | None => GroupLimits::default(),
    }
}

/// By which way a run may tell things.
fn listen(spec: &JobSpec) -> Listen {
    let watch = spec.watch.as_ref();
    Listen {
        notify: watch.is_some_and(|watch| watch.listens()),
        ready_fd: watch.and_then(|watch| watch.ready_fd()),
    }
}

/// The arguments of a run. The token is one of them, or part of one, whatever is in it: nothing splits it.
fn arguments(spec: &JobSpec, resume: Option<&str>) -> Vec<String> {
    match (&spec.resume_command, resume) {
        (Some(command), Some(token)) => command.iter().map(|arg| arg.replace("{token}", token)).collect(),
        _ => spec.command.clone(),
    }
}

/// The environment of a job: what is inherited, what its user implies, what is configured, what we say.
pub(super) fn variables(spec: &JobSpec) -> BTreeMap<OsString, OsString> {
    let user = spec.user.as_ref().and_then(|_| user_of(spec).ok());
    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, _)| {
            let wanted =
                spec.inherit_env.as_ref().is_none_or(|names| names.iter().any(|n| name == n.as_str()));
            wanted && !NOT_INHERITED.iter().any(|n| name == n)
        })
        .collect();
    if let Some(user) = user {
        let pairs =
            [("HOME", &user.home), ("SHELL", &user.shell), ("USER", &user.name), ("LOGNAME", &user.name)];
        for (name, value) in pairs {
            if let Some(value) = value {
                env.insert(name.into(), value.into());
            }
        }
    }
    env.extend(spec.env.iter().map(|(name, value)| (name.into(), value.into())));
    env
}

fn environment(
    run: RunId,
    attempt: u64,
    spec: &JobSpec,
    (socket, resume): (&Path, Option<&str>),
) -> Vec<Vec<u8>> {
    let mut env = variables(spec);
    env.insert("OUTLIVE_JOB".into(), spec.name.as_str().into());
    env.insert("OUTLIVE_RUN_ID".into(), run.to_string().into());
    env.insert("OUTLIVE_ATTEMPT".into(), attempt.to_string().into());
    env.insert("OUTLIVE_SOCKET".into(), socket.into());
    let watchdog = spec.watch.as_ref().and_then(|watch| watch.heartbeat.notify);
    if let Some(watchdog) = watchdog {
        env.insert("WATCHDOG_USEC".into(), watchdog.0.saturating_mul(1000).to_string().into());
    }
    if let Some(token) = resume {
        env.insert("OUTLIVE_RESUME_TOKEN".into(), token.into());
    }
    env.into_iter()
        .map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend_from_slice(value.as_bytes());
            entry
        })
        .collect()
}

fn cannot(step: &str, errno: i32) -> CannotLaunch {
    CannotLaunch { step: step.to_owned(), errno }
}

/// Resolves user and group by name or number. Accounts from elsewhere than the two files are given by
/// number.
fn user_of(spec: &JobSpec) -> Result<User, CannotLaunch> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    resolve(spec.user.as_deref(), spec.group.as_deref(), &passwd, &groups)
}

fn resolve(
    user: Option<&str>,
    group: Option<&str>,
    passwd: &str,
    groups: &str,
) -> Result<User, CannotLaunch> {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut found = User {
        ids: UserIds { uid: own.0, gid: own.1, groups: Vec::new() },
        name: None,
        home: None,
        shell: None,
    };
    if let Some(user) = user {
        let number = user.parse::<u32>().ok();
        let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
            fields.len() >= 7 && (fields[0] == user || (number.is_some() && fields[2].parse().ok() == number))
        });
        match (entry, number) {
            (Some(fields), _) => {
                found.ids.uid = fields[2].parse().map_err(|_| cannot("user", libc::EINVAL))?;
                found.ids.gid = fields[3].parse().map_err(|_| cannot("user", libc::EINVAL))?;
                found.name = Some(fields[0].to_owned());
                found.home = Some(fields[5].to_owned());
                found.shell = Some(fields[6].to_owned()).filter(|shell| !shell.is_empty());
            }
            (None, Some(number)) => {
                found.ids.uid = number;
                found.ids.gid = number;
            }
            (None, None) => return Err(cannot("user", libc::ENOENT)),
        }
    }
    if let Some(group) = group {
        found.ids.gid = match group.parse() {
            Ok(number) => number,
            Err(_) => group_lines(groups)
                .find(|(name, _, _)| *name == group)
                .map(|(_, gid, _)| gid)
                .ok_or_else(|| cannot("group", libc::ENOENT))?,
        };
    }
    if let Some(name) = &found.name {
        found.ids.groups = group_lines(groups)
            .filter(|(_, _, members)| members.split(',').any(|member| member == name))
            .map(|(_, gid, _)| gid)
            .collect();
    }
    if !found.ids.groups.contains(&found.ids.gid) {
        found.ids.groups.push(found.ids.gid);
    }
    Ok(found)
}

/// A group's number, by name or number.
pub(super) fn group_id(group: &str) -> Result<u32, String> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let by_name = || group_lines(&groups).find(|(name, _, _)| *name == group).map(|(_, gid, _)| gid);
    group.parse().ok().or_else(by_name).ok_or_else(|| format!("unknown group {group}"))
}

fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nweb:x:33:34:web:/srv/web:/bin/sh\nbad:x\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:40:root,web\n";

    #[test]
    fn a_run_that_goes_on_has_arguments_of_its_own_and_the_token_is_never_split() {
        let mut spec = JobSpec::new(crate::core::ids::JobName::new("a").unwrap(), vec!["work".to_owned()]);
        assert_eq!(arguments(&spec, Some("t")), ["work"]);
        let resume = ["work", "--from={token}", "{token}", "--quietly"];
        spec.resume_command = Some(resume.map(str::to_owned).into());
        assert_eq!(arguments(&spec, None), ["work"]);
        let token = "a b'; rm -rf {token} $HOME";
        let wanted = ["work", &format!("--from={token}"), token, "--quietly"];
        assert_eq!(arguments(&spec, Some(token)), wanted);
    }

    #[test]
    fn a_user_by_name_has_its_groups_home_and_shell() {
        let user = resolve(Some("web"), None, PASSWD, GROUP).unwrap();
        assert_eq!(user.ids, UserIds { uid: 33, gid: 34, groups: vec![40, 34] });
        assert_eq!((user.home.as_deref(), user.shell.as_deref()), (Some("/srv/web"), Some("/bin/sh")));
    }

    #[test]
    fn a_number_needs_no_entry_and_a_group_overrides_the_primary_one() {
        let user = resolve(Some("12345"), Some("logs"), PASSWD, GROUP).unwrap();
        assert_eq!(user.ids, UserIds { uid: 12345, gid: 40, groups: vec![40] });
        assert_eq!(resolve(Some("33"), None, PASSWD, GROUP).unwrap().name.as_deref(), Some("web"));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(resolve(Some("nobody-here"), None, PASSWD, GROUP).unwrap_err().step, "user");
        assert_eq!(resolve(None, Some("nogroup-here"), PASSWD, GROUP).unwrap_err().step, "group");
        assert_eq!(resolve(Some("bad"), None, PASSWD, GROUP).unwrap_err().step, "user");
    }
}

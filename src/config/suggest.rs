//! What somebody may have meant.

use super::job::JOB_KEYS;

/// The candidate nearest to `word` by edit distance, if it is near enough to be a slip of the finger.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.to_lowercase().chars().take(64).collect();
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?" for the nearest candidate.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|c| format!("did you mean `{c}`?"))
}

/// Keys that other supervisors have, and where the same is said here.
const ELSEWHERE: [(&str, &str); 30] = [
    ("after", "depends_on"),
    ("args", "command"),
    ("autorestart", "restart"),
    ("cmd", "command"),
    ("directory", "cwd"),
    ("environment", "env"),
    ("environment_file", "env_file"),
    ("exec", "command"),
    ("exitcodes", "success_codes"),
    ("killasgroup", "kill_scope"),
    ("limits", "rlimits"),
    ("log", "output"),
    ("logfile", "output"),
    ("numprocs", "instances"),
    ("program", "job"),
    ("redirect_stderr", "output"),
    ("replicas", "instances"),
    ("requires", "depends_on"),
    ("run", "command"),
    ("service", "job"),
    ("startretries", "start_limit"),
    ("startsecs", "start_grace"),
    ("stderr_logfile", "output"),
    ("stdout_logfile", "output"),
    ("stop_signal", "stop"),
    ("stop_timeout", "stop"),
    ("stopasgroup", "kill_scope"),
    ("stopsignal", "stop"),
    ("stopwaitsecs", "stop"),
    ("working_directory", "cwd"),
];

/// What to write instead of the unknown key `word` where `known` keys are allowed.
pub(super) fn for_key(word: &str, known: &[&str]) -> Option<String> {
    let translated = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours);
    match translated.filter(|ours| known.contains(ours)) {
        Some("stop") => {
            Some("did you mean `stop`, as in `stop = { signal = \"TERM\", timeout = \"10s\" }`?".into())
        }
        Some(ours) => Some(format!("did you mean `{ours}`?")),
        None if JOB_KEYS.contains(&word) => {
            let why = "what follows the header of a table belongs to that table";
            Some(format!("`{word}` is a key of [job.NAME], and {why}"))
        }
        None => did_you_mean(word, known.iter().copied()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_far_off() {
        let keys = ["command", "cwd", "env", "env_file", "restart", "stop"];
        for (word, meant) in [
            ("comand", Some("command")),
            ("Command", Some("command")),
            ("ocmmand", Some("command")),
            ("cdw", Some("cwd")),
            ("envfile", Some("env_file")),
            ("sotp", Some("stop")),
            ("colour", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, keys), meant, "{word}");
        }
    }

    #[test]
    fn translates_from_other_supervisors_where_the_key_is_allowed() {
        assert_eq!(for_key("numprocs", &["instances"]).as_deref(), Some("did you mean `instances`?"));
        assert_eq!(for_key("numprocs", &["command"]), None);
        assert!(for_key("stop_timeout", &["stop", "start_grace"]).is_some_and(|s| s.contains("`stop`")));
    }
}

//! The JSON schema of `outlive.toml`, for editors: completion, descriptions and red lines while typing. The
//! reader does not use it; tests hold the two together.

use serde_json::Value;

/// The JSON Schema (draft 2020-12) of `outlive.toml`.
#[must_use]
pub fn schema() -> Value {
    serde_json::from_str(include_str!("outlive.schema.json")).expect("the file is JSON: a test reads it")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::super::groups::GROUP_KEYS;
    use super::super::job::{
        ACT_KEYS, BACKOFF_KEYS, BEAT_FILE_KEYS, BREAKER_KEYS, CHECK_KEYS, DEFAULTS_KEYS, FROZEN_KEYS,
        HEALTH_KEYS, HEARTBEAT_KEYS, HOOK_KEYS, HOOKS, JOB_KEYS, LIMIT_KEYS, OUTPUT_KEYS, PROBE_KEYS,
        PROBE_ROLES, READY_KEYS, RLIMITS, START_LIMIT_KEYS, STOP_KEYS,
    };
    use super::super::load::MAIN_KEYS;
    use super::super::queues::QUEUE_KEYS;
    use super::super::settings::SUPERVISOR_KEYS;
    use super::super::tests::{EVERY_KEY, examples, good};
    use super::*;

    /// Follows `$ref` within the schema.
    fn follow<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(path) => {
                let target = root.pointer(path.trim_start_matches('#'));
                follow(root, target.unwrap_or_else(|| panic!("{path} is not there")))
            }
            None => schema,
        }
    }

    /// The part of the language that our schema is written in, patterns aside.
    fn valid(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = follow(root, schema);
        let no = |why: &str| Err(format!("{value}: {why}"));
        let list = |key: &str| schema.get(key).and_then(Value::as_array);
        let passing = |of: &Vec<Value>| of.iter().filter(|s| valid(root, s, value).is_ok()).count();
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let is = |t: &str| match t {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            other => panic!("unknown type {other}"),
        };
        if !types.is_empty() && !types.iter().any(|t| is(t)) {
            return no(&format!("is not {types:?}"));
        }
        if list("enum").is_some_and(|words| !words.contains(value)) {
            return no("is not one of the words");
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return no("is not the word");
        }
        if list("anyOf").is_some_and(|of| passing(of) == 0)
            || list("oneOf").is_some_and(|of| passing(of) != 1)
        {
            return no("fits no form");
        }
        if schema.get("not").is_some_and(|not| valid(root, not, value).is_ok()) {
            return no("has what it may not have");
        }
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let number = value.as_f64();
        if number.is_some_and(|n| n < bound("minimum").unwrap_or(n) || n > bound("maximum").unwrap_or(n)) {
            return no("is out of range");
        }
        for name in list("required").into_iter().flatten().filter_map(Value::as_str) {
            if value.get(name).is_none() {
                return no(&format!("lacks {name}"));
            }
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(property), _) => valid(root, property, inner)?,
                (None, Some(Value::Bool(false))) => return no(&format!("may not have {name}")),
                (None, Some(property)) => valid(root, property, inner)?,
                (None, None) => {}
            }
        }
        match schema.get("items") {
            Some(items) => value.as_array().into_iter().flatten().try_for_each(|v| valid(root, items, v)),
            None => Ok(()),
        }
    }

    fn check(text: &str) -> Result<(), String> {
        let value: Value = toml::from_str(text).unwrap();
        valid(&schema(), &schema(), &value)
    }

    #[test]
    fn the_schema_and_the_reader_know_the_same_keys() {
        let root = schema();
        for (path, keys) in [
            ("", MAIN_KEYS),
            ("/$defs/supervisor", SUPERVISOR_KEYS),
            ("/$defs/health", HEALTH_KEYS),
            ("/$defs/health_check", CHECK_KEYS),
            ("/$defs/heal_act", ACT_KEYS),
            ("/$defs/defaults", DEFAULTS_KEYS),
            ("/$defs/group", GROUP_KEYS),
            ("/$defs/queue", QUEUE_KEYS),
            ("/$defs/job/properties/hooks", HOOKS),
            ("/$defs/hook", HOOK_KEYS),
            ("/$defs/job", JOB_KEYS),
            ("/$defs/job/properties/backoff", BACKOFF_KEYS),
            ("/$defs/job/properties/start_limit", START_LIMIT_KEYS),
            ("/$defs/breaker", BREAKER_KEYS),
            ("/$defs/job/properties/output", OUTPUT_KEYS),
            ("/$defs/job/properties/rlimits", RLIMITS),
            ("/$defs/stop_step", STOP_KEYS),
            ("/$defs/job/properties/heartbeat", HEARTBEAT_KEYS),
            ("/$defs/job/properties/heartbeat/properties/file", BEAT_FILE_KEYS),
            ("/$defs/job/properties/probe", PROBE_ROLES),
            ("/$defs/probe", PROBE_KEYS),
            ("/$defs/job/properties/ready", READY_KEYS),
            ("/$defs/job/properties/limits", LIMIT_KEYS),
            ("/$defs/frozen_step", FROZEN_KEYS),
        ] {
            let object = root.pointer(path).unwrap();
            let found: BTreeSet<&str> =
                object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(found, keys.iter().copied().collect(), "{path}");
            assert_eq!(object["additionalProperties"], json!(false), "{path}");
        }
    }

    #[test]
    fn the_reference_names_every_key() {
        let page: String = include_str!("mod.rs").lines().take_while(|l| l.starts_with("//!")).collect();
        for key in [MAIN_KEYS, SUPERVISOR_KEYS, HEALTH_KEYS, JOB_KEYS].concat() {
            let named = [format!("`{key}`"), format!("[{key}]"), format!("[{key}."), format!("`{key}.")];
            assert!(named.iter().any(|form| page.contains(form)), "{key}");
        }
    }

    #[test]
    fn every_key_is_described() {
        let root = schema();
        for path in [
            "",
            "/$defs/supervisor",
            "/$defs/health",
            "/$defs/health_check",
            "/$defs/heal_act",
            "/$defs/job",
            "/$defs/stop_step",
            "/$defs/probe",
            "/$defs/frozen_step",
            "/$defs/breaker",
            "/$defs/group",
            "/$defs/hook",
            "/$defs/job/properties/hooks",
        ] {
            for (name, property) in root.pointer(path).unwrap()["properties"].as_object().unwrap() {
                assert!(property["description"].as_str().is_some_and(|d| d.ends_with('.')), "{path} {name}");
            }
        }
    }

    #[test]
    fn the_defaults_of_the_schema_are_those_of_the_reader() {
        let root = schema();
        let lines = |prefix: &str, object: &Value| -> Vec<String> {
            let properties = object["properties"].as_object().unwrap();
            let with = properties.iter().filter_map(|(name, p)| p.get("default").map(|d| (name, d)));
            with.map(|(name, default)| format!("{prefix}{name} = {default}")).collect()
        };
        let described = &root["$defs"]["job"];
        let mut job = lines("", described);
        for table in ["backoff", "start_limit", "output"] {
            job.extend(lines(&format!("{table}."), &described["properties"][table]));
        }
        let supervisor = lines("", &root["$defs"]["supervisor"]);
        let health = lines("", &root["$defs"]["health"]);
        assert!(job.len() > 20 && supervisor.len() >= 6, "{job:?}");
        let (_dir, bare) = good("[job.a]\ncommand = \"x\"\n");
        let (_other, full) = good(&format!(
            "[supervisor]\n{}\n[health]\n{}\n[job.a]\ncommand = \"x\"\n{}\n",
            supervisor.join("\n"),
            health.join("\n"),
            job.join("\n")
        ));
        let mut full_job = full.jobs[0].clone();
        full_job.cwd.clone_from(&bare.jobs[0].cwd);
        assert_eq!((full_job, full.supervisor), (bare.jobs[0].clone(), bare.supervisor));
        assert!(health.len() >= 10 && full.health == bare.health, "{health:?}");
        let timeout = root["$defs"]["stop_step"]["properties"]["timeout"]["default"].clone();
        assert_eq!((timeout, bare.jobs[0].stop[0].timeout.0), (json!("10s"), 10_000));
    }

    #[test]
    fn right_files_pass_and_wrong_ones_do_not() {
        check(EVERY_KEY).unwrap();
        for path in examples() {
            let text = std::fs::read_to_string(&path).unwrap();
            check(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        for wrong in [
            "jobs = {}",
            "include = 'x'",
            "[job.a]",
            "[job.a]\ncommand = 3",
            "[job.a]\ncommand = 'x'\ncomand = 'y'",
            "[job.a]\ncommand = 'x'\nnice = 20",
            "[job.a]\ncommand = 'x'\nrestart = 'sometimes'",
            "[job.a]\ncommand = 'x'\nstop = { signal = 'INT', command = 'y' }",
            "[job.a]\ncommand = 'x'\nbackoff = { factor = 0.5 }",
            "[job.a]\ncommand = 'x'\nstart_grace = 5",
            "[job.a]\ncommand = 'x'\nstdin = 'open'",
            "[defaults]\ncommand = 'x'",
            "[supervisor]\nkeep_runs = 0",
            "[health]\nheal_after = 0",
            "[health]\non_disk = ['explode']",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}

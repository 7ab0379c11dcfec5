//! The interface as an OpenAPI 3.1 document, for generators and for people with a viewer.

use crate::wire::control::StateWord;
use crate::wire::health::Verdict;
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Shared;
use super::error::Failure;
use super::params::Params;
use super::routes;

pub(crate) async fn document(State(shared): State<Shared>, params: Params) -> Result<Json<Value>, Failure> {
    params.only(&[])?;
    Ok(Json(build(&shared.view().instance.version)))
}

/// What is said about a route beside its method and path.
struct Entry {
    summary: &'static str,
    /// Query parameters: name, JSON type, what it means.
    query: &'static [(&'static str, &'static str, &'static str)],
    /// Schema of a JSON request body.
    body: Option<&'static str>,
    /// Status and schema of the answer; a schema with a `/` is a content type.
    answer: (&'static str, &'static str),
}

const fn entry(summary: &'static str, answer: &'static str) -> Entry {
    Entry { summary, query: &[], body: None, answer: ("200", answer) }
}

const OUTPUT_QUERY: &[(&str, &str, &str)] = &[
    ("run", "string", "a run id, latest (default) or all"),
    ("stream", "string", "stdout, stderr or all (default)"),
    ("offset", "string", "first byte: N, or stdout:N,stderr:N where streams are kept apart"),
    ("limit", "integer", "at most this many bytes"),
    ("tail", "integer", "only this many lines from the end"),
    ("since", "string", "RFC 3339 time, or an age such as 10m"),
    ("follow", "boolean", "go on with what comes"),
    ("onward", "boolean", "with follow and a run id: go on into the runs after it"),
    ("timestamps", "boolean", "put the time of capture in front of each line"),
];

const EVENTS_QUERY: &[(&str, &str, &str)] = &[
    ("since", "string", "only entries after this sequence number, or now: only those to come"),
    ("limit", "integer", "at most this many entries"),
    ("follow", "boolean", "go on with what comes"),
];

const START_QUERY: &[(&str, &str, &str)] = &[
    ("force", "boolean", "also where a circuit is open"),
    ("or_rollback", "boolean", "stop them again if one does not come up"),
    ("within_ms", "integer", "with or_rollback: in so many milliseconds (30000)"),
    ("job", "string", "with or_rollback: one more selector; may be repeated"),
];

const RELOAD_QUERY: &[(&str, &str, &str)] = &[
    ("plan", "boolean", "only say what would be done"),
    ("or_rollback", "boolean", "put the old one back if a job it adds or changes does not come up"),
    ("within_ms", "integer", "with or_rollback: in so many milliseconds (30000)"),
];

fn describe(path: &str) -> Option<Entry> {
    let bytes = "application/octet-stream";
    Some(match path {
        "/metrics" => entry("Everything that can be counted, in the Prometheus text format", "text/plain"),
        "/v1/version" => entry("Versions of the build and of this interface", "Version"),
        "/v1/health" => entry("Whether the supervisor answers", "Health"),
        "/v1/ready" => entry("Whether every wanted job has been asked for; 503 if not", "Ready"),
        "/v1/status" => Entry {
            query: &[("job", "string", "a selector; may be repeated")],
            ..entry("The instance and its jobs", "Status")
        },
        "/v1/jobs/{name}" => entry("One job", "JobDetail"),
        "/v1/stats" => Entry {
            query: &[("job", "string", "a selector; may be repeated")],
            ..entry("What the runs of jobs came to", "StatsList")
        },
        "/v1/jobs/{name}/runs" => entry("The job's runs, oldest first", "RunList"),
        "/v1/jobs/{name}/output" => Entry { query: OUTPUT_QUERY, ..entry("Captured output", bytes) },
        "/v1/jobs/{name}/start" => {
            Entry { query: START_QUERY, ..entry("Start the jobs a selector means", "ActReply") }
        }
        "/v1/jobs/{name}/stop" => entry("Stop the jobs a selector means", "ActReply"),
        "/v1/jobs/{name}/restart" => entry("Restart the jobs a selector means", "ActReply"),
        "/v1/jobs/{name}/signal" => {
            Entry { body: Some("SignalRequest"), ..entry("Signal the jobs a selector means", "ActReply") }
        }
        "/v1/jobs/{name}/stdin" => Entry {
            query: &[("close", "boolean", "close stdin afterwards")],
            body: Some(bytes),
            ..entry("Write the body to the job's stdin", "StdinReply")
        },
        "/v1/runs/{run}/progress" => Entry {
            body: Some("PublishRequest"),
            ..entry("A run says how far it is, and how the next one can go on", "PublishReply")
        },
        "/v1/events" => {
            Entry { query: EVENTS_QUERY, ..entry("Recorded decisions as JSON lines", "application/x-ndjson") }
        }
        "/v1/reload" => {
            Entry { query: RELOAD_QUERY, ..entry("Read the configuration again and apply it", "ReloadReply") }
        }
        "/v1/queues" => Entry {
            query: &[("queue", "string", "this one alone; may be given several times")],
            ..entry("Queues, who has a slot, and who waits in which order", "Queues")
        },
        "/v1/queues/{name}/pause" => entry("Give no turns in a queue", "PauseReply"),
        "/v1/queues/{name}/resume" => entry("Give turns again", "PauseReply"),
        "/v1/jobs/{name}/move" => {
            Entry { body: Some("MoveRequest"), ..entry("Move jobs that wait for their turn", "ActReply") }
        }
        "/v1/run" => Entry {
            body: Some("RunRequest"),
            answer: ("201", "RunReply"),
            ..entry("Submit a job", "RunReply")
        },
        "/v1/shutdown" => Entry {
            body: Some("ShutdownRequest"),
            answer: ("202", "ShutdownRequest"),
            ..entry("End the instance", "ShutdownRequest")
        },
        "/v1/sagas" => entry("Operations of several steps: the last ones, and the one under way", "SagaList"),
        "/v1/sagas/{id}" => Entry {
            query: &[("wait", "boolean", "answer at its end, or after 20 s")],
            ..entry("An operation that is done whole or rolled back", "Saga")
        },
        _ => return describe_recovery(path),
    })
}

fn describe_recovery(path: &str) -> Option<Entry> {
    Some(match path {
        "/v1/audit" => Entry {
            query: &[("limit", "integer", "at most so many, the latest (1000)")],
            ..entry("Who did what to which job, and what it changed", "DeedList")
        },
        "/api/alerts" => entry("Alerts that are raised, and the last that are over", "Alerts"),
        "/api/admin/recovery/metrics" => entry("What became of incidents", "RecoveryMetrics"),
        "/v1/openapi.json" => entry("This document", "application/json"),
        "/v1/recovery" => entry("The start of this supervisor, and what it found", "StartReport"),
        "/v1/recovery/starts" => entry("The last starts, oldest first, in short", "StartList"),
        "/v1/recovery/plan" => entry("What a recovery would do now; changes nothing", "RunsReport"),
        "/v1/recovery/run" => entry("Look again at what there is, and do what follows", "RunsReport"),
        "/v1/recovery/skip" => Entry {
            query: &[("phase", "string", "the name of the phase")],
            ..entry("Leave out a phase of the start that waits", "Skipped")
        },
        "/v1/journal/scrub" => {
            entry("Read all files of the event log, and put in order what can be", "ScrubReply")
        }
        "/v1/recovery/exit" => entry("End recovery mode", "ActReply"),
        _ => return None,
    })
}

pub(crate) fn build(version: &str) -> Value {
    let mut paths = Map::new();
    for route in routes::table() {
        let Some(entry) = describe(route.path) else { continue };
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method] = operation(route.path, &entry);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "outlive control socket",
            "version": version,
            "description": "HTTP/1.1 on a unix socket. Fields are only ever added.",
        },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn content(schema: &str) -> Value {
    if schema.contains('/') {
        return json!({ schema: {} });
    }
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn operation(path: &str, entry: &Entry) -> Value {
    let mut parameters: Vec<Value> = entry
        .query
        .iter()
        .map(|(name, kind, text)| {
            json!({ "name": name, "in": "query", "description": text, "schema": { "type": kind } })
        })
        .collect();
    if path.contains("{name}") {
        parameters.push(json!({
            "name": "name", "in": "path", "required": true, "schema": { "type": "string" },
            "description": "a job name; for start, stop, restart and signal a selector",
        }));
    }
    if path.contains("{run}") {
        parameters.push(json!({
            "name": "run", "in": "path", "required": true, "schema": { "type": "string" },
            "description": "OUTLIVE_RUN_ID of the run",
        }));
    }
    if path.contains("{id}") {
        parameters.push(json!({
            "name": "id", "in": "path", "required": true, "schema": { "type": "integer" },
            "description": "the number in the answer to the request",
        }));
    }
    let mut answers = Map::new();
    let mut good = json!({ "description": "done", "content": content(entry.answer.1) });
    if path.ends_with("/output") || path.ends_with("/events") {
        good["content"]["text/event-stream"] = json!({});
    }
    answers.insert(entry.answer.0.to_owned(), good);
    answers.insert(
        "default".to_owned(),
        json!({ "description": "not granted", "content": content("ErrorReply") }),
    );
    let mut operation = json!({ "summary": entry.summary, "parameters": parameters, "responses": answers });
    if let Some(body) = entry.body {
        operation["requestBody"] = json!({ "content": content(body) });
    }
    operation
}

fn object(fields: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    json!({ "type": "object", "properties": properties })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn outcome() -> Value {
    let text = json!({ "type": "string" });
    let (some_text, some_number) =
        (json!({ "type": ["string", "null"] }), json!({ "type": ["integer", "null"] }));
    let words = |list: &[&str]| json!({ "type": "string", "enum": list });
    object(&[
        ("kind", words(&["exited", "signaled", "oom_killed", "not_started", "cancelled", "lost"])),
        ("code", some_number.clone()),
        ("signal", some_number.clone()),
        ("core", json!({ "type": ["boolean", "null"] })),
        ("step", some_text.clone()),
        ("errno", some_number),
        ("why", some_text.clone()),
        ("asked", json!({})),
        ("at", some_text),
        ("text", text),
    ])
}

fn job_health() -> Value {
    let (text, number, flag) =
        (json!({ "type": "string" }), json!({ "type": "integer" }), json!({ "type": "boolean" }));
    let words: Vec<&str> = Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
    object(&[
        ("verdict", json!({ "type": "string", "enum": words })),
        ("fault", text.clone()),
        ("why", text.clone()),
        ("since", text.clone()),
        ("last_sign", text),
        ("stopping", flag.clone()),
        ("reloading", flag),
        ("main_pid", number.clone()),
        ("errno", number.clone()),
        ("exit_status", number.clone()),
        ("rejected", number.clone()),
        ("ignored", number),
    ])
}

fn schemas() -> Value {
    let (text, number, flag) =
        (json!({ "type": "string" }), json!({ "type": "integer" }), json!({ "type": "boolean" }));
    let (some_text, some_number) =
        (json!({ "type": ["string", "null"] }), json!({ "type": ["integer", "null"] }));
    let role = object(&[("pid", some_number.clone())]);
    let maybe = |name: &str| json!({ "oneOf": [of(name), { "type": "null" }] });
    let words = |list: &[&str]| json!({ "type": "string", "enum": list });
    let mut all = json!({
        "Version": object(&[("version", text.clone()), ("api", text.clone()), ("keeper_protocol", number.clone())]),
        "Mark": object(&[("resource", text.clone()), ("why", text.clone())]),
        "Ready": object(&[("ready", flag.clone())]),
        "Instance": object(&[
            ("version", text.clone()),
            ("state", words(&["recovering", "running", "recovery", "read_only", "shutting_down"])),
            ("roles", object(&[("init", role.clone()), ("keeper", role.clone()), ("supervisor", role)])),
            ("since", text.clone()), ("generation", number.clone()), ("state_dir", text.clone()),
            ("config", some_text.clone()), ("config_changed", flag.clone()), ("degraded", list(text.clone())),
            ("degraded_resources", list(of("Mark"))), ("recovery_mode", some_text.clone()),
        ]),
        "JobStatus": object(&[
            ("name", text.clone()), ("kind", words(&["service", "task"])),
            ("state", words(&StateWord::ALL.map(StateWord::as_str))),
            ("want", words(&["up", "down"])), ("pid", some_number.clone()), ("run", some_text.clone()),
            ("restarts", number.clone()), ("since", text.clone()), ("outcome", maybe("Outcome")),
            ("reason", text.clone()), ("adopted", flag.clone()), ("started", some_text.clone()), ("next_try", some_text.clone()),
            ("depends_on", list(text.clone())), ("command", list(text.clone())), ("progress", of("Progress")),
            ("health", of("JobHealth")),
            ("breaker", words(&["closed", "open", "half_open"])),
            ("patterns", list(text.clone())), ("place", of("Place")),
        ]),
        "JobHealth": job_health(),
        "Outcome": outcome(),
    });
    let requests = json!({
        "RunList": list(object(&[
            ("run", text.clone()), ("job", text.clone()), ("attempt", number.clone()),
            ("started", some_text.clone()), ("ended", some_text.clone()), ("pid", some_number.clone()),
            ("outcome", maybe("Outcome")), ("cause", some_text.clone()), ("rusage", json!({})),
            ("output_bytes", number.clone()),
        ])),
        "ActReply": object(&[("jobs", list(object(&[
            ("name", text.clone()), ("changed", flag.clone()), ("text", text.clone()), ("ok", flag.clone()),
        ]))), ("saga", some_number.clone())]),
        "SignalRequest": object(&[("signal", text.clone()), ("scope", some_text.clone())]),
        "StdinReply": object(&[("bytes", number.clone())]),
        "ReloadReply": object(&[
            ("applied", flag.clone()), ("added", list(text.clone())), ("removed", list(text.clone())),
            ("restarted", list(text.clone())), ("updated", list(text.clone())), ("blocked", list(text.clone())), ("unchanged", number),
            ("saga", some_number),
        ]),
        "ShutdownRequest": object(&[("keep_jobs", flag)]),
        "ErrorReply": object(&[("error", text.clone()), ("code", text.clone()), ("details", list(text))]),
    });
    let more = [
        requests,
        host_schemas(),
        recovery_schemas(),
        saga_schemas(),
        stats_schemas(),
        insight_schemas(),
        queue_schemas(),
    ];
    for more in more {
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
    }
    all
}

fn queue_schemas() -> Value {
    let (text, number, flag) =
        (json!({ "type": "string" }), json!({ "type": "integer" }), json!({ "type": "boolean" }));
    let (some_text, some_number) =
        (json!({ "type": ["string", "null"] }), json!({ "type": ["integer", "null"] }));
    json!({
        "RunRequest": object(&[
            ("name", some_text.clone()), ("command", list(text.clone())), ("cwd", some_text.clone()),
            ("env", json!({ "type": "object", "additionalProperties": text.clone() })),
            ("kind", some_text.clone()), ("restart", some_text.clone()), ("stdin", flag.clone()),
            ("queue", some_text.clone()), ("priority", number.clone()), ("after", list(text.clone())),
            ("hold", flag.clone()), ("not_before", some_text.clone()), ("key", some_text),
            ("timeout_ms", some_number.clone()), ("retries", some_number.clone()),
        ]),
        "RunReply": object(&[("name", text.clone()), ("existing", flag.clone())]),
        "Place": object(&[
            ("queue", text.clone()), ("priority", number.clone()), ("number", number.clone()),
            ("held", flag.clone()), ("not_before", text.clone()),
        ]),
        "Queues": object(&[
            ("slots", some_number.clone()),
            ("queues", list(object(&[
                ("name", text.clone()), ("slots", some_number.clone()), ("running", number.clone()),
                ("waiting", number.clone()), ("paused", flag.clone()),
            ]))),
            ("jobs", list(object(&[
                ("name", text.clone()), ("state", text.clone()), ("since", text.clone()), ("place", of("Place")),
                ("position", some_number), ("why", text.clone()),
            ]))),
        ]),
        "PauseReply": object(&[("paused", flag.clone()), ("changed", flag.clone())]),
        "MoveRequest": object(&[
            ("queue", text.clone()), ("priority", number), ("hold", flag.clone()), ("not_before", text),
            ("first", flag.clone()), ("last", flag),
        ]),
    })
}

fn recovery_schemas() -> Value {
    let (text, number, flag) =
        (json!({ "type": "string" }), json!({ "type": "integer" }), json!({ "type": "boolean" }));
    let (some_text, some_number) =
        (json!({ "type": ["string", "null"] }), json!({ "type": ["integer", "null"] }));
    let words = |list: &[&str]| json!({ "type": "string", "enum": list });
    let counts = json!({ "type": "object", "additionalProperties": number });
    json!({
        "DeedList": list(object(&[
            ("seq", number.clone()), ("at", text.clone()), ("who", text.clone()), ("what", text.clone()),
            ("job", some_text.clone()), ("run", some_text.clone()), ("why", text.clone()),
            ("before", text.clone()), ("after", text.clone()),
        ])),
        "StartList": list(of("StartReport")),
        "StartReport": object(&[
            ("v", number.clone()), ("id", text.clone()), ("generation", number.clone()), ("began", text.clone()),
            ("ended", some_text.clone()), ("took_ms", number.clone()),
            ("result", words(&["running", "done", "degraded", "failed", "aborted"])),
            ("recovery_mode", some_text.clone()), ("aborted_before", number.clone()),
            ("phases", list(of("Phase"))), ("runs", json!({ "oneOf": [of("RunsReport"), { "type": "null" }] })),
            ("damage", list(text.clone())), ("notes", list(text.clone())), ("assessment", of("Assessment")),
            ("entries", object(&[("read", number.clone()), ("lost", number.clone())])),
        ]),
        "Assessment": object(&[
            ("findings", list(object(&[
                ("severity", words(&["constraint", "consistency", "integrity"])),
                ("strategy", words(&["rollback", "partial", "repair"])), ("what", text.clone()),
            ]))),
            ("lines_read", number.clone()), ("lines_lost", number.clone()), ("ranges_lost", json!({})),
            ("loss_percent", json!({ "type": "number" })), ("bytes_quarantined", number.clone()),
            ("entities_uncertain", number.clone()), ("integrity_percent", json!({ "type": "number" })),
            ("checkpoint_before", some_number.clone()),
        ]),
        "ScrubReply": object(&[
            ("flaws", list(text.clone())), ("checkpoint", some_number.clone()), ("kept", number.clone()),
            ("sound", flag.clone()), ("why", some_text.clone()),
        ]),
        "Phase": object(&[
            ("name", text.clone()), ("depends_on", list(text.clone())), ("critical", flag),
            ("state", words(&["pending", "running", "retrying", "done", "skipped", "degraded", "failed"])),
            ("why", some_text.clone()), ("tries", number.clone()), ("after_ms", some_number.clone()),
            ("took_ms", some_number), ("count", json!({ "type": ["array", "null"], "items": number })),
        ]),
        "RunsReport": object(&[
            ("items", list(of("RunItem"))), ("omitted", number.clone()), ("classes", counts.clone()),
            ("acts", counts), ("checks", number), ("violations", list(text.clone())),
        ]),
        "RunItem": object(&[
            ("job", some_text.clone()), ("run", some_text.clone()),
            ("class", words(&["adoptable", "restartable", "resumable", "ended_meanwhile", "lost", "orphan",
                "corrupt"])),
            ("found", text.clone()),
            ("acts", list(words(&["adopt", "record_end", "start", "wait", "backoff", "stop", "hold", "give_up",
                "leave_alone"]))),
            ("why", text.clone()), ("next", some_text),
        ]),
        "Skipped": object(&[("skipped", text)]),
    })
}

fn insight_schemas() -> Value {
    let (text, number, some) =
        (json!({ "type": "string" }), json!({ "type": "number" }), json!({ "type": ["number", "null"] }));
    let count = json!({ "type": "integer" });
    let cause =
        object(&[("recovered", count.clone()), ("failed", count.clone()), ("mean_seconds", some.clone())]);
    json!({
        "Alert": object(&[
            ("id", text.clone()), ("subject", text.clone()),
            ("severity", json!({ "type": "string", "enum": ["critical", "warning"] })),
            ("message", text.clone()), ("value", number.clone()), ("threshold", number.clone()),
            ("since", text.clone()), ("until", text.clone()),
        ]),
        "Status": object(&[
            ("instance", of("Instance")), ("jobs", list(of("JobStatus"))), ("alerts", list(of("Alert"))),
        ]),
        "Alerts": object(&[("raised", list(of("Alert"))), ("recent", list(of("Alert")))]),
        "RecoveryMetrics": object(&[
            ("recovery_success_rate", some.clone()),
            ("by_cause", json!({ "type": "object", "additionalProperties": cause })),
            ("mean_seconds", some.clone()), ("p95_seconds", some.clone()), ("p99_seconds", some),
            ("recovered", count.clone()), ("failed", count.clone()), ("open", count),
            ("data_loss_percent", number.clone()), ("integrity_percent", number.clone()),
            ("availability_percent", number), ("alerts", list(of("Alert"))),
            ("common_failure_patterns", list(object(&[
                ("pattern", text.clone()), ("jobs", list(text)),
            ]))),
        ]),
    })
}

fn host_schemas() -> Value {
    let (text, number, flag) =
        (json!({ "type": "string" }), json!({ "type": "integer" }), json!({ "type": "boolean" }));
    let words = |list: &[&str]| json!({ "type": "string", "enum": list });
    json!({
        "JobHealth": object(&[
            ("verdict", words(&["healthy", "unready", "unwell", "frozen", "crashed", "corrupted", "disconnected"])),
            ("fault", text.clone()), ("why", text.clone()), ("since", text.clone()), ("last_sign", text.clone()),
            ("diagnosis", text.clone()), ("stopping", flag.clone()), ("reloading", flag.clone()), ("main_pid", number.clone()),
            ("errno", number.clone()), ("exit_status", number.clone()), ("rejected", number.clone()),
            ("ignored", number.clone()),
        ]),
        "Health": object(&[("healthy", flag.clone()), ("degraded", flag), ("resources", list(of("Mark"))),
            ("status", words(&["", "healthy", "degraded", "unhealthy"])), ("score", number.clone()),
            ("starts_held", text.clone()), ("checks", list(of("Check"))), ("heals", list(of("Heals")))]),
        "Check": object(&[("name", text.clone()), ("state", words(&["unknown", "ok", "failing", "failed"])),
            ("failures", number.clone()), ("heal_after", number.clone()), ("percent", json!({ "type": "number" })),
            ("limit", json!({ "type": "number" })), ("text", text.clone()), ("at", text.clone()),
            ("trend", words(&["improving", "stable", "degrading"]))]),
        "Heals": object(&[("check", text.clone()), ("act", text.clone()), ("result", text.clone()),
            ("count", number.clone())]),
    })
}

fn saga_schemas() -> Value {
    let text = json!({ "type": "string" });
    let some_text = json!({ "type": ["string", "null"] });
    let words = |list: &[&str]| json!({ "type": "string", "enum": list });
    json!({
        "SagaList": list(of("Saga")),
        "Saga": object(&[
            ("id", json!({ "type": "integer" })), ("verb", words(&["reload", "start"])),
            ("state", words(&["running", "undoing", "done", "rolled_back", "abandoned"])),
            ("pending", list(text)), ("job", some_text.clone()), ("why", some_text.clone()),
            ("ended", some_text),
        ]),
    })
}

fn stats_schemas() -> Value {
    let number = json!({ "type": "integer" });
    let (text, flag) = (json!({ "type": "string" }), json!({ "type": "boolean" }));
    let some_text = json!({ "type": ["string", "null"] });
    let numbers = |names: &[&str]| {
        let fields: Vec<(&str, Value)> = names.iter().map(|name| (*name, number.clone())).collect();
        object(&fields)
    };
    json!({
        "Progress": object(&[
            ("run", text.clone()), ("at", text.clone()), ("percent", json!({ "type": ["integer", "null"] })),
            ("text", some_text.clone()), ("resume_token", some_text.clone()),
        ]),
        "PublishRequest": object(&[
            ("progress", number.clone()), ("text", text.clone()), ("resume_token", text.clone()),
        ]),
        "PublishReply": object(&[("recorded", flag.clone()), ("resume_token", flag)]),
        "JobDetail": { "allOf": [of("JobStatus"), object(&[("stats", of("Stats"))])] },
        "StatsList": list(object(&[("name", json!({ "type": "string" })), ("stats", of("Stats"))])),
        "Stats": object(&[
            ("starts", number.clone()),
            ("exits", numbers(&["ok", "failed", "signal", "oom", "asked", "lost", "refused"])),
            ("uptime_ms", number.clone()), ("longest_uptime_ms", number.clone()),
            ("down_ms", number.clone()), ("max_rss_kib", number.clone()),
            ("restart_time", json!({ "oneOf": [numbers(&["samples", "p50_ms", "p95_ms", "p99_ms"]),
                { "type": "null" }] })),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_and_every_reference_is_in_the_document() {
        let document = build("1.2.3");
        for route in routes::table() {
            let operation = &document["paths"][route.path][route.method];
            assert!(operation["summary"].is_string(), "{} {}", route.method, route.path);
        }
        let paths = document["paths"].as_object().unwrap();
        let operations: usize = paths.values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(operations, routes::table().len());
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}

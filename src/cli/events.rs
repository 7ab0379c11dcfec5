//! `outlive events`.

use super::args::EventsArgs;
use super::error::Fail;
use super::watch::{PATIENCE, PATIENCE_AT_END, PAUSE};
use super::{Ctx, code};
use crate::client::Since;
use crate::wire::control::EventView;
use serde_json::Value;
use tokio::time::Instant;

pub(crate) async fn events(args: &EventsArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let mut since = args.since;
    let mut answered: Option<Instant> = None;
    let mut ending = false;
    loop {
        match read(args, &mut since, ctx, &mut answered).await {
            Ok(()) if !args.follow => return Ok(code::OK),
            // The supervisor ends; if it has a successor, that goes on where it stopped.
            Ok(()) => ending = true,
            Err(Fail::Client(e)) if args.follow && e.may_pass() => {
                let Some(quiet) = answered.map(|at| at.elapsed()) else { return Err(e.into()) };
                if ending && quiet >= PATIENCE_AT_END {
                    return Ok(code::OK);
                }
                if quiet >= PATIENCE {
                    return Err(e.into());
                }
            }
            Err(e) => return Err(e),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read(
    args: &EventsArgs,
    since: &mut Option<u64>,
    ctx: &mut Ctx<'_>,
    answered: &mut Option<Instant>,
) -> Result<(), Fail> {
    let mut events = ctx.client.events(since.map_or(Since::Beginning, Since::Seq), None, args.follow).await?;
    *answered = Some(Instant::now());
    while let Some((event, json)) = events.next().await? {
        *answered = Some(Instant::now());
        *since = Some(event.seq);
        if args.json {
            ctx.out.line(&json)?;
        } else {
            for line in render(&event) {
                ctx.out.line(&line)?;
            }
        }
        ctx.out.flush()?;
    }
    *answered = Some(Instant::now());
    Ok(())
}

/// One line an event: number, time, what, and its fields.
fn render(entry: &EventView) -> Vec<String> {
    entry.events.iter().map(|event| line(entry.seq, &entry.at, event)).collect()
}

/// An event in one line.
pub(super) fn line(seq: u64, at: &str, event: &Value) -> String {
    let kind = event.get("k").and_then(Value::as_str).unwrap_or("?");
    let job = event.get("job").and_then(Value::as_str).unwrap_or("");
    let mut words = vec![format!("{seq:>6} {at} {kind:<18} {job}")];
    let fields = event.as_object().into_iter().flatten();
    words.extend(fields.filter(|(name, _)| !INNER.contains(&name.as_str())).filter_map(short));
    words.join(" ").trim_end().to_owned()
}

/// What is said elsewhere in the line, or means nothing to people.
const INNER: [&str; 7] = ["k", "job", "at", "until", "epoch", "born_us", "v"];

/// A field in short; large ones are for `--json`.
fn short((name, value): (&String, &Value)) -> Option<String> {
    if let Some(pid) = value.get("pidfs").and_then(|_| value.get("pid")) {
        return Some(format!("pid={pid}"));
    }
    if let (Some(run), Some(outcome)) = (value.get("run").and_then(Value::as_str), value.get("outcome")) {
        let outcome = short((&"outcome".to_owned(), outcome)).unwrap_or_default();
        return Some(format!("run={run} {outcome}"));
    }
    match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{name}={text}")),
        Value::Bool(_) | Value::Number(_) => Some(format!("{name}={value}")),
        Value::Array(_) => None,
        Value::Object(fields) => {
            let words: Vec<String> =
                fields.iter().filter(|(_, v)| !v.is_object() && !v.is_array()).filter_map(short).collect();
            (!words.is_empty()).then(|| format!("{name}({})", words.join(" ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_fields() {
        let entry = EventView {
            seq: 7,
            at: "2026-01-02T03:04:05.678Z".to_owned(),
            events: vec![serde_json::json!({
                "k": "run.ended", "job": "web", "leftovers": false,
                "record": { "run": "r", "outcome": { "kind": "exited", "code": 3 }, "v": 1 },
            })],
        };
        assert_eq!(
            render(&entry),
            [
                "     7 2026-01-02T03:04:05.678Z run.ended          web leftovers=false run=r outcome(code=3 kind=exited)"
            ]
        );
    }
}

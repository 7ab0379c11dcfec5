//! `outlive journal`: the files of the event log, with or without an instance.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use super::args::{JournalArgs, JournalWhat, ShowArgs};
use super::error::Fail;
use super::table::table;
use super::when::{local, now_ms, parse_duration, parse_ms};
use super::{Ctx, block_on, code, events};
use crate::client::Error;
use crate::core::event::Want;
use crate::core::state::State;
use crate::journal::inspect::{self, Item, JournalError, Mode, Stats, Text, Verdict, Verified, What};

pub(crate) fn journal(args: &JournalArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let dir = ctx.paths.state_dir.clone();
    if !inspect::is_there(&dir) {
        return Err(Fail::Other(format!("there is no event log in {}", dir.display())));
    }
    match &args.what {
        JournalWhat::Show(args) => show(args, &dir, ctx),
        JournalWhat::Verify { json } => verify(*json, &dir, ctx),
        JournalWhat::Repair { dry_run, accept_loss, json } => {
            let mode = match (dry_run, accept_loss) {
                (true, _) => Mode::DryRun,
                (false, true) => Mode::AcceptLoss,
                (false, false) => Mode::Careful,
            };
            let online = if *dry_run { None } else { block_on(online_repair(*json, ctx))?? };
            online.map_or_else(|| repair(mode, *json, &dir, ctx), Ok)
        }
        JournalWhat::Replay { until, json } => replay(*until, *json, &dir, ctx),
        JournalWhat::Stats { json } => stats(*json, &dir, ctx),
    }
}

fn cannot(error: &JournalError) -> Fail {
    Fail::Other(words(error))
}

/// An error and what caused it.
fn words(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Which lines are shown.
struct Filter<'a> {
    args: &'a ShowArgs,
    since_us: Option<i64>,
}

impl Filter<'_> {
    fn of(args: &ShowArgs) -> Result<Filter<'_>, Fail> {
        let since_ms = match &args.since {
            None => None,
            Some(text) => Some(since(text).map_err(|why| Fail::Usage(format!("--since: {why}")))?),
        };
        Ok(Filter { args, since_us: since_ms.map(|ms| ms.saturating_mul(1000)) })
    }

    /// The events of a line that are wanted; `None`: nothing of it is.
    fn wanted(&self, text: &Text<'_>) -> Option<Vec<Value>> {
        if self.since_us.is_some_and(|since| text.at.wall_us < since) {
            return None;
        }
        let events = match serde_json::from_slice::<Value>(text.bytes).ok()?.get_mut("ev").map(Value::take) {
            Some(Value::Array(events)) => events,
            _ => Vec::new(),
        };
        let Self { args: ShowArgs { job, kind, .. }, .. } = self;
        if events.is_empty() {
            let mark = job.is_none() && kind.as_ref().is_none_or(|kind| kind == MARK);
            return mark.then(Vec::new);
        }
        let is = |field: Option<&Value>, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| field.and_then(Value::as_str) == Some(wanted))
        };
        let of_job = |event: &Value| event.get("job").or_else(|| event.pointer("/spec/name")).cloned();
        let mut left = events;
        left.retain(|event| is(of_job(event).as_ref(), job) && is(event.get("k"), kind));
        (!left.is_empty()).then_some(left)
    }
}

/// How a line without events is called.
const MARK: &str = "mark";

/// Milliseconds since 1970 of a time, or of an age.
fn since(text: &str) -> Result<i64, String> {
    if let Some(ms) = parse_ms(text) {
        return Ok(ms);
    }
    let age = parse_duration(text)
        .map_err(|_| format!("{text:?} is no time; write 2026-01-02T03:04:05Z, or an age such as 10m"))?;
    Ok(now_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
}

fn show(args: &ShowArgs, dir: &Path, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let filter = Filter::of(args)?;
    let (mut complaints, mut done) = (Vec::new(), Ok(()));
    let out = &mut *ctx.out;
    inspect::lines(dir, args.from.unwrap_or(0), &mut |item| {
        let Item::Line(text) = &item else {
            complaints.extend(item.complaint());
            return ControlFlow::Continue(());
        };
        if args.to.is_some_and(|to| text.seq > to) {
            return ControlFlow::Break(());
        }
        let Some(events) = filter.wanted(text) else { return ControlFlow::Continue(()) };
        for line in rendered(text, &events, args.json) {
            done = out.line(&line);
            if done.is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })
    .map_err(|error| cannot(&error))?;
    done?;
    ctx.out.flush()?;
    for complaint in complaints {
        ctx.out.note(&format!("outlive: {complaint}"));
    }
    Ok(code::OK)
}

fn rendered(text: &Text<'_>, events: &[Value], json: bool) -> Vec<String> {
    if json {
        return vec![String::from_utf8_lossy(text.bytes).into_owned()];
    }
    let at = local(text.at.wall_us);
    if events.is_empty() {
        return vec![format!("{:>6} {at} {MARK}", text.seq)];
    }
    events.iter().map(|event| events::line(text.seq, &at, event)).collect()
}

fn verify(json: bool, dir: &Path, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let out = &mut *ctx.out;
    let verified = inspect::verify(dir, &mut |file| out.progress(&format!("reading {}", file.display())));
    out.progress("");
    let verified = verified.map_err(|error| cannot(&error))?;
    let format = (ctx.hooks.format)(dir);
    let verdict = verified.verdict.max(if format.is_ok() { Verdict::Clean } else { Verdict::Covered });
    if json {
        let mut value = serde_json::to_value(&verified).map_err(|e| Fail::Other(e.to_string()))?;
        value["verdict"] = serde_json::json!(verdict);
        value["format"] = serde_json::json!(format.as_ref().err());
        ctx.out.json(&value)?;
    } else {
        for line in verified_lines(&verified) {
            ctx.out.line(&line)?;
        }
        if let Err(why) = &format {
            ctx.out.line(&format!("format: {why}"))?;
        }
        ctx.out.line(match verdict {
            Verdict::Clean => "all is sound",
            Verdict::Covered => "damaged, and nothing is missing: `outlive journal repair` sets it aside",
            Verdict::Loss => {
                "LOSS: something that was recorded cannot be read; an instance that runs still knows it, and \
                 `outlive journal repair` has it write it down"
            }
        })?;
    }
    Ok(match verdict {
        Verdict::Clean => code::OK,
        Verdict::Covered => code::DAMAGED,
        Verdict::Loss => code::LOSS,
    })
}

fn verified_lines(verified: &Verified) -> Vec<String> {
    let mut lines = Vec::new();
    for file in &verified.files {
        let what = match file.what {
            What::Segment if file.lines == 0 => "no lines yet".to_owned(),
            What::Segment => format!("{} lines from {} to {}", file.lines, file.first, file.last),
            What::Checkpoint => format!("{} entities after line {}", file.lines, file.last),
        };
        let state = match file.flaws.iter().filter(|flaw| !flaw.kept).count() {
            0 => "sound".to_owned(),
            1 => "1 flaw".to_owned(),
            n => format!("{n} flaws"),
        };
        lines.push(format!("{}: {state}, {what}, {} bytes", file.short(), file.bytes));
        for flaw in &file.flaws {
            let kept = if flaw.kept { "; set aside before" } else { "" };
            lines.push(format!("    {} bytes at {}: {}{kept}", flaw.bytes, flaw.offset, flaw.why));
        }
        lines.extend(file.remarks.iter().map(|remark| format!("    {remark}")));
    }
    for (first, last) in &verified.history_lost {
        lines.push(format!("lines {first} to {last} are missing; a checkpoint has what they led to"));
    }
    for (first, last) in &verified.start.lost {
        lines.push(format!("lines {first} to {last} are missing"));
    }
    if verified.start.unreadable {
        lines.push("nothing of it can be read".to_owned());
    }
    lines
}

/// An instance that runs still knows what its files may have lost: it writes that down, and sets the damage
/// aside. Nothing if there is none.
async fn online_repair(json: bool, ctx: &mut Ctx<'_>) -> Result<Option<u8>, Fail> {
    let reply = match ctx.client.scrub().await {
        Err(Error::NotRunning { .. }) => return Ok(None),
        other => other?,
    };
    if json {
        ctx.out.json(&reply)?;
    } else {
        for flaw in &reply.flaws {
            ctx.out.line(flaw)?;
        }
        if let Some(seq) = reply.checkpoint {
            ctx.out.line(&format!("a checkpoint of everything up to line {seq} was made"))?;
            ctx.out.line(&format!("{} stretches of bytes were set aside", reply.kept))?;
        }
        if reply.sound {
            ctx.out.line(if reply.flaws.is_empty() { "nothing to do" } else { "done" })?;
        }
    }
    if let Some(why) = &reply.why {
        ctx.out.note(&format!("outlive: {why}"));
    }
    Ok(Some(if reply.sound { code::OK } else { code::DAMAGED }))
}

fn repair(mode: Mode, json: bool, dir: &Path, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let repaired = (ctx.hooks.repair)(dir, mode).map_err(Fail::Other)?;
    let idle = repaired.steps.is_empty() && !repaired.unreadable;
    let lossy = repaired.unreadable || !repaired.lost.is_empty();
    if json {
        ctx.out.json(&repaired)?;
    } else {
        for step in &repaired.steps {
            ctx.out.line(step)?;
        }
        ctx.out.line(match (idle, repaired.done, mode) {
            (true, ..) => "nothing to do",
            (_, true, _) => "done",
            (_, _, Mode::DryRun) => "planned only",
            _ => "nothing was changed",
        })?;
    }
    if repaired.unreadable {
        ctx.out.note("outlive: nothing of it can be read; `on_unreadable_log` says what a start does then");
    } else if lossy && !repaired.done && mode == Mode::Careful {
        ctx.out
            .note("outlive: lines are missing that nothing brings back; --accept-loss goes on without them");
    }
    Ok(if lossy && !repaired.done { code::LOSS } else { code::OK })
}

fn replay(until: Option<u64>, json: bool, dir: &Path, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let replayed = inspect::replay(dir, until).map_err(|error| Fail::Other(words(&error)))?;
    for (first, last) in &replayed.lost {
        ctx.out.note(&format!("outlive: lines {first} to {last} are missing: what they said is not known"));
    }
    if json {
        let out = &mut *ctx.out;
        let text = |entity: &[u8]| String::from_utf8_lossy(entity).into_owned();
        replayed.state.entities(|entity| out.line(&text(entity)).map_err(serde_json::Error::io)).map_err(
            |error| match error.io_error_kind() {
                Some(kind) => Fail::Io(kind.into()),
                None => Fail::Other(error.to_string()),
            },
        )?;
        return Ok(code::OK);
    }
    for line in state_lines(&replayed.state, replayed.seq, ctx.out.width) {
        ctx.out.line(&line)?;
    }
    Ok(code::OK)
}

/// The memory, job by job.
fn state_lines(state: &State, seq: u64, width: Option<usize>) -> Vec<String> {
    let instance = &state.instance;
    let mut head =
        format!("after line {seq}: generation {}, version {}", instance.generation.0, instance.version);
    if instance.recovery {
        head.push_str(", in recovery mode");
    }
    if instance.shutdown.is_some() {
        head.push_str(", shutting down");
    }
    let rows: Vec<Vec<String>> = state
        .jobs()
        .map(|(name, job)| {
            vec![
                name.to_string(),
                job.shown().as_str().to_owned(),
                if job.want == Want::Up { "up" } else { "down" }.to_owned(),
                job.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                job.latest_run().map_or_else(|| "-".to_owned(), |run| run.to_string()),
                local(job.since.wall_us),
                state.reason(name),
            ]
        })
        .collect();
    if rows.is_empty() {
        return vec![head, "no jobs".to_owned()];
    }
    let headings = ["NAME", "STATE", "WANT", "PID", "RUN", "SINCE", "NOTE"];
    let rows = table(&headings, &rows, width);
    std::iter::once(head).chain(rows.into_iter().map(|row| row.concat().trim_end().to_owned())).collect()
}

fn stats(json: bool, dir: &Path, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let stats = inspect::stats(dir).map_err(|error| cannot(&error))?;
    if json {
        ctx.out.json(&stats)?;
        return Ok(code::OK);
    }
    for line in stats_lines(&stats) {
        ctx.out.line(&line)?;
    }
    Ok(code::OK)
}

fn stats_lines(stats: &Stats) -> Vec<String> {
    let at = |place: &Option<(u64, String)>| {
        place.as_ref().map_or_else(|| "-".to_owned(), |(seq, at)| format!("line {seq}, {at}"))
    };
    let checkpoints: Vec<String> =
        stats.checkpoints.iter().map(|one| format!("after {} ({} bytes)", one.seq, one.bytes)).collect();
    let kept: u64 = stats.quarantine.iter().map(|(_, bytes)| bytes).sum();
    let mut rows: Vec<Vec<String>> = [
        ("segments", format!("{} ({} bytes)", stats.segments, stats.segment_bytes)),
        ("checkpoints", if checkpoints.is_empty() { "none".to_owned() } else { checkpoints.join(", ") }),
        ("first", at(&stats.first)),
        ("last", at(&stats.last)),
        ("decisions", stats.decisions.to_string()),
        ("marks", stats.marks.to_string()),
        ("longest line", format!("{} bytes", stats.longest_line)),
        (
            "peak",
            stats
                .peak
                .as_ref()
                .map_or_else(|| "-".to_owned(), |(n, at)| format!("{n} decisions in a second, {at}")),
        ),
        ("supervisors", stats.generation.to_string()),
        ("jobs", format!("{} ({} live runs)", stats.jobs, stats.live_runs)),
        ("a start reads", format!("{} bytes behind the newest checkpoint", stats.unfolded_bytes)),
        ("quarantine", format!("{} files ({kept} bytes)", stats.quarantine.len())),
        ("ballast", format!("{} bytes", stats.ballast_bytes)),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect();
    rows.extend(
        stats
            .quarantine
            .iter()
            .map(|(name, bytes)| vec!["  kept".to_owned(), format!("{name} ({bytes} bytes)")]),
    );
    rows.extend(stats.events.iter().map(|(kind, n)| vec![format!("  {kind}"), n.to_string()]));
    let wide = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
    rows.iter().map(|row| format!("{:<wide$}  {}", row[0], row[1])).collect()
}

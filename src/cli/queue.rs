//! `outlive queue` and `outlive move`.

use super::error::Fail;
use super::table::table;
use super::when::{ago, now_ms};
use super::work_args::{MoveArgs, QueueArgs, QueueWhat};
use super::{Ctx, act, code, run};
use crate::core::ids::QueueName;
use crate::wire::queue::{MoveRequest, QueueView, Queued, QueuesReply};

pub(crate) async fn queue(args: &QueueArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    match &args.what {
        None => list(&[], args.json, ctx).await,
        Some(QueueWhat::List { queues, json }) => list(queues, args.json || *json, ctx).await,
        Some(QueueWhat::Pause { queues }) => pause(queues, false, ctx).await,
        Some(QueueWhat::Resume { queues }) => pause(queues, true, ctx).await,
    }
}

async fn list(queues: &[QueueName], json: bool, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let all = ctx.client.queues(queues).await?;
    if json {
        ctx.out.json(&all)?;
    } else {
        for line in lines(&all, now_ms(), ctx.out.width) {
            ctx.out.line(&line)?;
        }
    }
    Ok(code::OK)
}

async fn pause(queues: &[QueueName], resume: bool, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    for queue in queues {
        let reply = ctx.client.pause_queue(queue, resume).await?;
        let text = match (reply.changed, resume) {
            (true, false) => "paused",
            (true, true) => "resumed",
            (false, false) => "already paused",
            (false, true) => "not paused",
        };
        ctx.out.line(&format!("{queue}: {text}"))?;
    }
    Ok(code::OK)
}

pub(crate) async fn shift(args: &MoveArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let request = MoveRequest {
        queue: args.queue.clone(),
        priority: args.priority,
        hold: if args.hold || args.release { Some(args.hold) } else { None },
        not_before: args.not_before.as_deref().map(run::moment).transpose()?,
        first: args.first,
        last: args.last,
    };
    if request == MoveRequest::default() {
        return Err(Fail::Usage(
            "say where to: --queue, --priority, --first, --last, --hold, --release".to_owned(),
        ));
    }
    let mut result = code::OK;
    for selector in &args.jobs {
        let reply = ctx.client.shift(selector, &request).await?;
        result = result.max(act::report(&reply, ctx)?);
    }
    Ok(result)
}

fn lines(all: &QueuesReply, now_ms: i64, width: Option<usize>) -> Vec<String> {
    let rows: Vec<Vec<String>> = all.queues.iter().map(queue_row).collect();
    let mut lines: Vec<String> = table(&["QUEUE", "SLOTS", "RUNNING", "WAITING", "STATE"], &rows, width)
        .into_iter()
        .map(|row| row.concat().trim_end().to_owned())
        .collect();
    if let Some(slots) = all.slots {
        lines.push(format!("at most {slots} at once in all queues"));
    }
    if all.jobs.is_empty() {
        return lines;
    }
    lines.push(String::new());
    let rows: Vec<Vec<String>> = all.jobs.iter().map(|job| job_row(job, now_ms)).collect();
    let headings = ["QUEUE", "POS", "NAME", "STATE", "PRIORITY", "SINCE", "WHY"];
    let jobs = table(&headings, &rows, width).into_iter();
    lines.extend(jobs.map(|row| row.concat().trim_end().to_owned()));
    lines
}

fn queue_row(queue: &QueueView) -> Vec<String> {
    let state = match (queue.slots, queue.paused) {
        (None, _) => "gone from the configuration",
        (Some(_), true) => "paused",
        (Some(_), false) => "",
    };
    vec![
        queue.name.to_string(),
        queue.slots.map_or_else(|| "-".to_owned(), |slots| slots.to_string()),
        queue.running.to_string(),
        queue.waiting.to_string(),
        state.to_owned(),
    ]
}

fn job_row(job: &Queued, now_ms: i64) -> Vec<String> {
    vec![
        job.place.queue.to_string(),
        job.position.map_or_else(|| "-".to_owned(), |position| position.to_string()),
        job.name.to_string(),
        job.state.as_str().to_owned(),
        job.place.priority.to_string(),
        ago(&job.since, now_ms),
        job.why.strip_prefix(&format!("queue {}: ", job.place.queue)).unwrap_or(&job.why).to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use crate::core::ids::JobName;
    use crate::wire::queue::PlaceView;
    use crate::wire::words::StateWord;

    use super::*;

    #[test]
    fn queues_come_first_and_then_who_waits_in_which_order() {
        let queue = |name: &str, slots, waiting, paused| QueueView {
            name: QueueName::new(name).unwrap(),
            slots,
            running: 1,
            waiting,
            paused,
        };
        let job = |name: &str, state, position, why: &str| Queued {
            name: JobName::new(name).unwrap(),
            state,
            since: "1970-01-01T00:01:00.000Z".to_owned(),
            place: PlaceView {
                queue: QueueName::default(),
                priority: 3,
                number: 1,
                held: false,
                not_before: None,
            },
            position,
            why: why.to_owned(),
        };
        let all = QueuesReply {
            slots: Some(4),
            queues: vec![queue("default", Some(2), 1, true), queue("old", None, 0, false)],
            jobs: vec![
                job("a", StateWord::Running, None, ""),
                job("b", StateWord::Queued, Some(1), "queue default: the queue is paused"),
            ],
        };
        assert_eq!(
            lines(&all, 62_000, None),
            [
                "QUEUE    SLOTS  RUNNING  WAITING  STATE",
                "default  2      1        1        paused",
                "old      -      1        0        gone from the configuration",
                "at most 4 at once in all queues",
                "",
                "QUEUE    POS  NAME  STATE    PRIORITY  SINCE  WHY",
                "default  -    a     running  3         2s",
                "default  1    b     queued   3         2s     the queue is paused",
            ]
        );
    }
}

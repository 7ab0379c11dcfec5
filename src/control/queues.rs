//! Queues: who has a slot, who waits, and what changes that.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};

use super::Shared;
use super::act::ask;
use super::error::Failure;
use super::params::{Name, Params, read_json};
use super::status::{known, pick};
use crate::core::ids::QueueName;
use crate::supervisor::handle::{Ask, Peer, View};
use crate::wire::control::{ActReply, JobStatus};
use crate::wire::queue::{MoveRequest, PauseReply, PlaceView, Queued, QueuesReply};
use crate::wire::words::StateWord;

pub(crate) async fn queues(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<QueuesReply>, Failure> {
    let params = params.only(&["queue"])?;
    let wanted: Vec<QueueName> = params.all("queue").map(name_of).collect::<Result<_, _>>()?;
    let view = known(&shared)?;
    if let Some(unknown) = wanted.iter().find(|name| !view.queues.iter().any(|queue| queue.name == **name)) {
        return Err(no_queue(unknown));
    }
    let is_wanted = |name: &QueueName| wanted.is_empty() || wanted.contains(name);
    let queues = view.queues.iter().filter(|queue| is_wanted(&queue.name)).cloned().collect();
    let mut jobs = jobs_of(&view);
    jobs.retain(|job| is_wanted(&job.place.queue));
    Ok(Json(QueuesReply { slots: view.slots, queues, jobs }))
}

fn name_of(text: &str) -> Result<QueueName, Failure> {
    QueueName::new(text).map_err(|error| Failure::bad(error.to_string()))
}

fn no_queue(name: &QueueName) -> Failure {
    Failure::not_found(format!("there is no queue {:?}", name.as_str()))
}

/// Who has a slot, then who waits, in the order of the turns.
fn jobs_of(view: &View) -> Vec<Queued> {
    let jobs = view.jobs.values().filter_map(|job| Some((job, job.place.as_deref()?)));
    let mut all: Vec<(Standing, &JobStatus, &PlaceView)> =
        jobs.filter_map(|(job, place)| Some((standing(job, place)?, &**job, place))).collect();
    all.sort_by_key(|(standing, _, place)| {
        (place.queue.clone(), *standing, std::cmp::Reverse(place.priority), place.number)
    });
    let mut position: (Option<&QueueName>, usize) = (None, 0);
    let mut listed = Vec::with_capacity(all.len());
    for (standing, job, place) in all {
        if position.0 != Some(&place.queue) {
            position = (Some(&place.queue), 0);
        }
        position.1 += usize::from(standing == Standing::InLine);
        listed.push(Queued {
            name: job.name.clone(),
            state: job.state,
            since: job.since.clone(),
            place: place.clone(),
            position: (standing == Standing::InLine).then_some(position.1),
            why: job.reason.clone(),
        });
    }
    listed
}

/// In the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    HasSlot,
    InLine,
    /// It waits for something else than its turn.
    Aside,
}

fn standing(job: &JobStatus, place: &PlaceView) -> Option<Standing> {
    match job.state {
        StateWord::Starting | StateWord::Running | StateWord::Frozen | StateWord::Stopping => {
            Some(Standing::HasSlot)
        }
        StateWord::Queued if !place.held && place.not_before.is_none() => Some(Standing::InLine),
        StateWord::Queued | StateWord::Waiting | StateWord::Backoff | StateWord::Held => {
            Some(Standing::Aside)
        }
        StateWord::Stopped | StateWord::Exited | StateWord::Fatal => None,
    }
}

pub(crate) async fn pause(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(queue): Name,
    params: Params,
) -> Result<Json<PauseReply>, Failure> {
    change(&shared, peer, &queue, params, false).await
}

pub(crate) async fn resume(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(queue): Name,
    params: Params,
) -> Result<Json<PauseReply>, Failure> {
    change(&shared, peer, &queue, params, true).await
}

async fn change(
    shared: &Shared,
    peer: Peer,
    queue: &str,
    params: Params,
    resume: bool,
) -> Result<Json<PauseReply>, Failure> {
    params.only(&[])?;
    let queue = name_of(queue)?;
    ask(shared, |reply| Ask::PauseQueue { queue, resume, peer, reply }).await.map(Json)
}

pub(crate) async fn shift(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Name(selector): Name,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ActReply>, Failure> {
    params.only(&[])?;
    let jobs = pick(&shared, &[&selector])?;
    let request: MoveRequest = read_json(&headers, body, None).await?;
    let request = Box::new(request);
    ask(&shared, |reply| Ask::Move { jobs, request, peer, reply }).await.map(Json)
}

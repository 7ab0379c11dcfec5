//! `GET /v1/jobs/NAME/output`.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::Failure;
use super::follow::Follow;
use super::output::{Series, Stream};
use super::params::{Name, Params};
use super::plan::{Begin, Common, OffsetArg, Part, PlanError, plan};
use super::render::{Form, Renderer};
use super::run_feed::Offsets;
use super::status::exact;
use super::{stream, when};
use crate::core::ids::{JobName, RunId};

const KNOWN: [&str; 9] =
    ["run", "stream", "offset", "limit", "tail", "since", "follow", "onward", "timestamps"];

/// Largest `tail`; more is everything in practice, and a multiple of it must not overflow.
const TAIL_MAX: u64 = 1 << 40;

static RUN: HeaderName = HeaderName::from_static("x-outlive-run");
static OFFSET: HeaderName = HeaderName::from_static("x-outlive-offset");
static NEXT_OFFSET: HeaderName = HeaderName::from_static("x-outlive-next-offset");

/// Which runs.
enum Runs {
    Latest,
    All,
    One(RunId),
}

struct Request {
    runs: Runs,
    only: Option<Stream>,
    begin: Begin,
    limit: Option<u64>,
    follow: bool,
    /// Whether to go on into the job's next run.
    onward: bool,
    form: Form,
}

impl Request {
    fn read(params: Params, headers: &HeaderMap) -> Result<Self, Failure> {
        let params = params.only(&KNOWN)?;
        let runs = match params.text("run") {
            None | Some("latest") => Runs::Latest,
            Some("all") => Runs::All,
            Some(id) => Runs::One(id.parse().map_err(|_| {
                Failure::bad(format!("run={id:?} is neither a run id nor \"latest\" nor \"all\""))
            })?),
        };
        let only = match params.text("stream") {
            None | Some("all") => None,
            Some("stdout") => Some(Stream::Stdout),
            Some("stderr") => Some(Stream::Stderr),
            Some(other) => {
                return Err(Failure::bad(format!("stream={other:?} is none of stdout, stderr, all")));
            }
        };
        let offset: Option<OffsetArg> = params.parsed("offset", "an offset (N, or stdout:N,stderr:N)")?;
        if offset.is_some() && matches!(runs, Runs::All) {
            return Err(Failure::bad("an offset belongs to one run: give run=ID or run=latest with it"));
        }
        let tail: Option<u64> = params.parsed("tail", "a number of lines")?;
        let since = params.text("since").map(|text| {
            when::since(text, when::now_us()).ok_or_else(|| {
                Failure::bad(format!("since={text:?} is neither a time (RFC 3339) nor an age (10m, 1h30m)"))
            })
        });
        let form = match (stream::wants_events(headers), params.on("timestamps")?) {
            (true, _) => Form::Events,
            (false, true) => Form::Stamped,
            (false, false) => Form::Raw,
        };
        let follow = params.on("follow")?;
        Ok(Self {
            only,
            begin: Begin { offset, tail: tail.map(|n| n.min(TAIL_MAX)), since_us: since.transpose()? },
            limit: params.parsed("limit", "a number of bytes")?,
            follow,
            onward: follow && (params.on("onward")? || !matches!(runs, Runs::One(_))),
            runs,
            form,
        })
    }
}

pub(crate) async fn output(
    State(shared): State<Shared>,
    Name(name): Name,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let request = Request::read(params, &headers)?;
    let name = exact(&shared, &name)?;
    let runs = choose(&shared, &name, &request.runs)?;
    let dirs = runs.iter().map(|run| (*run, shared.handle.run_dir(*run).join("output"))).collect();
    let open = shared.sources.output;
    let common = Common {
        only: request.only,
        labels: request.form != Form::Raw,
        open_end: request.follow,
        begin: request.begin,
    };
    let planned = tokio::task::spawn_blocking(move || plan(open, dirs, common)).await;
    let mut parts = match planned.map_err(|e| Failure::internal(e.to_string()))? {
        Ok(parts) => parts,
        Err(PlanError::Bad(text)) => return Err(Failure::bad(text)),
        Err(PlanError::Io(e)) => return Err(Failure::internal(format!("the output cannot be read: {e}"))),
    };
    let answer_headers = headers_of(&mut parts, &request);
    let (sink, body) = stream::body();
    let follow = Follow {
        handle: shared.handle.clone(),
        open,
        job: name,
        follow: request.follow,
        chase: request.onward,
        left: request.limit,
        renderer: Renderer::new(request.form),
        sink,
        ending: shared.ending.clone(),
    };
    tokio::spawn(follow.run(parts));
    Ok((answer_headers, body).into_response())
}

/// The runs asked for, oldest first.
fn choose(shared: &Shared, job: &JobName, runs: &Runs) -> Result<Vec<RunId>, Failure> {
    let view = shared.view();
    let known = view.runs(job).unwrap_or_default();
    match runs {
        Runs::All => Ok(known.iter().map(|r| r.run).collect()),
        Runs::Latest => Ok(known.last().map(|r| r.run).into_iter().collect()),
        Runs::One(id) if known.iter().any(|r| r.run == *id) => Ok(vec![*id]),
        Runs::One(id) => Err(Failure::not_found(format!("job {:?} has no run {id}", job.as_str()))),
    }
}

/// Says where the answer begins, and where the next one would; applies `limit` where the end can be told.
fn headers_of(parts: &mut [Part], request: &Request) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let kind = match request.form {
        Form::Events => stream::EVENT_STREAM,
        Form::Raw | Form::Stamped => "application/octet-stream",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let single = parts.len() == 1;
    if let Some(limit) = request.limit
        && let [part] = parts
        && let (Some(from), Some(to), None) = (part.choice.from.merged, part.choice.to.merged, request.only)
    {
        part.choice.to.set(Series::Merged, to.min(from.saturating_add(limit)));
    }
    let mut put = |name: &HeaderName, text: Option<String>| {
        if let Some(value) = text.and_then(|t| HeaderValue::from_str(&t).ok()) {
            headers.insert(name.clone(), value);
        }
    };
    put(&OFFSET, parts.first().and_then(|part| offset_text(part.choice.from)));
    if let Some(part) = parts.last() {
        put(&RUN, Some(part.run.to_string()));
        let told =
            request.limit.is_none() || single && request.only.is_none() && part.choice.to.merged.is_some();
        put(&NEXT_OFFSET, offset_text(part.choice.to).filter(|_| told && !request.follow));
    }
    headers
}

fn offset_text(offsets: Offsets) -> Option<String> {
    match (offsets.merged, offsets.stdout, offsets.stderr) {
        (Some(n), _, _) => Some(n.to_string()),
        (None, Some(out), Some(err)) => Some(format!("stdout:{out},stderr:{err}")),
        (None, Some(n), None) | (None, None, Some(n)) => Some(n.to_string()),
        (None, None, None) => None,
    }
}

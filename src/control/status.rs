//! What is: version, health, readiness, status, one job, its runs. Read from the latest view.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Shared;
use super::error::Failure;
use super::params::{Name, Params};
use crate::core::ids::JobName;
use crate::core::select;
use crate::supervisor::handle::{AskError, View};
use crate::wire::control::{API, Health, InstanceState, JobDetail, RunView, Status, Version};

pub(crate) async fn version(State(shared): State<Shared>, params: Params) -> Result<Json<Version>, Failure> {
    params.only(&[])?;
    Ok(Json(Version {
        version: shared.view().instance.version.clone(),
        api: API.to_owned(),
        keeper_protocol: crate::wire::keeper::VERSION,
    }))
}

pub(crate) async fn health(State(shared): State<Shared>, params: Params) -> Result<Response, Failure> {
    params.only(&[])?;
    let view = shared.view();
    let (resources, host) = (view.instance.degraded_resources.clone(), (*view.host).clone());
    let healthy = host.status != "unhealthy";
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let health = Health { healthy, degraded: !resources.is_empty(), resources, host };
    Ok((status, Json(health)).into_response())
}

pub(crate) async fn ready(State(shared): State<Shared>, params: Params) -> Result<Response, Failure> {
    params.only(&[])?;
    let ready = shared.view().ready;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({ "ready": ready }))).into_response())
}

pub(crate) async fn status(State(shared): State<Shared>, params: Params) -> Result<Json<Status>, Failure> {
    let params = params.only(&["job"])?;
    let selectors: Vec<&str> = params.all("job").collect();
    let view = known(&shared)?;
    let names =
        if selectors.is_empty() { view.names().cloned().collect() } else { pick(&shared, &selectors)? };
    let jobs = names.iter().filter_map(|name| view.job(name)).map(Arc::unwrap_or_clone).collect();
    let alerts = super::insight::raised(&view);
    Ok(Json(Status { instance: (*view.instance).clone(), jobs, alerts }))
}

pub(crate) async fn job(
    State(shared): State<Shared>,
    Name(name): Name,
    params: Params,
) -> Result<Json<JobDetail>, Failure> {
    params.only(&[])?;
    let name = exact(&shared, &name)?;
    let view = shared.view();
    let job = view.job(&name).ok_or_else(|| gone(&name))?;
    let stats = super::stats::of(&view, &job);
    Ok(Json(JobDetail { status: Arc::unwrap_or_clone(job), stats }))
}

pub(crate) async fn runs(
    State(shared): State<Shared>,
    Name(name): Name,
    params: Params,
) -> Result<Json<Vec<RunView>>, Failure> {
    params.only(&[])?;
    let name = exact(&shared, &name)?;
    let view = shared.view();
    Ok(Json(view.runs(&name).map(Arc::unwrap_or_clone).unwrap_or_default()))
}

/// The latest view, once it is known which jobs there are.
pub(crate) fn known(shared: &Shared) -> Result<Arc<View>, Failure> {
    let view = shared.view();
    if view.known { Ok(view) } else { Err(AskError::Recovering.into()) }
}

fn gone(name: &JobName) -> Failure {
    Failure::not_found(format!("there is no job {:?}", name.as_str()))
}

/// The jobs that selectors mean.
pub(crate) fn pick(shared: &Shared, selectors: &[&str]) -> Result<Vec<JobName>, Failure> {
    let view = known(shared)?;
    let names: Vec<&JobName> = view.names().collect();
    select::select_all(selectors, names.iter().copied()).map_err(|e| {
        // Before the survey is done, a job that is not there may only be not there yet.
        if view.instance.state == InstanceState::Recovering && !view.ready {
            return AskError::Recovering.into();
        }
        e.into()
    })
}

/// The one job of exactly this name: an instance is named in full here.
pub(crate) fn exact(shared: &Shared, name: &str) -> Result<JobName, Failure> {
    let view = shared.view();
    match JobName::new(name) {
        Ok(name) if view.has(&name) => Ok(name),
        _ => {
            let found = pick(shared, &[name])?;
            let names: Vec<String> = found.iter().map(|n| format!("{:?}", n.as_str())).collect();
            Err(Failure::not_found(format!(
                "{name:?} is not the name of one job; it stands for {}",
                names.join(", ")
            )))
        }
    }
}

//! The table of routes.

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::routing::{MethodRouter, get, post};

use super::error::Failure;
use super::{
    Shared, act, audit, events, insight, instance, metrics, openapi, output_route, publish, queues, recovery,
    sagas, stats, status,
};

/// One route: its method, its path, and who answers.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    handler: MethodRouter<Shared>,
}

fn reads(path: &'static str, handler: MethodRouter<Shared>) -> Route {
    Route { method: "get", path, handler }
}

fn changes(path: &'static str, handler: MethodRouter<Shared>) -> Route {
    Route { method: "post", path, handler }
}

/// Every route there is.
pub(crate) fn table() -> Vec<Route> {
    vec![
        reads("/metrics", get(metrics::metrics)),
        reads("/api/alerts", get(insight::alerts)),
        reads("/api/admin/recovery/metrics", get(insight::recovery)),
        reads("/v1/version", get(status::version)),
        reads("/v1/health", get(status::health)),
        reads("/v1/ready", get(status::ready)),
        reads("/v1/status", get(status::status)),
        reads("/v1/jobs/{name}", get(status::job)),
        reads("/v1/jobs/{name}/runs", get(status::runs)),
        reads("/v1/jobs/{name}/output", get(output_route::output)),
        reads("/v1/stats", get(stats::stats)),
        reads("/v1/events", get(events::events)),
        reads("/v1/audit", get(audit::audit)),
        reads("/v1/sagas", get(sagas::list)),
        reads("/v1/sagas/{id}", get(sagas::saga)),
        reads("/v1/recovery", get(recovery::report)),
        reads("/v1/recovery/starts", get(recovery::starts)),
        reads("/v1/recovery/plan", get(recovery::plan)),
        changes("/v1/recovery/run", post(recovery::recover)),
        changes("/v1/recovery/skip", post(recovery::skip)),
        changes("/v1/recovery/exit", post(recovery::exit)),
        changes("/v1/journal/scrub", post(recovery::scrub)),
        reads("/v1/openapi.json", get(openapi::document)),
        changes("/v1/jobs/{name}/start", post(act::start)),
        changes("/v1/jobs/{name}/stop", post(act::stop)),
        changes("/v1/jobs/{name}/restart", post(act::restart)),
        changes("/v1/jobs/{name}/signal", post(act::send_signal)),
        changes("/v1/jobs/{name}/move", post(queues::shift)),
        reads("/v1/queues", get(queues::queues)),
        changes("/v1/queues/{name}/pause", post(queues::pause)),
        changes("/v1/queues/{name}/resume", post(queues::resume)),
        changes("/v1/jobs/{name}/stdin", post(act::stdin)),
        changes("/v1/runs/{run}/progress", post(publish::progress)),
        changes("/v1/reload", post(instance::reload)),
        changes("/v1/run", post(instance::run)),
        changes("/v1/shutdown", post(instance::shutdown)),
    ]
}

/// The routes as a service.
pub(crate) fn router(shared: Shared) -> Router {
    let router = table().into_iter().fold(Router::new(), |r, route| r.route(route.path, route.handler));
    router
        .fallback(|uri: Uri| async move { Failure::not_found(format!("there is no {}", uri.path())) })
        .method_not_allowed_fallback(|| async {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path has another method")
        })
        .with_state(shared)
}

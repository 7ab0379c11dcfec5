//! Every error answer, as [`ErrorReply`] JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::core::select::NoMatch;
use crate::supervisor::handle::AskError;
use crate::wire::control::ErrorReply;

/// A request that was not granted.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    reply: ErrorReply,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &str, error: impl Into<String>) -> Self {
        Self { status, reply: ErrorReply { error: error.into(), code: code.to_owned(), details: Vec::new() } }
    }

    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", error)
    }

    pub(crate) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", error)
    }

    pub(crate) fn internal(error: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let text = format!("the body has more than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
    }

    pub(crate) fn details(mut self, details: Vec<String>) -> Self {
        self.reply.details = details;
        self
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let text = error.to_string();
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            AskError::NotFound(_) => Self::not_found(text),
            AskError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", text),
            AskError::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, "forbidden", text),
            AskError::Bad { details, .. } => Self::bad(text).details(details),
            AskError::ReadOnly(_) => Self::new(busy, "read_only", text),
            AskError::Recovering => Self::new(busy, "recovering", text),
            AskError::Busy => Self::new(busy, "busy", text),
            AskError::Gone => Self::new(busy, "gone", text),
            AskError::Internal(_) => Self::internal(text),
        }
    }
}

impl From<NoMatch> for Failure {
    fn from(error: NoMatch) -> Self {
        let details =
            error.closest.iter().map(|name| format!("there is a job {:?}", name.as_str())).collect();
        Self::not_found(error.to_string()).details(details)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let soon = matches!(self.reply.code.as_str(), "recovering" | "busy");
        let mut response = (self.status, Json(self.reply)).into_response();
        if soon {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

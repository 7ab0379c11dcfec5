//! What comes in with a request: names in the path, parameters in the query, a bounded body.

use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::Failure;

/// Largest body of a request, other than one that carries stdin.
pub(crate) const BODY_MAX: usize = 1024 * 1024;

/// How long a client may take to send its body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The one name or selector in a path, percent-decoded.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|e| Failure::bad(e.body_text()))
    }
}

/// The query, in the order given; a name may come more than once.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query: Result<Query<Vec<(String, String)>>, _> = Query::from_request_parts(parts, state).await;
        query.map(|Query(pairs)| Self(pairs)).map_err(|e| Failure::bad(e.body_text()))
    }
}

impl Params {
    /// Refuses every parameter that is not in `known`: a misspelt one would silently do something else.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, Failure> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(self),
            Some((name, _)) => {
                let known = if known.is_empty() {
                    "none are".to_owned()
                } else {
                    format!("known: {}", known.join(", "))
                };
                Err(Failure::bad(format!("unknown parameter {name:?} ({known})")))
            }
        }
    }

    /// The last value of a parameter.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a number or something else with a text form.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Failure> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| Failure::bad(format!("{name}={text:?} is not {what}"))))
            .transpose()
    }

    /// A switch: `true`, `1` and the bare name are on, `false`, `0` and absence are off.
    pub(crate) fn on(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => Err(Failure::bad(format!("{name}={other:?} is neither true nor false"))),
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limit as u64) {
        return Err(Failure::too_large(limit));
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await {
        Err(_) => {
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time"))
        }
        Ok(Ok(all)) => Ok(all.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(Failure::too_large(limit)),
        Ok(Err(e)) => Err(Failure::bad(format!("the body could not be read: {e}"))),
    }
}

/// Reads a JSON body, whatever its content type says; an empty one is `T`'s default where there is one.
pub(crate) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    if_empty: Option<T>,
) -> Result<T, Failure> {
    let bytes = read_body(headers, body, BODY_MAX).await?;
    if let (true, Some(value)) = (bytes.is_empty(), if_empty) {
        return Ok(value);
    }
    serde_json::from_slice(&bytes).map_err(|e| Failure::bad(format!("the body is not as expected: {e}")))
}

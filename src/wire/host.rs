//! How the host and the instance itself are, as clients see it.

use serde::{Deserialize, Serialize};

/// The checks of `[health]`, and what they come to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostView {
    /// `healthy`, `degraded` or `unhealthy`; empty while nothing is checked yet.
    pub status: String,
    /// 0 to 100.
    pub score: u32,
    /// Each of them.
    pub checks: Vec<CheckView>,
    /// What this supervisor has done about them.
    pub heals: Vec<HealsView>,
    /// Why no run is started now, if none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_held: Option<String>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckView {
    /// Its name: `memory`, `disk:/path`, `check:NAME`, …
    pub name: String,
    /// `unknown`, `ok`, `failing` or `failed`.
    pub state: String,
    /// Failures in a row.
    pub failures: u32,
    /// Failures in a row that mean something.
    pub heal_after: u32,
    /// How much is in use, in percent, where that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// From how much on it fails, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// What is wrong, or what it has shown.
    pub text: String,
    /// When it was made last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// `improving`, `stable` or `degrading`, over the last ten.
    pub trend: String,
}

/// How often something was done about a check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HealsView {
    /// The check.
    pub check: String,
    /// What was done.
    pub act: String,
    /// `ok`, `failed`, `busy`: it was under way still; `nothing`: there was nothing to do; `not_now`.
    pub result: String,
    /// How often, by this supervisor.
    pub count: u64,
}

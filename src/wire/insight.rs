//! What clients see of recoveries and alerts: plain data, JSON field names are the contract.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::alerts::{Alert, Cleared, Raised, Severity};
use crate::core::ids::JobName;

/// An alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertView {
    /// Which rule: `CRASH_LOOP`, …
    pub id: String,
    /// A job, or `instance`.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// In words.
    pub message: String,
    /// The figure.
    pub value: f64,
    /// The threshold that it crossed.
    pub threshold: f64,
    /// Since when it is, or was, raised.
    pub since: String,
    /// Until when it was; absent while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl AlertView {
    fn new(alert: &Alert, since: String, until: Option<String>) -> Self {
        let Alert { id, subject, severity, message, value, threshold } = alert.clone();
        Self { id, subject, severity, message, value, threshold, since, until }
    }
}

impl From<&Raised> for AlertView {
    fn from(raised: &Raised) -> Self {
        Self::new(&raised.alert, raised.since.rfc3339(), None)
    }
}

impl From<&Cleared> for AlertView {
    fn from(cleared: &Cleared) -> Self {
        Self::new(&cleared.alert, cleared.since.rfc3339(), Some(cleared.until.rfc3339()))
    }
}

/// `GET /api/alerts`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AlertsView {
    /// Those that are raised, the oldest first.
    pub raised: Vec<AlertView>,
    /// The last that are over, the latest last; 100 at most.
    pub recent: Vec<AlertView>,
}

/// What became of incidents of one cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CauseView {
    /// The job was up again.
    pub recovered: u64,
    /// It was given up.
    pub failed: u64,
    /// How long the recovered ones took, the mean; none without any.
    pub mean_seconds: Option<f64>,
}

/// What the failures of several jobs have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternView {
    /// In words.
    pub pattern: String,
    /// The jobs.
    pub jobs: Vec<JobName>,
}

/// `GET /api/admin/recovery/metrics`. Counted from the event log, since the state directory was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryMetrics {
    /// Incidents that were recovered of those that are over, from 0 to 1; none without any.
    pub recovery_success_rate: Option<f64>,
    /// The same by what they began with: a cause of an end, or what was wrong with a live run.
    pub by_cause: BTreeMap<String, CauseView>,
    /// How long recoveries took, the mean.
    pub mean_seconds: Option<f64>,
    /// 95 of 100 took no longer, of the latest 1,000.
    pub p95_seconds: Option<f64>,
    /// 99 of 100 took no longer, of the latest 1,000.
    pub p99_seconds: Option<f64>,
    /// Incidents after which the job was up again.
    pub recovered: u64,
    /// Incidents after which it was given up.
    pub failed: u64,
    /// Incidents that are not over.
    pub open: u64,
    /// Entries of the event log that were missing when this supervisor began.
    pub data_loss_percent: f64,
    /// The least of: entries that are not missing, laws that hold.
    pub integrity_percent: f64,
    /// How long services were up of the time they were wanted.
    pub availability_percent: f64,
    /// What is raised.
    pub alerts: Vec<AlertView>,
    /// What failures have in common now, the most frequent first; five at most.
    pub common_failure_patterns: Vec<PatternView>,
}

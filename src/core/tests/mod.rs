//! Traces and laws of the core.

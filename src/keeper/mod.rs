//! The keeper: spawns runs and captures their output. Decides nothing.

pub mod capture;

//! The protocols between the roles and with clients, as plain versioned data.

pub mod bytes;
pub mod control;
pub mod frame;
pub mod health;
pub mod host;
pub mod init;
pub mod insight;
pub mod keeper;
pub mod queue;
pub mod words;

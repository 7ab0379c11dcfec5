//! The control socket as a client sees it: a real socket, a main loop that records what it is asked, and
//! runs whose output lies in plain files.

mod fake;
mod limits;
mod output;
mod verbs;

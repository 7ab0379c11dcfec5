//! Why a verb failed, and the exit code that says so.

use std::io;

use super::code;
use crate::client;

/// A verb that did not succeed.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The instance did not answer, or said no.
    Client(client::Error),
    /// The command line is wrong.
    Usage(String),
    /// Anything else, in words.
    Other(String),
    /// Stdout or a file.
    Io(io::Error),
    /// Everything was said already.
    Code(u8),
}

impl From<client::Error> for Fail {
    fn from(e: client::Error) -> Self {
        Self::Client(e)
    }
}

impl From<io::Error> for Fail {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl Fail {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => code::USAGE,
            Self::Code(code) => *code,
            // Whoever read our output has enough.
            Self::Io(e) if e.kind() == io::ErrorKind::BrokenPipe => code::OK,
            Self::Client(_) | Self::Other(_) | Self::Io(_) => code::FAILED,
        }
    }

    /// Lines for stderr.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Code(_) => Vec::new(),
            Self::Io(e) if e.kind() == io::ErrorKind::BrokenPipe => Vec::new(),
            Self::Io(e) => vec![format!("outlive: {e}")],
            Self::Usage(text) | Self::Other(text) => vec![format!("outlive: {text}")],
            Self::Client(e) => client_lines(e),
        }
    }
}

fn client_lines(error: &client::Error) -> Vec<String> {
    match error {
        client::Error::NotRunning { .. } => {
            vec![format!("outlive: {error}; start one with `outlive up`")]
        }
        client::Error::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            vec![format!("outlive: {error}: it belongs to another user")]
        }
        client::Error::Connect { source, .. } => vec![format!("outlive: {error}: {source}")],
        // The names that are near are in the text already.
        client::Error::Refused { status: 404, .. } => vec![format!("outlive: {error}")],
        client::Error::Refused { reply, .. } => {
            let said = error.to_string();
            // A detail of several lines shows a place in a file: all of it is moved in.
            let details = reply.details.iter().flat_map(|detail| detail.lines());
            let details = details.map(|line| format!("  {line}"));
            std::iter::once(format!("outlive: {said}")).chain(details).collect()
        }
        client::Error::Protocol(_) => vec![format!("outlive: {error}")],
    }
}

//! Answers that go on: bytes, lines, events.

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};

use super::{Error, base64, broken};
use crate::core::ids::RunId;
use crate::wire::control::{EventView, OutputEvent};

/// The bytes of an answer as they come.
#[derive(Debug)]
pub struct Body(Incoming);

impl Body {
    pub(super) fn new(body: Incoming) -> Self {
        Self(body)
    }

    /// The next bytes; `None` at the proper end. An answer that breaks off is [`Error::Protocol`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Everything to the end.
    pub async fn collect(mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(data) = self.chunk().await? {
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

/// Cuts a body into lines.
#[derive(Debug)]
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// How much of the buffer has been handed out.
    taken: usize,
}

impl Lines {
    /// The next line without its end.
    async fn next(&mut self) -> Result<Option<String>, Error> {
        let mut searched = self.taken;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let end = searched + at;
                let line = String::from_utf8_lossy(&self.buffer[self.taken..end]).into_owned();
                self.taken = end + 1;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            searched = self.buffer.len();
            match self.body.chunk().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::Protocol("the answer ends within a line".to_owned())),
            }
        }
    }
}

/// Recorded decisions, one at a time.
#[derive(Debug)]
pub struct EventLines(Lines);

impl EventLines {
    pub(super) fn new(body: Body) -> Self {
        Self(Lines { body, buffer: Vec::new(), taken: 0 })
    }

    /// The next one, and the JSON it came as; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(EventView, String)>, Error> {
        match self.0.next().await? {
            None => Ok(None),
            Some(line) => Ok(Some((serde_json::from_str(&line).map_err(broken)?, line))),
        }
    }
}

/// A piece of captured output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Who wrote it.
    pub run: RunId,
    /// Its first byte, in its series of files.
    pub offset: u64,
    /// `stdout` or `stderr`, where known.
    pub stream: Option<String>,
    /// Whether `offset` belongs to that stream alone.
    pub separate: bool,
    /// When it was captured, where known.
    pub at: Option<String>,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What an output stream has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputItem {
    /// Output.
    Piece(Piece),
    /// The end: everything asked for was delivered, or the supervisor is ending.
    End {
        /// True if everything asked for was delivered.
        complete: bool,
    },
}

/// Output as server-sent events.
#[derive(Debug)]
pub struct OutputStream {
    /// The run with which the answer begins, or the last of several.
    pub run: Option<RunId>,
    /// Its first byte, `N` or `stdout:N,stderr:N`.
    pub offset: Option<String>,
    lines: Lines,
}

impl OutputStream {
    pub(super) fn new(body: Body, run: Option<RunId>, offset: Option<String>) -> Self {
        Self { run, offset, lines: Lines { body, buffer: Vec::new(), taken: 0 } }
    }

    /// The next item. A stream that stops without [`OutputItem::End`] is an error: ask again from where it
    /// broke off.
    pub async fn next(&mut self) -> Result<OutputItem, Error> {
        let (mut name, mut data) = (String::new(), String::new());
        while let Some(line) = self.lines.next().await? {
            if let Some(rest) = line.strip_prefix("event: ") {
                rest.clone_into(&mut name);
            } else if let Some(rest) = line.strip_prefix("data: ") {
                rest.clone_into(&mut data);
            } else if line.is_empty() && !name.is_empty() {
                match name.as_str() {
                    "output" => return Ok(OutputItem::Piece(piece(&data)?)),
                    "end" => return Ok(OutputItem::End { complete: data.contains("complete") }),
                    // A newer supervisor may say more than this client knows.
                    _ => name.clear(),
                }
            }
        }
        Err(Error::Protocol("the output stream broke off".to_owned()))
    }
}

fn piece(json: &str) -> Result<Piece, Error> {
    let event: OutputEvent = serde_json::from_str(json).map_err(broken)?;
    let data = match (event.text, event.b64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(b64)) => base64::decode(&b64)
            .ok_or_else(|| Error::Protocol("bad base64 in the output stream".to_owned()))?,
        (None, None) => Vec::new(),
    };
    let OutputEvent { run, offset, stream, separate, at, .. } = event;
    Ok(Piece { run, offset, stream, separate, at, data })
}

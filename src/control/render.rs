//! Pieces of output as the client wants to see them.

use axum::body::Bytes;

use super::base64;
use super::output::Series;
use super::run_feed::Piece;
use super::stream;
use crate::core::ids::RunId;
use crate::core::time::Stamp;
use crate::wire::control::OutputEvent;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The captured bytes and nothing else.
    Raw,
    /// The captured bytes with the time in front of each line.
    Stamped,
    /// Server-sent events.
    Events,
}

/// Turns pieces into bytes, remembering whether a line is unfinished.
pub(crate) struct Renderer {
    form: Form,
    run: Option<RunId>,
    mid_line: bool,
}

impl Renderer {
    pub(crate) fn new(form: Form) -> Self {
        Self { form, run: None, mid_line: false }
    }

    pub(crate) fn render(&mut self, run: RunId, pieces: Vec<Piece>) -> Vec<Bytes> {
        let next_run = self.run.replace(run) != Some(run);
        match self.form {
            Form::Raw => pieces.into_iter().map(|piece| piece.data.into()).collect(),
            Form::Events => {
                pieces.into_iter().map(|p| stream::event("output", None, &view(run, p))).collect()
            }
            Form::Stamped => {
                let mut out = Vec::new();
                // The first line of a run never continues the last of the run before.
                if next_run && std::mem::take(&mut self.mid_line) {
                    out.push(b'\n');
                }
                for piece in pieces {
                    self.stamp(&piece, &mut out);
                }
                vec![out.into()]
            }
        }
    }

    fn stamp(&mut self, piece: &Piece, out: &mut Vec<u8>) {
        let at = at(piece).unwrap_or_else(|| "-".to_owned());
        for line in piece.data.split_inclusive(|b| *b == b'\n') {
            if !self.mid_line {
                out.extend_from_slice(at.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line);
            self.mid_line = !line.ends_with(b"\n");
        }
    }

    /// What closes a complete answer, or one that ends because the supervisor does.
    pub(crate) fn end(&self, why: &str) -> Option<Bytes> {
        (self.form == Form::Events).then(|| stream::event("end", None, &serde_json::json!({ "why": why })))
    }

    /// What shows that the connection lives.
    pub(crate) fn keep_alive(&self) -> Option<&'static [u8]> {
        (self.form == Form::Events).then_some(stream::KEEP_ALIVE)
    }
}

fn at(piece: &Piece) -> Option<String> {
    piece.wall_us.map(|wall_us| Stamp { boot_us: 0, wall_us }.rfc3339())
}

fn view(run: RunId, piece: Piece) -> OutputEvent {
    let at = at(&piece);
    let (text, b64) = match String::from_utf8(piece.data) {
        Ok(text) => (Some(text), None),
        Err(e) => (None, Some(base64::encode(e.as_bytes()))),
    };
    OutputEvent {
        run,
        offset: piece.offset,
        stream: piece.stream.map(|s| s.as_str().to_owned()),
        separate: piece.series != Series::Merged,
        at,
        text,
        b64,
    }
}

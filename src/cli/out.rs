//! Where words go: stdout for what was asked for, stderr for everything else.

use std::io::{self, IsTerminal, Write};

/// The two outputs, and what the terminal can show.
pub struct Out {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    /// Whether colours may be used on stdout.
    pub(crate) colour: bool,
    /// Columns of the terminal; `None` if stdout is none.
    pub(crate) width: Option<usize>,
    /// Whether stderr is a terminal, where a line can be written over.
    live: bool,
}

impl Out {
    /// The process's own.
    #[must_use]
    pub fn process() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        let live = io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { stdout: Box::new(stdout), stderr: Box::new(io::stderr()), colour, width, live }
    }

    /// Others, without colours and of any width.
    #[must_use]
    pub fn to(stdout: Box<dyn Write>, stderr: Box<dyn Write>) -> Self {
        Self { stdout, stderr, colour: false, width: None, live: false }
    }

    /// A line on stdout.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.stdout, "{text}")
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json<T: serde::Serialize>(&mut self, value: &T) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.line(&text)
    }

    /// Bytes on stdout as they are, at once.
    pub(crate) fn bytes(&mut self, data: &[u8]) -> io::Result<()> {
        self.stdout.write_all(data)?;
        self.stdout.flush()
    }

    /// A remark for people on stderr. That it cannot be written is nobody's loss.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{text}");
    }

    /// What is being done, on a terminal's last line; an empty text takes it away.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.live {
            let _ = write!(self.stderr, "\r{text}\x1b[K");
            let _ = self.stderr.flush();
        }
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

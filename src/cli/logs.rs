//! `outlive logs`.
//!
//! One job without decoration comes as raw bytes. Everything that follows, or tells several jobs apart, is
//! read as events: each says where its bytes stand, so that a reader whose supervisor dies asks its
//! successor for exactly what comes next.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::args::LogsArgs;
use super::error::Fail;
use super::watch::{PATIENCE, PATIENCE_AT_END, PAUSE};
use super::{Ctx, Out, code};
use crate::client::{Client, Error, OutputItem, OutputQuery, OutputStream, Piece};
use crate::core::ids::{JobName, RunId};

/// Pieces that may wait to be printed.
const WAITING_MAX: usize = 16;

pub(crate) async fn logs(args: &LogsArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let names: Vec<JobName> =
        ctx.client.status(&args.jobs).await?.jobs.into_iter().map(|job| job.name).collect();
    let query = OutputQuery {
        run: (args.run != "latest").then(|| args.run.clone()),
        stream: Some(args.stream.as_str().to_owned()),
        tail: args.lines,
        since: args.since.clone(),
        follow: args.follow,
        ..OutputQuery::default()
    };
    match names.as_slice() {
        [] => Ok(code::OK),
        [_, _, ..] if args.raw => Err(Fail::Usage("--raw is for one job".to_owned())),
        [name] if !args.follow && !args.timestamps => plain(name, &query, ctx).await,
        [name] => {
            let printer = Printer::new(args, &[]);
            printed(vec![(String::new(), name.clone())], &query, printer, ctx).await
        }
        several => {
            let jobs = several.iter().map(|name| (name.to_string(), name.clone())).collect();
            printed(jobs, &query, Printer::new(args, several), ctx).await
        }
    }
}

/// A parameter that was refused is an option here, and a wrong one is wrong usage.
fn in_options(error: Error) -> Fail {
    match &error {
        Error::Refused { status: 400, reply } if reply.error.contains('=') => {
            Fail::Usage(format!("--{}", reply.error.replacen('=', " ", 1)))
        }
        _ => Fail::Client(error),
    }
}

/// The bytes and nothing else.
async fn plain(name: &JobName, query: &OutputQuery, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let mut body = ctx.client.output_raw(name, query).await.map_err(in_options)?.body;
    while let Some(data) = body.chunk().await? {
        ctx.out.bytes(&data)?;
    }
    Ok(code::OK)
}

/// A piece and the label of its job, or the end of a job's stream.
type Told = (String, Result<Option<Piece>, Error>);

/// Reads several jobs and prints what they wrote, line by line: at once when following, else one after the
/// other.
async fn printed(
    jobs: Vec<(String, JobName)>,
    query: &OutputQuery,
    mut printer: Printer,
    ctx: &mut Ctx<'_>,
) -> Result<u8, Fail> {
    let (tx, mut rx) = mpsc::channel::<Told>(WAITING_MAX);
    let (client, query, follow) = (ctx.client.clone(), query.clone(), query.follow);
    let reading = tokio::spawn(async move {
        let mut readers = tokio::task::JoinSet::new();
        for (label, name) in jobs {
            let reader = Reader { client: client.clone(), name, query: query.clone(), tx: tx.clone() };
            if follow {
                readers.spawn(reader.run(label));
            } else {
                reader.run(label).await;
            }
        }
        drop(tx);
        while readers.join_next().await.is_some() {}
    });
    let mut result = code::OK;
    while let Some((label, told)) = rx.recv().await {
        match told {
            Ok(Some(piece)) => printer.piece(&label, piece, ctx.out)?,
            Ok(None) => printer.finish(&label, ctx.out)?,
            Err(e) => {
                printer.finish(&label, ctx.out)?;
                let fail = in_options(e);
                for line in fail.lines() {
                    ctx.out.note(&line);
                }
                result = fail.code();
            }
        }
    }
    reading.abort();
    Ok(result)
}

/// Reads one job's output to its end.
struct Reader {
    client: Client,
    name: JobName,
    query: OutputQuery,
    tx: mpsc::Sender<Told>,
}

/// Why a stream is over.
enum Over {
    /// All is delivered, or nobody prints any more.
    Complete,
    /// The supervisor ends; another may follow.
    Shutdown,
}

impl Reader {
    async fn run(self, label: String) {
        let mut place: Option<Place> = None;
        let mut answered: Option<Instant> = None;
        let mut ending = false;
        let end = loop {
            let quiet = answered.map(|at| at.elapsed());
            match self.stream(&label, &mut place, &mut answered).await {
                Ok(Over::Complete) => break Ok(None),
                Ok(Over::Shutdown) => ending = true,
                Err(_) if ending && quiet.is_some_and(|q| q >= PATIENCE_AT_END) => break Ok(None),
                Err(e) if self.query.follow && e.may_pass() && quiet.is_some_and(|q| q < PATIENCE) => {}
                // The first stream broke off in the middle.
                Err(Error::Protocol(_)) if self.query.follow && quiet.is_none() && answered.is_some() => {}
                Err(e) => break Err(e),
            }
            tokio::time::sleep(PAUSE).await;
        };
        // Nobody prints any more: then nobody needs to know.
        let _ = self.tx.send((label, end)).await;
    }

    /// One stream, from where the one before broke off.
    async fn stream(
        &self,
        label: &str,
        place: &mut Option<Place>,
        answered: &mut Option<Instant>,
    ) -> Result<Over, Error> {
        let query = place.as_ref().map_or_else(|| self.query.clone(), |place| place.resume(&self.query));
        let mut stream = self.client.output(&self.name, &query).await?;
        loop {
            *answered = Some(Instant::now());
            match stream.next().await? {
                OutputItem::Piece(piece) => {
                    let begun = place.take().filter(|place| place.run == piece.run);
                    let begun = begun.unwrap_or_else(|| Place::begin(piece.run, &stream));
                    *place = Some(begun.after(&piece));
                    if self.tx.send((label.to_owned(), Ok(Some(piece)))).await.is_err() {
                        return Ok(Over::Complete);
                    }
                }
                OutputItem::End { complete: true } => return Ok(Over::Complete),
                OutputItem::End { complete: false } => return Ok(Over::Shutdown),
            }
        }
    }
}

/// How far a run has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    run: RunId,
    separate: bool,
    merged: u64,
    stdout: u64,
    stderr: u64,
}

impl Place {
    /// Before the first piece of a run: where the answer said that it begins, if it began with this run.
    fn begin(run: RunId, stream: &OutputStream) -> Self {
        let told = stream.offset.as_deref().filter(|_| stream.run == Some(run)).unwrap_or("");
        let (stdout, stderr) = told.split_once(',').unwrap_or_default();
        let number =
            |text: &str, name: &str| text.strip_prefix(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        Self {
            run,
            separate: false,
            merged: 0,
            stdout: number(stdout, "stdout:"),
            stderr: number(stderr, "stderr:"),
        }
    }

    /// After another piece.
    fn after(mut self, piece: &Piece) -> Self {
        self.separate = piece.separate;
        let end = piece.offset + piece.data.len() as u64;
        match piece.stream.as_deref() {
            _ if !piece.separate => self.merged = end,
            Some("stderr") => self.stderr = end,
            _ => self.stdout = end,
        }
        self
    }

    /// What to ask for next.
    fn resume(&self, first: &OutputQuery) -> OutputQuery {
        let offset = match (self.separate, first.stream.as_deref()) {
            (false, _) => self.merged.to_string(),
            (true, Some("stdout")) => self.stdout.to_string(),
            (true, Some("stderr")) => self.stderr.to_string(),
            (true, _) => format!("stdout:{},stderr:{}", self.stdout, self.stderr),
        };
        OutputQuery {
            run: Some(self.run.to_string()),
            // One run that was named is all that is wanted; else the job's next ones, too.
            onward: first.run.as_deref().is_none_or(|run| run == "all"),
            offset: Some(offset),
            tail: None,
            since: None,
            ..first.clone()
        }
    }
}

/// Longest unfinished line that is held back for the rest of it.
const LINE_MAX: usize = 1024 * 1024;

/// Prints pieces as they are, or line by line with a name and a time.
struct Printer {
    stamps: bool,
    /// Width of the names; 0 without names.
    width: usize,
    names: Vec<String>,
    /// What each stream of each job has begun: a line never goes on in another stream.
    pending: BTreeMap<(String, Option<String>), Pending>,
}

#[derive(Default)]
struct Pending {
    line: Vec<u8>,
    at: Option<String>,
    run: Option<RunId>,
}

impl Printer {
    fn new(args: &LogsArgs, several: &[JobName]) -> Self {
        let names: Vec<String> = several.iter().map(ToString::to_string).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0);
        Self { stamps: args.timestamps, width, names, pending: BTreeMap::new() }
    }

    fn piece(&mut self, label: &str, piece: Piece, out: &mut Out) -> std::io::Result<()> {
        if !self.stamps && self.names.is_empty() {
            return out.bytes(&piece.data);
        }
        let stream = piece.stream.clone().filter(|_| piece.separate);
        let key = (label.to_owned(), stream);
        let mut pending = self.pending.remove(&key).unwrap_or_default();
        // A line never goes on in another run.
        if pending.run.replace(piece.run) != Some(piece.run) && !pending.line.is_empty() {
            self.print(label, &mut pending, out)?;
        }
        for part in piece.data.split_inclusive(|b| *b == b'\n') {
            if pending.line.is_empty() {
                pending.at.clone_from(&piece.at);
            }
            pending.line.extend_from_slice(part);
            if part.ends_with(b"\n") || pending.line.len() >= LINE_MAX {
                self.print(label, &mut pending, out)?;
            }
        }
        self.pending.insert(key, pending);
        Ok(())
    }

    /// Prints what is left of a job's last lines.
    fn finish(&mut self, label: &str, out: &mut Out) -> std::io::Result<()> {
        let (over, others) =
            std::mem::take(&mut self.pending).into_iter().partition(|((l, _), _)| l == label);
        self.pending = others;
        let over: BTreeMap<_, Pending> = over;
        for (_, mut pending) in over {
            if !pending.line.is_empty() {
                self.print(label, &mut pending, out)?;
            }
        }
        Ok(())
    }

    fn print(&self, label: &str, pending: &mut Pending, out: &mut Out) -> std::io::Result<()> {
        let mut line = Vec::with_capacity(pending.line.len() + self.width + 40);
        if let Some(index) = self.names.iter().position(|name| name == label) {
            let name = format!("{label:width$} | ", width = self.width);
            // Six colours that can be read on light and on dark.
            let colour = 31 + index % 6;
            let name = if out.colour { format!("\x1b[{colour}m{name}\x1b[0m") } else { name };
            line.extend_from_slice(name.as_bytes());
        }
        if self.stamps {
            line.extend_from_slice(pending.at.as_deref().unwrap_or("-").as_bytes());
            line.push(b' ');
        }
        line.append(&mut pending.line);
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        out.bytes(&line)
    }
}

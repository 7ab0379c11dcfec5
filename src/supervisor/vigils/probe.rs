//! Asking a run whether it is well: by a command, over HTTP, or by connecting to it. Who does not answer within
//! the probe's time has not answered. Where we lack what it takes to ask, nothing is known.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::super::commands;
use super::super::main_loop::Supervisor;
use super::{aside, lookup};
use crate::core::ids::RunId;
use crate::core::job::Job;
use crate::core::spec::JobSpec;
use crate::core::watch::{Probe, ProbeAsk, http_port};
use crate::sys::pidfd;

/// Why there was no yes, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum NoYes {
    /// It said no, or nothing in time.
    No(String),
    /// It could not be asked, and that is no fault of its own.
    Unasked(String),
}

impl NoYes {
    pub(in super::super) fn words(self) -> String {
        match self {
            Self::No(why) | Self::Unasked(why) => why,
        }
    }

    /// What an error of a call means that opens a descriptor.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                Self::Unasked(error.to_string())
            }
            Some(_) | None => Self::No(error.to_string()),
        }
    }

    /// What it means that a command does not start. That there is none of that name is an answer.
    fn of_start(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Unasked(error.to_string()),
            Some(_) | None => Self::of(error),
        }
    }
}

fn no(error: impl ToString) -> NoYes {
    NoYes::No(error.to_string())
}

/// Who asks, and what about.
pub(super) struct Asker {
    run: RunId,
    pid: Option<i32>,
    spec: Arc<JobSpec>,
    socket: PathBuf,
}

impl Asker {
    pub(super) fn new(supervisor: &Supervisor, run: RunId, spec: &Arc<JobSpec>) -> Self {
        let pid = supervisor.state.job(&spec.name).and_then(Job::pid);
        Self { run, pid, spec: Arc::clone(spec), socket: supervisor.socket.clone() }
    }

    /// Asks; an error says why that is no yes.
    pub(super) async fn ask(self, probe: &Probe) -> Result<(), NoYes> {
        let time = probe.timeout.as_duration();
        if let ProbeAsk::Exec(argv) = &probe.ask {
            let (argv, run) = (argv.clone(), self);
            let (tell, answer) = tokio::sync::oneshot::channel();
            aside(move || drop(tell.send(run.execute(argv, time))));
            let unasked = |_| Err(NoYes::Unasked("there is no thread to ask by".to_owned()));
            return answer.await.unwrap_or_else(unasked);
        }
        ask(&probe.ask, time).await
    }

    fn execute(self, argv: Vec<String>, time: Duration) -> Result<(), NoYes> {
        let ids = (Some(self.run), self.pid);
        let environment = commands::environment(&self.spec, ids, &self.socket, "probe");
        let command =
            commands::plain(&self.spec, &argv, environment).map_err(|error| match NoYes::of(&error) {
                NoYes::No(why) => NoYes::No(format!("its user is not known: {why}")),
                unasked @ NoYes::Unasked(_) => unasked,
            })?;
        succeeds(command, time)
    }
}

/// Asks whoever is at an address; who has so much time to answer. A command is not for this.
pub(in super::super) async fn ask(ask: &ProbeAsk, time: Duration) -> Result<(), NoYes> {
    let answer = async {
        match ask {
            ProbeAsk::Http(address) => get(address).await,
            ProbeAsk::Tcp(address) => {
                let (host, port) = host_and_port(address).ok_or_else(|| no("not a host and a port"))?;
                connect(host, port).await.map(drop)
            }
            ProbeAsk::Unix(path) => {
                UnixStream::connect(path).await.map(drop).map_err(|error| NoYes::of(&error))
            }
            ProbeAsk::Exec(_) => Err(no("a command is no address")),
        }
    };
    tokio::time::timeout(time, answer).await.unwrap_or_else(|_| Err(no_answer(time)))
}

/// Runs a command in a process group of its own, which is killed when the time is over; whether it ends with 0.
pub(in super::super) fn succeeds(command: Command, time: Duration) -> Result<(), NoYes> {
    let status = run_for(command, time)?;
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(no(format!("exit {code}"))),
        (None, signal) => Err(no(format!("signal {}", signal.unwrap_or_default()))),
    }
}

fn no_answer(time: Duration) -> NoYes {
    no(format!("no answer within {} ms", time.as_millis()))
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, NoYes> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = lookup::addresses(name, port).await?;
    TcpStream::connect(&addresses[..]).await.map_err(|error| NoYes::of(&error))
}

/// Runs a command in a process group of its own, which is killed when the time is over.
fn run_for(mut command: Command, time: Duration) -> Result<ExitStatus, NoYes> {
    let mut child = command.process_group(0).spawn().map_err(|error| NoYes::of_start(&error))?;
    // Nobody but us waits for it: until then its number, and that of its group, is its own.
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let handle = pidfd::open(pid);
    let ended = handle.as_ref().is_ok_and(|fd| pidfd::wait_ended(fd, ms));
    let answer = match &handle {
        Ok(_) => no_answer(time),
        Err(error) => NoYes::Unasked(format!("it cannot be watched: {error}")),
    };
    if !ended && let Some(group) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        // Who waits for the kernel does not even die; whoever asked does not wait for that.
        if handle.is_ok_and(|fd| !pidfd::wait_ended(&fd, 1000)) {
            aside(move || drop(child.wait()));
            return Err(answer);
        }
    }
    let status = child.wait().map_err(no)?;
    if ended { Ok(status) } else { Err(answer) }
}

/// Gets an address; only the status of the answer is read.
async fn get(address: &str) -> Result<(), NoYes> {
    let uri: Uri = address.parse().map_err(|error| no(format!("{address}: {error}")))?;
    let host = uri.host().ok_or_else(|| no(format!("{address} names no host")))?;
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let port = http_port(uri.authority().map_or(host, |authority| authority.as_str()));
    let port = port.ok_or_else(|| no(format!("{address} names no port that there is")))?;
    let stream = connect(host, port).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(no)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(target)
        .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(header::USER_AGENT, concat!("outlive/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(no)?;
    let answer = sender.send_request(request).await;
    connection.abort();
    let status = answer.map_err(no)?.status();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(no(format!("status {}", status.as_u16())))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::core::ids::JobName;
    use crate::core::time::Millis;

    async fn ask(ask: ProbeAsk, ms: u64) -> Result<(), String> {
        let name = JobName::new("a").unwrap();
        let mut spec = JobSpec::new(name, vec!["x".to_owned()]);
        spec.env.insert("SAID".to_owned(), "yes".to_owned());
        let run = RunId::from_bytes([7; 16]);
        let asker = Asker { run, pid: Some(42), spec: Arc::new(spec), socket: PathBuf::from("/socket") };
        asker.ask(&Probe { timeout: Millis(ms), ..Probe::new(ask) }).await.map_err(|why| match why {
            NoYes::No(why) => why,
            unasked @ NoYes::Unasked(_) => panic!("{unasked:?}"),
        })
    }

    fn shell(line: &str) -> ProbeAsk {
        ProbeAsk::Exec(["/bin/sh", "-c", line].map(str::to_owned).to_vec())
    }

    /// A server that gives every connection these bytes.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_status_below_400_is_a_yes() {
        for (status, well) in [("200 OK", true), ("302 Found", true), ("404 No", false), ("503 No", false)] {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let address = server(text.leak()).await;
            let answer = ask(ProbeAsk::Http(format!("http://{address}/health?x=1")), 5000).await;
            assert_eq!(answer.is_ok(), well, "{answer:?}");
        }
        let nonsense = server("no http\r\n\r\n").await;
        assert!(ask(ProbeAsk::Http(format!("http://{nonsense}")), 5000).await.is_err());
        let answer = ask(ProbeAsk::Http("http://127.0.0.1:80800/x".to_owned()), 5000).await;
        assert!(answer.unwrap_err().contains("no port"));
    }

    #[tokio::test]
    async fn who_accepts_a_connection_is_there() {
        let address = server("").await;
        assert_eq!(ask(ProbeAsk::Tcp(address), 5000).await, Ok(()));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = closed.local_addr().unwrap().to_string();
        drop(closed);
        assert!(ask(ProbeAsk::Tcp(address), 5000).await.unwrap_err().contains("refused"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(ask(ProbeAsk::Unix(path.display().to_string()), 5000).await.is_err());
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(ask(ProbeAsk::Unix(path.display().to_string()), 5000).await, Ok(()));
    }

    #[tokio::test]
    async fn who_says_nothing_has_not_answered() {
        // It takes the connection into its backlog, and nobody ever looks there.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let answer = ask(ProbeAsk::Http(format!("http://{address}/")), 50).await;
        assert_eq!(answer, Err("no answer within 50 ms".to_owned()));
    }

    #[tokio::test]
    async fn a_command_answers_by_its_code_and_has_so_much_time_with_all_it_starts() {
        let told = r#"test "$SAID $OUTLIVE_HELPER $OUTLIVE_JOB $OUTLIVE_PID" = "yes probe a 42""#;
        assert_eq!(ask(shell(told), 10_000).await, Ok(()));
        assert_eq!(ask(shell("exit 3"), 10_000).await, Err("exit 3".to_owned()));
        assert_eq!(ask(shell("kill -9 $$"), 10_000).await, Err("signal 9".to_owned()));
        let forbidden = ProbeAsk::Exec(vec!["/proc/self/status".to_owned()]);
        assert!(ask(forbidden, 10_000).await.unwrap_err().contains("denied"));
        let missing = ProbeAsk::Exec(vec!["/no/such/program".to_owned()]);
        assert!(ask(missing, 10_000).await.unwrap_err().contains("No such file"));
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        crate::sys::fifo::create(&fifo, 0o600).unwrap();
        // A child of the command holds the FIFO's other end: reading it to the end waits for its death.
        let line = format!("exec 3>{}; sleep 3600 & sleep 3600", fifo.display());
        let reader = std::thread::spawn(move || std::fs::read(fifo));
        assert_eq!(ask(shell(&line), 500).await, Err("no answer within 500 ms".to_owned()));
        assert_eq!(reader.join().unwrap().unwrap(), b"");
    }

    #[test]
    fn no_name_has_to_be_looked_up_to_ask_this_host() {
        // All of the pool, with one place, is taken.
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().max_blocking_threads(1).build().unwrap();
        let (free, taken) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || {
            let _ = taken.recv();
        });
        runtime.block_on(async {
            let port = server("HTTP/1.1 200 OK\r\n\r\n").await.rsplit_once(':').unwrap().1.to_owned();
            for host in ["localhost", "127.0.0.1", "LOCALHOST"] {
                assert_eq!(ask(ProbeAsk::Tcp(format!("{host}:{port}")), 5000).await, Ok(()), "{host}");
                let address = format!("http://{host}:{port}/");
                assert_eq!(ask(ProbeAsk::Http(address), 5000).await, Ok(()), "{host}");
            }
        });
        drop(free);
    }

    #[test]
    fn what_we_lack_is_no_answer_and_what_is_not_there_is_one() {
        let of = |errno: i32| NoYes::of_start(&io::Error::from_raw_os_error(errno));
        for errno in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE] {
            assert!(matches!(of(errno), NoYes::Unasked(_)), "{errno}");
        }
        for errno in [libc::ENOENT, libc::EACCES, libc::ENOEXEC, libc::EPERM] {
            assert!(matches!(of(errno), NoYes::No(_)), "{errno}");
        }
        // So says the socket of a server that takes no more connections.
        let full = NoYes::of(&io::Error::from_raw_os_error(libc::EAGAIN));
        assert!(matches!(full, NoYes::No(_)), "{full:?}");
    }
}

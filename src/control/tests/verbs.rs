//! Everything but output and limits.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;

use super::fake::{Fake, name, run_id, soon};
use crate::client::{Client, Error, Since};
use crate::core::spec::KillScope;
use crate::wire::control::{
    ErrorReply, InstanceState, RunRequest, SagaState, SagaView, ShutdownRequest, SignalRequest, StateWord,
};

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, ErrorReply) {
    match result {
        Err(Error::Refused { reply, status }) => (status, reply),
        other => panic!("not refused: {other:?}"),
    }
}

fn request(command: &[&str]) -> RunRequest {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    RunRequest { command, ..RunRequest::default() }
}

#[tokio::test]
async fn what_is_comes_from_the_view() {
    let fake = Fake::new();
    let client = &fake.client;
    let version = client.version().await.unwrap();
    assert_eq!((version.version.as_str(), version.api.as_str()), ("1.2.3", "v1"));
    assert!(client.ready().await.unwrap());
    fake.change(|view| view.ready = false);
    assert!(!client.ready().await.unwrap());
    let all = client.status(&[]).await.unwrap();
    assert_eq!(all.instance.state, InstanceState::Running);
    assert_eq!(all.jobs.len(), 5);
    let some = client.status(&["web".to_owned(), "a?i".to_owned()]).await.unwrap();
    let names: Vec<&str> = some.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["api", "web:1", "web:2"]);
    assert_eq!(client.job(&name("web:2")).await.unwrap().state, StateWord::Running);
    assert_eq!(client.runs(&name("api")).await.unwrap(), []);
    fake.add_run("api", run_id(1));
    assert_eq!(client.runs(&name("api")).await.unwrap()[0].run, run_id(1));
    assert!(client.openapi().await.unwrap()["paths"]["/v1/status"]["get"].is_object());
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let fake = Fake::new();
    let (status, reply) = refused(fake.client.status(&["apu".to_owned()]).await);
    assert_eq!((status, reply.code.as_str()), (404, "not_found"));
    assert_eq!(reply.error, "no job matches \"apu\"; did you mean \"api\"?");
    let (status, reply) = refused(fake.client.job(&name("web")).await);
    assert_eq!(status, 404);
    assert!(reply.error.contains("\"web:1\", \"web:2\""), "{reply:?}");
    fake.change(|view| {
        view.ready = false;
        Arc::make_mut(&mut view.instance).state = InstanceState::Recovering;
    });
    let (status, reply) = refused(fake.client.start("later").await);
    assert_eq!((status, reply.code.as_str()), (503, "recovering"));
}

#[tokio::test]
async fn verbs_reach_the_main_loop_with_their_jobs_resolved() {
    let fake = Fake::new();
    let client = &fake.client;
    let reply = client.start("web:*").await.unwrap();
    assert_eq!(reply.jobs.iter().map(|j| j.name.as_str()).collect::<Vec<_>>(), ["web:1", "web:2"]);
    client.stop("all").await.unwrap();
    client.restart("?pi").await.unwrap();
    let hup = SignalRequest { signal: "hup".to_owned(), scope: Some(KillScope::Tree) };
    client.signal("api", &hup).await.unwrap();
    let reply = client.stdin(&name("api"), Bytes::from_static(b"hello"), true).await.unwrap();
    assert_eq!(reply.bytes, 5);
    assert_eq!(client.run(&request(&["sleep", "1"])).await.unwrap().name, name("made-up"));
    client.reload(true).await.unwrap();
    client.shutdown(&ShutdownRequest { keep_jobs: true }).await.unwrap();
    assert_eq!(
        fake.asked(),
        [
            "start web:1 web:2",
            "stop api quiet refuses web:1 web:2",
            "restart api",
            "signal 1 Some(Tree) api",
            "stdin api 5 true",
            "run sleep 1",
            "reload true",
            "shutdown true",
        ]
    );
}

#[tokio::test]
async fn refusals_keep_their_kind_and_their_details() {
    let fake = Fake::new();
    let client = &fake.client;
    let (status, reply) = refused(client.stop("refuses").await);
    assert_eq!((status, reply.code.as_str(), reply.error.as_str()), (409, "conflict", "it refuses"));
    let (status, reply) = refused(client.reload(false).await);
    assert_eq!((status, reply.code.as_str()), (400, "bad_request"));
    assert_eq!(reply.details, ["a", "b"]);
    let bad = SignalRequest { signal: "NOPE".to_owned(), scope: None };
    assert_eq!(refused(client.signal("api", &bad).await).0, 400);
    assert_eq!(refused(client.run(&request(&[])).await).0, 400);
    assert_eq!(fake.asked(), ["stop refuses", "reload false"], "the rest never reached the loop");
}

#[tokio::test]
async fn a_client_tells_apart_who_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let none = Client::new(dir.path().join("none"));
    assert!(matches!(none.version().await, Err(Error::NotRunning { .. })));
    let dead = dir.path().join("dead");
    drop(super::super::bind(&dead, 0o600, None).unwrap());
    assert!(matches!(Client::new(&dead).version().await, Err(Error::NotRunning { .. })));
    let file = dir.path().join("file");
    std::fs::File::create(&file).unwrap();
    // The kernel refuses to connect to a plain file as if nobody listened.
    assert!(matches!(Client::new(&file).version().await, Err(Error::NotRunning { .. })));
}

#[tokio::test]
async fn events_are_read_and_followed() {
    let fake = Fake::new();
    for seq in 1..=600 {
        fake.record_event(seq);
    }
    let mut events = fake.client.events(Since::Seq(597), None, false).await.unwrap();
    let mut seen = Vec::new();
    while let Some((event, json)) = soon(events.next()).await.unwrap() {
        assert!(json.contains("job.removed"));
        seen.push(event.seq);
    }
    assert_eq!(seen, [598, 599, 600]);
    let mut events = fake.client.events(Since::Beginning, None, false).await.unwrap();
    let mut count = 0;
    while soon(events.next()).await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 600, "more than one block");
    let mut events = fake.client.events(Since::Now, Some(2), true).await.unwrap();
    fake.record_event(601);
    fake.record_event(602);
    fake.record_event(603);
    assert_eq!(soon(events.next()).await.unwrap().unwrap().0.seq, 601);
    assert_eq!(soon(events.next()).await.unwrap().unwrap().0.seq, 602);
    assert!(soon(events.next()).await.unwrap().is_none(), "the limit ends it");
}

#[tokio::test]
async fn the_end_of_the_supervisor_ends_streams_and_the_server() {
    let fake = Fake::new();
    let mut events = fake.client.events(Since::Now, None, true).await.unwrap();
    fake.ending.send(true).unwrap();
    assert!(soon(events.next()).await.unwrap().is_none());
    soon(fake.served).await.unwrap();
    assert!(matches!(fake.client.version().await, Err(Error::NotRunning { .. })));
}

#[tokio::test]
async fn what_may_be_rolled_back_is_asked_for_and_followed() {
    let fake = Fake::new();
    let client = &fake.client;
    let reply = client.reload_or_roll_back(Duration::from_secs(2)).await.unwrap();
    assert_eq!(reply.saga, Some(3));
    client.start_or_roll_back(&["web".to_owned(), "api".to_owned()], Duration::from_millis(7)).await.unwrap();
    assert_eq!(
        *fake.asked.lock().unwrap(),
        ["reload or roll back in 2000 ms", "start or roll back in 7 ms api web:1 web:2"]
    );
    assert_eq!(refused(client.saga(3, true).await).0, 404);
    let view = |state| SagaView {
        id: 3,
        verb: "reload".to_owned(),
        state,
        pending: Vec::new(),
        job: Some(name("web:1")),
        why: Some("exit 3".to_owned()),
        ended: None,
    };
    fake.change(|v| v.sagas = vec![Arc::new(view(SagaState::Running))]);
    assert_eq!(client.saga(3, false).await.unwrap().state, SagaState::Running);
    let (end, ()) = tokio::join!(soon(client.saga(3, true)), async {
        tokio::task::yield_now().await;
        fake.change(|v| v.sagas = vec![Arc::new(view(SagaState::RolledBack))]);
    });
    assert_eq!(end.unwrap().why.as_deref(), Some("exit 3"));
}

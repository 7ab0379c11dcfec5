//! How many decisions a second become durable, beside the least that makes bytes durable for many.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use outlive::journal::{Answer, Writer};

use crate::{ROUNDS, data, scratch};

/// How long one round takes.
const ROUND: Duration = Duration::from_millis(700);

type Submit = dyn Fn(u64, Answer) + Send + Sync;

/// Decisions per second of so many threads that wait for each.
fn closed_loop(writers: u64, submit: &Arc<Submit>) -> f64 {
    let begun = Instant::now();
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let submit = Arc::clone(submit);
            std::thread::spawn(move || {
                let mut done = 0u64;
                while begun.elapsed() < ROUND {
                    let (tell, told) = channel();
                    submit(writer, Box::new(move |result| drop(tell.send(result))));
                    told.recv().unwrap().unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    let done: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    rate
}

fn ours(writers: u64) -> f64 {
    let dir = scratch();
    let writer = Writer::start(data::open(dir.path())).unwrap();
    let entry = |writer| vec![data::event(writer, 1, 2)];
    let entries: Vec<_> = (0..writers).map(entry).collect();
    closed_loop(
        writers,
        &(Arc::new(move |n: u64, answer| {
            writer.submit(&entries[usize::try_from(n).unwrap()], answer);
        }) as Arc<Submit>),
    )
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    waiting: Vec<Answer>,
    closed: bool,
}

fn floor(writers: u64) -> f64 {
    let dir = scratch();
    let mut file = File::create(dir.path().join("bytes")).unwrap();
    let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
    let theirs = Arc::clone(&shared);
    let thread = std::thread::spawn(move || {
        let (queue, work) = &*theirs;
        loop {
            let mut queue = queue.lock().unwrap();
            while queue.waiting.is_empty() {
                if queue.closed {
                    return;
                }
                queue = work.wait(queue).unwrap();
            }
            let Queue { bytes, waiting, .. } = std::mem::take(&mut *queue);
            drop(queue);
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
            for answer in waiting {
                answer(Ok(0));
            }
        }
    });
    let entry = serde_json::to_vec(&data::event(1, 1, 2).events).unwrap();
    // As long as a line of ours.
    let line = [&entry[..], &[b'x'; 120]].concat();
    let ours = Arc::clone(&shared);
    let rate = closed_loop(
        writers,
        &(Arc::new(move |_, answer| {
            let (queue, work) = &*ours;
            let mut queue = queue.lock().unwrap();
            queue.bytes.extend_from_slice(&line);
            queue.waiting.push(answer);
            drop(queue);
            work.notify_one();
        }) as Arc<Submit>),
    );
    shared.0.lock().unwrap().closed = true;
    shared.1.notify_one();
    thread.join().unwrap();
    rate
}

pub(crate) fn append(writers: u64) {
    // They take turns, so that another load on the machine meets both.
    let (mut us, mut least) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        us.push(ours(writers));
        least.push(floor(writers));
    }
    us.sort_by(f64::total_cmp);
    least.sort_by(f64::total_cmp);
    let (us, least) = (us[ROUNDS / 2], least[ROUNDS / 2]);
    println!("append {writers:>3} writers: {us:.0}/s, floor {least:.0}/s, ratio {:.2}", us / least);
}

//! News from the capture workers, made visible to the loop by an event descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rustix::event::EventfdFlags;

use super::capture::{Capture, CaptureEvent};

pub(super) struct CaptureLink {
    pub(super) capture: Capture,
    events: Receiver<CaptureEvent>,
    bell: Arc<OwnedFd>,
}

impl CaptureLink {
    pub(super) fn new() -> io::Result<Self> {
        let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (send, events) = channel();
        let ring = Arc::clone(&bell);
        let capture = Capture::new(move |event| {
            // The receiver lives as long as the keeper's loop; a full counter is a rung bell too.
            let _ = send.send(event);
            let _ = rustix::io::write(&*ring, &1_u64.to_ne_bytes());
        })?;
        Ok(Self { capture, events, bell })
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Everything that has happened, and the bell silenced first, so that nothing is missed.
    pub(super) fn news(&self) -> Vec<CaptureEvent> {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut counter);
        self.events.try_iter().collect()
    }
}

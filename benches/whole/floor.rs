//! The least that the kernel asks for: `clone` as `vfork` does it, `execve`, `kill`, `waitpid`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr;

use crate::marks::{self, Marks};

const STACK: usize = 64 * 1024;

/// A loop that starts children and nothing else.
pub(crate) struct Floor {
    argv: Vec<Vec<CString>>,
    /// Child number by process id.
    pub(crate) pids: BTreeMap<i32, usize>,
    stack: Vec<u128>,
    stdout: i32,
}

struct Start {
    argv: Vec<*const libc::c_char>,
    env: [*const libc::c_char; 2],
    stdout: i32,
}

extern "C" fn begin(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a structure that lives until this process has executed.
    unsafe {
        let start = &*argument.cast::<Start>();
        if start.stdout >= 0 {
            libc::dup2(start.stdout, 1);
        }
        libc::execve(start.argv[0], start.argv.as_ptr(), start.env.as_ptr());
        libc::_exit(127)
    }
}

impl Floor {
    /// Will start `n` idle children.
    pub(crate) fn idle(marks: &Marks, n: usize) -> Self {
        Self::new((0..n).map(|id| marks::idle_child(&marks.path, id as u32)).collect(), -1)
    }

    pub(crate) fn new(commands: Vec<Vec<String>>, stdout: i32) -> Self {
        let argv = commands
            .into_iter()
            .map(|list| list.into_iter().map(|s| CString::new(s).unwrap()).collect())
            .collect();
        Self { argv, pids: BTreeMap::new(), stack: vec![0; STACK / 16], stdout }
    }

    pub(crate) fn spawn(&mut self, id: usize) -> i32 {
        let pointers = self.argv[id].iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        let start =
            Start { argv: pointers, env: [c"PATH=/usr/bin:/bin".as_ptr(), ptr::null()], stdout: self.stdout };
        // SAFETY: the stack is ours; CLONE_VFORK holds this thread until the child has executed.
        let pid = unsafe {
            let top = self.stack.as_mut_ptr().cast::<u8>().add(STACK);
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            libc::clone(begin, top.cast(), flags, (&raw const start).cast_mut().cast())
        };
        assert!(pid > 0, "clone: {}", std::io::Error::last_os_error());
        self.pids.insert(pid, id);
        pid
    }

    pub(crate) fn spawn_all(&mut self) {
        for id in 0..self.argv.len() {
            self.spawn(id);
        }
    }

    /// Waits for the end of any of them; its number.
    pub(crate) fn reap(&mut self) -> Option<usize> {
        // SAFETY: no status wanted.
        let pid = unsafe { libc::waitpid(-1, ptr::null_mut(), 0) };
        self.pids.remove(&pid)
    }

    pub(crate) fn kill_all(&self, signal: i32) {
        for pid in self.pids.keys() {
            // SAFETY: a child of ours that has not been reaped.
            unsafe { libc::kill(*pid, signal) };
        }
    }

    /// Ends all, and waits for it.
    pub(crate) fn end(&mut self) {
        self.kill_all(libc::SIGKILL);
        while !self.pids.is_empty() {
            self.reap();
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        } else {
            self.kill_all(libc::SIGKILL);
        }
    }
}

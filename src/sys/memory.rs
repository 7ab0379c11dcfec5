//! The allocator of the C library, kept small. Elsewhere these do nothing.

/// From now on all threads share one heap. For a process that has few threads, and whose memory wanders
/// between them: with a heap for each, what one gives back is of no use to the others.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a setting; nothing is allocated or moved by it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives what is free back to the kernel: after work that needed much more than what remains of it.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: releases free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

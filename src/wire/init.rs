//! What init and its two children say to each other: fixed-size messages on sequenced-packet sockets.
//!
//! Fixed size and plain integers, so that init reads and writes them without allocating.

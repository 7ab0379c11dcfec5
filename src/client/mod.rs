//! Typed client of the control socket.

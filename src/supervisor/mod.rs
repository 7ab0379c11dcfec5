//! The driver around the core: gathers inputs, decides, makes events durable, performs effects, publishes.

pub mod handle;

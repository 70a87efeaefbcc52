//! I/O errors: every operation of the service, every call of the engine that it makes, every way in which that can fail.
//!
//! [`calls`] has each call of an engine fail, in turn, under each operation; [`sled`] has the real engine's log and disk
//! fail under them. Either way the answer is a typed error of the right kind and never an acknowledgement (I15); what was
//! not made durable is not shown (I3), and after a restart each operation's effect is there as a whole or not at all;
//! writes end exactly when they must, reads go on, and the service says why (I19). [`descriptors`] opens the real engine
//! with too few descriptors, and where it cannot be made.
//!
//! The cells are counted on the last lines:
//!
//! ```text
//! cargo test -p metadata-service --lib io_errors -- --nocapture
//! ```

mod calls;
mod descriptors;
mod operations;
mod sled;
mod stage;

//! Connected byte streams: sockets, their two halves with buffers, writes that are batched, and addresses.

pub mod address;
pub mod halves;
pub mod socket;
pub mod write_batch;

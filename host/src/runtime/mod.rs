//! What a single-threaded event loop needs beside tokio: the time cached for one poll, cheap time-outs, and when to give memory
//! back.

pub mod alarm;
pub mod clock;
pub mod heap_trim;

//! Hashes of passwords, on a thread beside the event loop: each takes some tens of milliseconds, and memory.

use std::cell::Cell;
use std::sync::Arc;

use castling_abi::Status;
use tokio::sync::Semaphore;

use crate::wasm::PasswordWork;

thread_local! {
    /// The worker makes one hash at a time. Who waits longest is next.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// Does the work in its turn. `Full`: as many wait as may. When the future is dropped, work that has begun goes on, and others wait for
/// its end.
pub(super) async fn work_out(work: PasswordWork) -> Result<String, Status> {
    if WAITING.get() >= MOST_WAITING {
        return Err(Status::Full);
    }
    let waiting = Waiting::new();
    let turn = TURN.with(Arc::clone).acquire_owned().await;
    drop(waiting);
    let done = tokio::task::spawn_blocking(move || {
        let done = run(work);
        drop(turn);
        done
    });
    done.await.unwrap_or(Err(Status::HostFailed))
}

/// The hash; of one that was to be verified and is not the password's, an empty text.
fn run(work: PasswordWork) -> Result<String, Status> {
    match work {
        PasswordWork::Hash(algorithm, password) => {
            castling_crypto::hash_password(algorithm, &password)
        }
        PasswordWork::Verify(hash, password) => {
            let is_its = castling_crypto::verify_password(&hash, &password)?;
            Ok(if is_its { hash } else { String::new() })
        }
    }
}

struct Waiting;

impl Waiting {
    fn new() -> Self {
        WAITING.set(WAITING.get() + 1);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.set(WAITING.get() - 1);
    }
}

/// Hashes that wait in one worker: seconds of work already.
const MOST_WAITING: usize = 100;

//! Small writes that are put off until all that has come is read and worked on, and are then made in one go.
//!
//! An event loop that reads, works and writes for one request after the other has the network stack drive its own code out of
//! the processor's cache and back, and wakes whoever it writes to for each. Redis writes its replies so, too. What is put off
//! waits for no more than [`MAX_QUEUED_WRITES`] others, and for no timer: the task that writes it is next after those that were
//! woken before it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::transport::Transport;

/// State of the writes that were put off.
#[derive(Default)]
pub(super) enum Deferred {
    #[default]
    Nothing,
    Queued,
    /// The kernel has not taken all of it, and a task waits until it does.
    Unfinished(JoinHandle<()>),
}

/// A write that waits for the batch.
struct QueuedWrite {
    transport: Rc<Transport>,
    bytes: Vec<u8>,
}

/// Write batch of the current thread.
#[derive(Default)]
struct WriteBatch {
    queue: RefCell<Vec<QueuedWrite>>,
    /// Rooms for the bytes of letters.
    free_buffers: RefCell<Vec<Vec<u8>>>,
    /// Waker of [`keep_flushing`]; `None` where it does not run, and nothing can be put off.
    flusher: RefCell<Option<Waker>>,
}

thread_local! {
    static BATCH: WriteBatch = WriteBatch::default();
}

/// Most writes that are made at once.
const MAX_QUEUED_WRITES: usize = 64;

/// A larger one is written by who has it.
pub const QUEUED_WRITE_BYTES: usize = 8 * 1024;

/// For the rest of one that the kernel does not take: the other side reads nothing. As long as nginx's `send_timeout`.
const REST_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes what this thread has put off, for as long as it is polled. One task of an event loop does so.
pub fn keep_flushing() -> impl Future<Output = Infallible> {
    poll_fn(|cx| {
        BATCH.with(|batch| {
            let mut flusher = batch.flusher.borrow_mut();
            if !flusher.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
                *flusher = Some(cx.waker().clone());
            }
            drop(flusher);
            batch.send_all();
        });
        Poll::Pending
    })
}

impl Transport {
    /// Puts the bytes off, and leaves empty room in their place. False: they must be written now.
    pub fn post(self: &Rc<Self>, bytes: &mut Vec<u8>) -> bool {
        BATCH.with(|batch| {
            let mut deferred = self.deferred.borrow_mut();
            if bytes.len() > QUEUED_WRITE_BYTES || !matches!(*deferred, Deferred::Nothing) {
                return false;
            }
            let mut queue = batch.queue.borrow_mut();
            if queue.is_empty() {
                match &*batch.flusher.borrow() {
                    Some(flusher) => flusher.wake_by_ref(),
                    None => return false,
                }
            }
            *deferred = Deferred::Queued;
            let room = batch.free_buffers.borrow_mut().pop().unwrap_or_default();
            queue.push(QueuedWrite {
                transport: Rc::clone(self),
                bytes: mem::replace(bytes, room),
            });
            let is_full = queue.len() >= MAX_QUEUED_WRITES;
            drop((deferred, queue));
            if is_full {
                batch.send_all();
            }
            true
        })
    }

    /// Ready when nothing is left that was put off. What is still to be written is tried at once.
    pub fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(*self.deferred.borrow(), Deferred::Queued) {
            BATCH.with(WriteBatch::send_all);
        }
        let mut deferred = self.deferred.borrow_mut();
        if let Deferred::Unfinished(task) = &mut *deferred {
            // The task's result does not matter: a write error surfaces on the next read.
            let _ = ready!(Pin::new(task).poll(cx));
        }
        *deferred = Deferred::Nothing;
        self.poll_sealed(cx)
    }
}

impl WriteBatch {
    fn send_all(&self) {
        let mut queue = mem::take(&mut *self.queue.borrow_mut());
        for write in queue.drain(..) {
            self.send(write);
        }
        // The queue's room is for the next ones.
        let mut new = self.queue.borrow_mut();
        if new.is_empty() {
            *new = queue;
        }
    }

    fn send(&self, write: QueuedWrite) {
        let QueuedWrite {
            transport,
            mut bytes,
        } = write;
        let written = match transport.try_write(&bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // The error surfaces on the connection's next read.
            Err(_) => bytes.len(),
        };
        if written < bytes.len() || transport.has_sealed() {
            bytes.drain(..written);
            let task = tokio::task::spawn_local(finish(Rc::clone(&transport), bytes));
            *transport.deferred.borrow_mut() = Deferred::Unfinished(task);
            return;
        }
        *transport.deferred.borrow_mut() = Deferred::Nothing;
        bytes.clear();
        let mut free_buffers = self.free_buffers.borrow_mut();
        if free_buffers.len() < MAX_QUEUED_WRITES {
            free_buffers.push(bytes);
        }
    }
}

/// Writes the rest of a queued write, or gives up.
async fn finish(transport: Rc<Transport>, bytes: Vec<u8>) {
    let mut rest = &bytes[..];
    let all = poll_fn(|cx| {
        while !rest.is_empty() {
            match transport.try_write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(transport.poll_write_ready(cx)).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        transport.poll_sealed(cx)
    });
    // A write that fails surfaces on the next read, or the reader's own time-out ends the connection.
    let _ = tokio::time::timeout(REST_TIMEOUT, all).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::runtime::LocalOptions;
    use tokio::task::{spawn_local, yield_now};

    use super::*;
    use crate::runtime::alarm::Alarms;
    use crate::transport::Socket;
    use crate::transport::halves::{self, Reader, Writer};

    const MINUTE: Duration = Duration::from_secs(60);

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(test);
    }

    async fn pair() -> (Reader, Writer, UnixStream) {
        spawn_local(keep_flushing());
        yield_now().await;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = halves::split(Socket::Unix(ours));
        (reader, writer, theirs)
    }

    fn post(writer: &mut Writer, bytes: &[u8]) -> bool {
        writer.small().extend_from_slice(bytes);
        writer.post()
    }

    async fn flush(writer: &mut Writer, bytes: &[u8]) {
        writer.small().extend_from_slice(bytes);
        let flushed = writer
            .flush(&Alarms::new(Duration::from_millis(10)).alarm(), MINUTE)
            .await;
        flushed.expect("in time").expect("written");
    }

    async fn read(peer: &mut UnixStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        peer.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[test]
    fn what_is_posted_is_written_when_others_had_their_turn() {
        run(async {
            let (_reader, mut writer, mut peer) = pair().await;
            assert!(post(&mut writer, b"late"));
            assert!(!writer.is_settled() && !writer.has_pending());
            assert!(peer.try_read(&mut [0; 4]).is_err());
            yield_now().await;
            assert!(writer.is_settled());
            assert_eq!(read(&mut peer, 4).await, b"late");
        });
    }

    #[test]
    fn what_is_flushed_after_it_is_written_after_it() {
        run(async {
            let (_reader, mut writer, mut peer) = pair().await;
            assert!(post(&mut writer, b"one "));
            assert!(!post(&mut writer, b"two"), "the first is not out yet");
            flush(&mut writer, b" three").await;
            assert_eq!(read(&mut peer, 13).await, b"one two three");
        });
    }

    #[test]
    fn a_full_outbox_is_sent_at_once() {
        run(async {
            let mut pairs = Vec::new();
            for _ in 0..MAX_QUEUED_WRITES {
                pairs.push(pair().await);
            }
            for (_, writer, _) in &mut pairs {
                assert!(post(writer, b"x"));
            }
            assert!(pairs.iter().all(|(_, writer, _)| writer.is_settled()));
        });
    }

    #[test]
    fn what_the_kernel_does_not_take_is_written_in_order_when_it_does() {
        run(async {
            let (_reader, mut writer, mut peer) = pair().await;
            let mut len = 0;
            while post(&mut writer, &[b'x'; QUEUED_WRITE_BYTES]) {
                len += QUEUED_WRITE_BYTES;
                yield_now().await;
            }
            assert!(!writer.is_settled(), "the last one is not all out");
            // The last one could not be posted, so it is pending.
            len += QUEUED_WRITE_BYTES;
            let ends = flush(&mut writer, b"end");
            let reads = read(&mut peer, len + 3);
            let ((), bytes) = tokio::join!(ends, reads);
            assert!(bytes[..len].iter().all(|byte| *byte == b'x'));
            assert_eq!(&bytes[len..], b"end");
            assert!(writer.is_settled());
        });
    }

    #[test]
    fn a_peer_that_is_gone_is_learnt_from_the_reader() {
        run(async {
            let (mut reader, mut writer, peer) = pair().await;
            drop(peer);
            assert!(post(&mut writer, b"late"));
            yield_now().await;
            assert!(writer.is_settled());
            assert!(matches!(reader.fill(1024).await, Ok(0) | Err(_)));
        });
    }

    #[test]
    fn nothing_is_posted_where_nobody_delivers_or_when_it_is_large() {
        std::thread::spawn(|| {
            run(async {
                let (ours, _theirs) = UnixStream::pair().unwrap();
                let (_reader, mut writer) = halves::split(Socket::Unix(ours));
                assert!(!post(&mut writer, b"now"));
                spawn_local(keep_flushing());
                yield_now().await;
                assert!(!post(&mut writer, &[0; QUEUED_WRITE_BYTES]));
            });
        })
        .join()
        .unwrap();
    }
}

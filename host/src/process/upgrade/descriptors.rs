//! Descriptors over a Unix socket (SCM_RIGHTS, unix(7)).
//!
//! They go in messages of one byte, which says whether more follow, ahead of the frames on the same socket: whoever reads
//! frames reads ahead, and a plain read throws descriptors away.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Sends all of them. Cancelling leaves the stream of no use.
pub async fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // With none there is one message all the same, which says so.
    let mut batches = descriptors.chunks(BATCH).peekable();
    loop {
        let batch = batches.next().unwrap_or_default();
        let last = batches.peek().is_none();
        while let Err(error) = send_batch(stream, batch, last).await {
            // The system bounds what is sent and not received yet, as open files are: the other side is slow.
            if Errno::from_io_error(&error) != Some(Errno::TOOMANYREFS) {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
        if last {
            return Ok(());
        }
    }
}

/// Receives all that the other side sends with one [`send`]; they are closed in processes that are executed.
///
/// Fails when there are more than `at_most`, when the other side closes in between, and when this process may not open as
/// many.
pub async fn receive(stream: &UnixStream, at_most: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    loop {
        let last = stream
            .async_io(Interest::READABLE, || receive_batch(stream, &mut received))
            .await?;
        if received.len() > at_most {
            return Err(invalid(&format!("more than {at_most} descriptors")));
        }
        if last {
            return Ok(received);
        }
    }
}

/// Descriptors in one message: the kernel's SCM_MAX_FD.
const BATCH: usize = 253;

const PAUSE: Duration = Duration::from_millis(5);

const LAST: u8 = 0;
const MORE: u8 = 1;

async fn send_batch(stream: &UnixStream, batch: &[BorrowedFd<'_>], last: bool) -> io::Result<()> {
    let mark = [if last { LAST } else { MORE }];
    let send = || {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !batch.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::Error::other("a batch of descriptors has no room"));
        }
        let iov = [IoSlice::new(&mark)];
        sendmsg(stream, &iov, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// True for the last batch.
fn receive_batch(stream: &UnixStream, received: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut mark = [0];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut mark)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            received.extend(descriptors);
        }
    }
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(invalid(
            "not all descriptors arrived: is the limit of open files reached?",
        ));
    }
    match mark {
        [LAST] => Ok(true),
        [MORE] => Ok(false),
        [_] => Err(invalid("a mark of descriptors that is none")),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test)
    }

    /// Temporary files that say their number.
    fn numbered(count: usize) -> Vec<File> {
        let file = |number: usize| {
            let mut file = tempfile::tempfile().unwrap();
            write!(file, "{number}").unwrap();
            io::Seek::rewind(&mut file).unwrap();
            file
        };
        (0..count).map(file).collect()
    }

    #[test]
    fn descriptors_arrive_in_order_in_batches_and_what_follows_is_whole() {
        run(async {
            for count in [0, 1, BATCH, BATCH + 1, 2 * BATCH + 3] {
                let (near, mut far) = UnixStream::pair().unwrap();
                let files = numbered(count);
                let lent: Vec<_> = files.iter().map(File::as_fd).collect();
                let sent = async {
                    send(&near, &lent).await.unwrap();
                    near.try_write(b"frame").unwrap();
                };
                let (received, ()) = tokio::join!(receive(&far, 1000), sent);
                let received = received.unwrap();
                assert_eq!(received.len(), count);
                for (number, descriptor) in received.into_iter().enumerate() {
                    let mut text = String::new();
                    File::from(descriptor).read_to_string(&mut text).unwrap();
                    assert_eq!(text, number.to_string());
                }
                let mut rest = [0; 5];
                tokio::io::AsyncReadExt::read_exact(&mut far, &mut rest)
                    .await
                    .unwrap();
                assert_eq!(&rest, b"frame");
            }
        });
    }

    #[test]
    fn too_many_a_wrong_mark_and_an_early_end_are_errors() {
        run(async {
            let (near, far) = UnixStream::pair().unwrap();
            let files = numbered(3);
            let lent: Vec<_> = files.iter().map(File::as_fd).collect();
            send(&near, &lent).await.unwrap();
            let error = receive(&far, 2).await.unwrap_err();
            assert_eq!(error.to_string(), "more than 2 descriptors");

            let (mut near, far) = UnixStream::pair().unwrap();
            near.write_all(b"x").await.unwrap();
            let error = receive(&far, 2).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);

            let (near, far) = UnixStream::pair().unwrap();
            drop(near);
            let error = receive(&far, 2).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        });
    }
}

//! Tests of the halves of a connection, over pairs of Unix sockets.

use std::cell::Cell;

use tokio::net::UnixStream;
use tokio::runtime::LocalOptions;

use super::*;
use crate::runtime::alarm::{Alarms, FINE};
use crate::transport::Socket;
use crate::transport::coop_budget::{CALL_BYTES, TURN_BYTES};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(test);
}

fn pair() -> (Reader, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (split(Socket::Unix(ours)).0, theirs)
}

#[test]
fn a_read_that_leaves_room_is_the_last_until_more_comes() {
    run(async {
        let (mut reader, peer) = pair();
        for _ in 0..2 {
            peer.try_write(b"some").unwrap();
            assert_eq!(reader.fill(HEAD_ROOM_BYTES).await.unwrap(), 4);
            assert!(!reader.is_readable());
            assert!(reader.fill_now(HEAD_ROOM_BYTES).is_none());
        }
        drop(peer);
        assert_eq!(reader.fill(HEAD_ROOM_BYTES).await.unwrap(), 0);
        assert_eq!(&reader.buf[..], b"somesome");
    });
}

#[test]
fn each_wait_of_a_writer_has_its_own_time() {
    const LIMIT: Duration = Duration::from_millis(10);
    run(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_reader, mut writer) = split(Socket::Unix(ours));
        let alarm = Alarms::new(FINE).alarm();
        let _disarmed = alarm.disarmed();
        for _ in 0..2 {
            // Nothing of the last piece is taken: the other side has room for whole ones only.
            let mut waits = 0;
            while waits < 2 {
                if !writer.has_pending() {
                    writer.push(Bytes::from_static(&[0; 32 * 1024]));
                }
                let polled = poll_fn(|cx| Poll::Ready(writer.poll_flush(cx, &alarm, LIMIT)));
                match polled.await {
                    Poll::Ready(flushed) => flushed.expect("in time").expect("taken"),
                    // The first time its turn may be over.
                    Poll::Pending => waits += 1,
                }
            }
            theirs.readable().await.unwrap();
            while theirs.try_read(&mut [0; 64 * 1024]).is_ok() {}
            let flushed = poll_fn(|cx| writer.poll_flush(cx, &alarm, LIMIT)).await;
            flushed.expect("in time").expect("taken");
            tokio::time::sleep(2 * LIMIT).await;
        }
    });
}

#[test]
fn who_never_has_to_wait_lets_others_have_their_turns() {
    run(async {
        let (mut reader, peer) = pair();
        let mut bytes = peer.try_write(&[0; 64 * 1024]).unwrap();
        let turns = Rc::new(Cell::new(0));
        tokio::task::spawn_local({
            let turns = Rc::clone(&turns);
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut reads = 0;
        while bytes > 0 {
            reader.buf = BytesMut::with_capacity(64);
            bytes -= reader.fill(64).await.unwrap();
            reads += 1;
        }
        assert!(
            turns.get() >= reads / (TURN_BYTES / CALL_BYTES + 1),
            "{reads} reads"
        );
    });
}

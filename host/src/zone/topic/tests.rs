use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::zone::kill_tests::{Writer, inherited};

fn zone() -> TopicZone {
    TopicZone::create("news", TopicZone::MIN_BYTES).expect("memory")
}

fn reopened(zone: &TopicZone) -> TopicZone {
    let file = zone.descriptor().try_clone_to_owned().expect("descriptor");
    TopicZone::open(file, "news", zone.size_bytes()).expect("the same")
}

#[test]
fn every_reader_has_every_message_in_order_from_where_it_begins() {
    let zone = zone();
    zone.publish(b"before").unwrap();
    let (mut one, mut other) = (zone.end(), zone.end());
    assert_eq!(zone.read(&mut one), Next::End);
    let longest = [7; TopicZone::MESSAGE_LIMIT_BYTES];
    for message in [&b"a"[..], b"", b"eight by", b"and nine.", &longest] {
        reopened(&zone).publish(message).unwrap();
        assert_eq!(zone.read(&mut one), Next::Message(message.to_vec()));
        assert_eq!(zone.read(&mut one), Next::End);
    }
    let read = (0..5).map(|_| zone.read(&mut other));
    assert!(
        read.into_iter()
            .all(|next| matches!(next, Next::Message(_)))
    );
    let too_long = zone.publish(&[0; TopicZone::MESSAGE_LIMIT_BYTES + 1]);
    assert!(matches!(too_long, Err(ZoneError::ValueTooLarge { .. })));
    assert_eq!(zone.read(&mut one), Next::End);
}

#[test]
fn a_slow_reader_is_told_how_many_it_has_lost() {
    let zone = zone();
    let mut at = zone.end();
    for number in 0..zone.slots() + 5 {
        zone.publish(&number.to_le_bytes()).unwrap();
    }
    assert_eq!(zone.read(&mut at), Next::Lost(5));
    assert_eq!(
        zone.read(&mut at),
        Next::Message(5_u64.to_le_bytes().to_vec())
    );
}

#[test]
fn a_message_that_was_not_written_to_its_end_is_passed_over() {
    let zone = zone();
    let mut at = zone.end();
    // A writer that has its number, and one that has begun.
    zone.mapping
        .header::<TopicHeader>()
        .unwrap()
        .next
        .fetch_add(1, Relaxed);
    assert_eq!(zone.read(&mut at), Next::Unfinished);
    zone.slot(at)[0].store(unfinished(at), Relaxed);
    assert_eq!(zone.read(&mut at), Next::Unfinished);
    zone.publish(b"next").unwrap();
    at += 1;
    assert_eq!(zone.read(&mut at), Next::Message(b"next".to_vec()));
    // Bytes of another message.
    zone.publish(b"torn").unwrap();
    zone.slot(at)[3].store(0, Relaxed);
    assert_eq!(zone.read(&mut at), Next::Lost(1));
    assert_eq!(zone.read(&mut at), Next::End);
}

#[test]
fn nothing_else_is_opened_as_a_topic() {
    let zone = zone();
    let file = || zone.descriptor().try_clone_to_owned().unwrap();
    let told = |name, size| TopicZone::open(file(), name, size).unwrap_err().to_string();
    assert_eq!(
        told("other", 64 << 10),
        "zone other: name is another, expected other"
    );
    assert_eq!(
        told("news", 128 << 10),
        "zone news: size is 65536, expected 131072"
    );
    let counter = crate::zone::CounterZone::create("news", 64 << 10, 0).unwrap();
    let wrong = counter.descriptor().try_clone_to_owned().unwrap();
    assert!(matches!(
        TopicZone::open(wrong, "news", 64 << 10),
        Err(ZoneError::Mismatch { .. })
    ));
}

/// Message that all of says its number.
fn message(number: u64) -> Vec<u8> {
    let words = usize::try_from(number % 500).unwrap() + 1;
    number.to_le_bytes().repeat(words)
}

fn is_whole(bytes: &[u8]) -> bool {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    bytes == message(number)
}

#[test]
fn whatever_is_read_is_whole_while_many_write_and_some_are_killed() {
    if let Some(task) = Writer::task() {
        let [parent, fd] = task.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{task}")
        };
        let zone = TopicZone::open(inherited(parent, fd), "news", TopicZone::MIN_BYTES).unwrap();
        Writer::ready();
        for number in u64::from(std::process::id()).. {
            zone.publish(&message(number)).unwrap();
        }
    }
    use std::os::fd::AsRawFd;
    let zone = zone();
    let task = format!("{} {}", std::process::id(), zone.descriptor().as_raw_fd());
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (zone, is_over) = (reopened(&zone), Arc::clone(&is_over));
        move || {
            let (mut at, mut read) = (zone.end(), 0);
            while !is_over.load(Relaxed) {
                match zone.read(&mut at) {
                    Next::Message(bytes) => {
                        assert!(
                            is_whole(&bytes),
                            "{} bytes that do not belong together",
                            bytes.len()
                        );
                        read += 1;
                    }
                    Next::Unfinished => at += 1,
                    Next::Lost(_) | Next::End => {}
                }
            }
            read
        }
    });
    let test = "zone::topic::tests::whatever_is_read_is_whole_while_many_write_and_some_are_killed";
    for _ in 0..5 {
        let mut writers = [(); 2].map(|()| Writer::start(test, &task));
        writers.iter_mut().for_each(Writer::wait_until_ready);
        std::thread::sleep(std::time::Duration::from_millis(20));
        writers.into_iter().for_each(Writer::kill);
    }
    is_over.store(true, Relaxed);
    assert!(reader.join().unwrap() > 100);
    let mut at = zone.end();
    zone.publish(b"after all").unwrap();
    assert_eq!(zone.read(&mut at), Next::Message(b"after all".to_vec()));
}

#[test]
fn the_bell_is_rung_for_what_is_published() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let bell = Arc::new(crate::zone::Bell::create().unwrap());
    let topic = Topic::new(zone(), &bell);
    let has_rung = || {
        let mut fds = [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    assert!(topic.publish(&[0; 5000]).is_err() && !has_rung());
    topic.publish(b"a").unwrap();
    assert!(has_rung());
}

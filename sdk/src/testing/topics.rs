//! Topics of this thread: messages wait until a test takes them.

use castling_abi::{Hook, MAX_MESSAGE_BYTES, Status};

use super::ZoneFault;
use super::hook::running;
use super::host::hand_out;
use super::world::with_world;

pub(crate) fn topic_publish(zone: &[u8], message: &[u8]) -> i32 {
    with_world(|world| match world.zone_faults.get(zone) {
        Some(ZoneFault::NotGranted) => Status::NotGranted as i32,
        Some(ZoneFault::Full) | None if message.len() > MAX_MESSAGE_BYTES => Status::Limit as i32,
        Some(ZoneFault::Full) | None => {
            let published = world.published.entry(zone.to_vec()).or_default();
            published.push(message.to_vec());
            0
        }
    })
}

/// A test calls the hook by itself, with the topic and the message.
pub(crate) fn topic_name(_topic: u32, out: &mut [u8]) -> i32 {
    hand_out(b"", out)
}

pub(crate) fn message_get(out: &mut [u8]) -> i32 {
    match running() {
        Some(Hook::Message) => hand_out(b"", out),
        _ => Status::NotNow as i32,
    }
}

//! Topics of this thread: messages wait until a test takes them.

use castling_abi::{Grant, MAX_MESSAGE_BYTES, Status, rules};

use super::hook::may;
use super::host::hand_out;
use super::world::with_world;
use super::zones::refusal;

pub(crate) fn topic_publish(zone: &[u8], message: &[u8]) -> i32 {
    if let Some(refused) = refusal(Grant::Topic, zone) {
        return refused as i32;
    }
    if message.len() > MAX_MESSAGE_BYTES {
        return Status::Limit as i32;
    }
    with_world(|world| {
        let published = world.published.entry(zone.to_vec()).or_default();
        published.push(message.to_vec());
    });
    0
}

/// A test calls the hook by itself, with the topic and the message.
pub(crate) fn topic_name(_topic: u32, out: &mut [u8]) -> i32 {
    match may(&rules::TOPIC_NAME) {
        true => hand_out(b"", out),
        false => rules::TOPIC_NAME.refused as i32,
    }
}

pub(crate) fn message_get(out: &mut [u8]) -> i32 {
    match may(&rules::MESSAGE_GET) {
        true => hand_out(b"", out),
        false => rules::MESSAGE_GET.refused as i32,
    }
}

//! Ids of requests, for logs.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;

/// Makes an id: 32 hexadecimal digits, of which the first 12 are milliseconds since 1970, so that later ids sort behind earlier
/// ones, and the others are random.
pub fn new(now: SystemTime) -> [u8; 32] {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(since.as_millis() as u64).to_be_bytes());
    bytes.rotate_left(2);
    // Without a source of randomness there is no TLS either; the time is left.
    let _ = rand::fill(&mut bytes[6..]);
    let mut id = [0; 32];
    for (pair, byte) in id.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    id
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_begin_with_the_time_and_differ() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let [one, other, later] = [0x1234, 0x1234, 0x1235].map(|millis| new(at(millis)));
        assert_eq!(&one[..12], b"000000001234");
        assert_ne!(one, other);
        assert!(one < later && other < later);
        assert!(one.iter().all(u8::is_ascii_hexdigit));
    }
}

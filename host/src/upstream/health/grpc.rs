//! Messages of gRPC's health checking protocol (`grpc.health.v1`), as bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// `HealthCheckRequest { service }` in its frame.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message);
    frame.freeze()
}

/// Status of a framed `HealthCheckResponse`: 1 is serving. `None`: the bytes are no such message.
pub(super) fn status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(FRAME_HEAD_BYTES)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || length as usize != message.len() {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => drop(varint(&mut rest)?),
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            (_, 1) => rest = rest.get(8..)?,
            (_, _) => return None,
        }
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Status of a service that may be called.
pub(super) const SERVING: u64 = 1;

/// Flag of compression, and length.
const FRAME_HEAD_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_as_protobuf_writes_them() {
        assert_eq!(&request("")[..], b"\0\0\0\0\0");
        assert_eq!(&request("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = request(&"x".repeat(200));
        assert_eq!(&long[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(status(b"\0\0\0\0\x02\x08\x01"), Some(SERVING));
        assert_eq!(status(b"\0\0\0\0\x02\x08\x02"), Some(2));
        assert_eq!(status(b"\0\0\0\0\0"), Some(0));
        // Fields that nobody knows are passed over.
        assert_eq!(status(b"\0\0\0\0\x07\x12\x01x\x18\x05\x08\x01"), Some(1));
        for bad in [
            &b""[..],
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x02\x08",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x12\x09",
        ] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut framed = (bytes.len() as u32).to_be_bytes().to_vec();
            framed.insert(0, 0);
            framed.extend_from_slice(&bytes);
            let _ = (status(&bytes), status(&framed));
        }
    }
}

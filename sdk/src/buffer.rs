//! Reading what the host hands out, with as little allocation as the caller's type allows.

use std::cell::Cell;
use std::ops::{Deref, Range};

use castling_abi::Status;

/// Bytes in memory that the next [`Buffer`] takes over when this one is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Memory that is never cut, so that it need not be zeroed again.
    memory: Vec<u8>,
    len: usize,
}

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// More than this is not kept for the next one.
const SPARE_BYTES: usize = 64 * 1024;

/// Room for the first call where the length is not known.
const FIRST_BYTES: usize = 256;

impl Buffer {
    /// Reads all that `call` hands out. `expected_bytes` spares the second call where it is right.
    pub(crate) fn read(
        expected_bytes: usize,
        mut call: impl FnMut(&mut [u8]) -> i32,
    ) -> Result<Self, Status> {
        let mut memory = SPARE.take();
        let first_bytes = expected_bytes.max(FIRST_BYTES);
        if memory.len() < first_bytes {
            memory.resize(first_bytes, 0);
        }
        let mut buffer = Self { memory, len: 0 };
        loop {
            let len = length(call(&mut buffer.memory))?;
            if len <= buffer.memory.len() {
                buffer.len = len;
                return Ok(buffer);
            }
            buffer.memory.resize(len, 0);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.memory.len() <= SPARE_BYTES {
            SPARE.set(std::mem::take(&mut self.memory));
        }
    }
}

/// Bytes that are short nearly always: a header's value, a variable.
#[derive(Debug)]
pub(crate) struct ShortBytes(Memory);

#[derive(Debug)]
enum Memory {
    /// These bytes of a room.
    Room(Room, Range<usize>),
    /// Bytes in memory of their own.
    Own(Vec<u8>),
}

/// Where bytes are read, one after the other: dropped, it is kept for the next ones. Always there until then.
#[derive(Debug)]
struct Room(Option<Box<RoomBytes>>);

type RoomBytes = [u8; ROOM_BYTES];

/// Bytes of a room. A longer value takes a second call, and memory of its own.
const ROOM_BYTES: usize = 256;

/// Rooms that are kept. A hook has few values at a time.
const SPARE_ROOMS: usize = 4;

thread_local! {
    static SPARE_ROOM: [Cell<Option<Box<RoomBytes>>>; SPARE_ROOMS] =
        const { [const { Cell::new(None) }; SPARE_ROOMS] };
    /// How many there are, from the first on.
    static SPARE_ROOM_COUNT: Cell<usize> = const { Cell::new(0) };
}

impl Room {
    #[inline]
    fn new() -> Self {
        Self::spare().unwrap_or_else(Self::first)
    }

    #[inline]
    fn spare() -> Option<Self> {
        let idx = SPARE_ROOM_COUNT.get().checked_sub(1)?;
        let bytes = SPARE_ROOM.with(|spare| spare.get(idx)?.take());
        SPARE_ROOM_COUNT.set(idx);
        bytes.map(|bytes| Self(Some(bytes)))
    }

    #[cold]
    #[inline(never)]
    fn first() -> Self {
        Self(Some(Box::new([0; ROOM_BYTES])))
    }

    #[inline]
    fn bytes(&self) -> &RoomBytes {
        self.0.as_ref().expect(IS_THERE)
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut RoomBytes {
        self.0.as_mut().expect(IS_THERE)
    }
}

const IS_THERE: &str = "a room has its bytes until it is dropped";

impl Drop for Room {
    #[inline]
    fn drop(&mut self) {
        let count = SPARE_ROOM_COUNT.get();
        // Where the thread ends, there may be no place for it any more.
        let _ = SPARE_ROOM.try_with(|spare| {
            if let Some(place) = spare.get(count) {
                place.set(self.0.take());
                SPARE_ROOM_COUNT.set(count + 1);
            }
        });
    }
}

impl ShortBytes {
    /// Reads all that `call` hands out.
    #[inline]
    pub(crate) fn read(mut call: impl FnMut(&mut [u8]) -> i32) -> Result<Self, Status> {
        let mut room = Room::new();
        let result = call(room.bytes_mut());
        match usize::try_from(result) {
            Ok(len) if len <= ROOM_BYTES => Ok(Self(Memory::Room(room, 0..len))),
            Ok(len) => Ok(Self(Memory::Own(read_long(len, &mut call)?))),
            Err(_) => Err(status(result)),
        }
    }

    /// The last `len` of them, or all.
    pub(crate) fn last(self, len: usize) -> Self {
        let start = self.len().saturating_sub(len);
        Self(match self.0 {
            Memory::Room(room, at) => Memory::Room(room, at.start + start..at.end),
            Memory::Own(bytes) => Memory::Own(bytes[start..].to_vec()),
        })
    }
}

#[cold]
#[inline(never)]
fn read_long(
    expected_bytes: usize,
    call: &mut dyn FnMut(&mut [u8]) -> i32,
) -> Result<Vec<u8>, Status> {
    read_bytes(expected_bytes, call)
}

/// A copy.
impl From<&[u8]> for ShortBytes {
    fn from(bytes: &[u8]) -> Self {
        let len = bytes.len();
        let spare = (len <= ROOM_BYTES).then(Room::spare).flatten();
        Self(match spare {
            Some(mut room) => {
                room.bytes_mut()[..len].copy_from_slice(bytes);
                Memory::Room(room, 0..len)
            }
            None => Memory::Own(bytes.to_vec()),
        })
    }
}

impl Deref for ShortBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Room(room, at) => &room.bytes()[at.clone()],
            Memory::Own(bytes) => bytes,
        }
    }
}

/// For one that is kept: it takes no more memory than it needs.
impl Clone for ShortBytes {
    fn clone(&self) -> Self {
        Self(Memory::Own(self.to_vec()))
    }
}

/// Reads bytes that the plugin keeps. `expected_bytes` spares the second call where it is right.
pub(crate) fn read_bytes(
    expected_bytes: usize,
    mut call: impl FnMut(&mut [u8]) -> i32,
) -> Result<Vec<u8>, Status> {
    let mut bytes = vec![0; expected_bytes];
    loop {
        let len = length(call(&mut bytes))?;
        if len <= bytes.len() {
            bytes.truncate(len);
            return Ok(bytes);
        }
        bytes.resize(len, 0);
    }
}

/// Reads text. What is not UTF-8 becomes U+FFFD.
pub(crate) fn read_text(call: impl FnMut(&mut [u8]) -> i32) -> Result<String, Status> {
    let bytes = read_bytes(128, call)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// A length, or why there is none.
pub(crate) fn length(result: i32) -> Result<usize, Status> {
    usize::try_from(result).map_err(|_| status(result))
}

/// The status that a negative result is. One that a newer host has added is a bad argument to this SDK.
pub(crate) fn status(result: i32) -> Status {
    Status::from_raw(result).unwrap_or(Status::BadArgument)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hand_out(text: &[u8], out: &mut [u8]) -> i32 {
        if let Some(room) = out.get_mut(..text.len()) {
            room.copy_from_slice(text);
        }
        i32::try_from(text.len()).unwrap()
    }

    #[test]
    fn short_bytes_of_several_values_are_each_its_own() {
        let read = |text: &str| ShortBytes::read(|out| hand_out(text.as_bytes(), out)).unwrap();
        for _ in 0..3 {
            let texts: Vec<String> = (0..SPARE_ROOMS + 2).map(|n| n.to_string()).collect();
            let values: Vec<ShortBytes> = texts.iter().map(|text| read(text)).collect();
            for (text, value) in texts.iter().zip(&values) {
                assert_eq!(&**value, text.as_bytes());
                assert_eq!(&*value.clone(), text.as_bytes());
                assert_eq!(&*ShortBytes::from(text.as_bytes()), text.as_bytes());
            }
        }
    }

    #[test]
    fn the_last_of_short_bytes_are_theirs() {
        for len in [4, ROOM_BYTES, ROOM_BYTES + 4] {
            let text = "abcd".repeat(len / 4);
            let last = |len: usize| {
                let bytes = ShortBytes::read(|out| hand_out(text.as_bytes(), out)).unwrap();
                bytes.last(len + 1).last(len).to_vec()
            };
            assert_eq!(last(0), b"");
            assert_eq!(last(2), b"cd");
            assert_eq!(last(len + 1), text.as_bytes());
        }
    }

    #[test]
    fn reads_what_fits_and_what_needs_a_second_call() {
        for len in [0, 1, 63, 64, 65, 128, 129, 256, 257, 100_000] {
            let text = vec![b'x'; len];
            assert_eq!(
                &*ShortBytes::read(|out| hand_out(&text, out)).unwrap(),
                &text[..]
            );
            assert_eq!(&*ShortBytes::from(&text[..]), &text[..]);
            assert_eq!(
                read_text(|out| hand_out(&text, out)).unwrap().as_bytes(),
                &text[..]
            );
            assert_eq!(read_bytes(0, |out| hand_out(&text, out)).unwrap(), text);
            assert_eq!(
                &*Buffer::read(0, |out| hand_out(&text, out)).unwrap(),
                &text[..]
            );
        }
    }

    #[test]
    fn a_status_is_passed_on() {
        assert_eq!(ShortBytes::read(|_| -1).err(), Some(Status::NotFound));
        assert_eq!(read_text(|_| -99), Err(Status::BadArgument));
    }

    #[test]
    fn text_that_is_not_utf8_is_not_lost() {
        assert_eq!(
            read_text(|out| hand_out(b"/a\xff", out)).unwrap(),
            "/a\u{fffd}"
        );
    }
}

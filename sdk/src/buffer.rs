//! Reading what the host hands out, with as little allocation as the caller's type allows.

use std::cell::Cell;
use std::ops::Deref;

use castling_abi::Status;
use smallvec::SmallVec;

/// Bytes that are short nearly always: a header's value, a variable.
pub(crate) type ShortBytes = SmallVec<[u8; SHORT_BYTES]>;

const SHORT_BYTES: usize = 64;

/// Bytes in memory that the next [`Buffer`] takes over when this one is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// As large as it ever was, so that it need not be zeroed again.
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

/// Where bytes are read that are short nearly always, and stay until they have been looked at.
pub(crate) struct Room {
    short: [u8; SHORT_BYTES],
    long: Vec<u8>,
}

impl Room {
    pub(crate) const fn new() -> Self {
        Self {
            short: [0; SHORT_BYTES],
            long: Vec::new(),
        }
    }

    pub(crate) fn read(&mut self, mut call: impl FnMut(&mut [u8]) -> i32) -> Result<&[u8], Status> {
        let Self { short, long } = self;
        let len = length(call(short))?;
        match short.get(..len) {
            Some(bytes) => Ok(bytes),
            None => {
                *long = read_long(len, &mut call)?;
                Ok(long)
            }
        }
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

/// Reads bytes that are short nearly always.
pub(crate) fn read_short(mut call: impl FnMut(&mut [u8]) -> i32) -> Result<ShortBytes, Status> {
    let mut bytes = ShortBytes::from_buf([0; SHORT_BYTES]);
    loop {
        let len = length(call(&mut bytes))?;
        if len <= bytes.len() {
            bytes.truncate(len);
            return Ok(bytes);
        }
        bytes.resize(len, 0);
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
    fn reads_what_fits_and_what_needs_a_second_call() {
        for len in [0, 1, 63, 64, 65, 128, 129, 256, 257, 100_000] {
            let text = vec![b'x'; len];
            assert_eq!(
                read_short(|out| hand_out(&text, out)).unwrap().as_slice(),
                &text[..]
            );
            assert_eq!(
                read_text(|out| hand_out(&text, out)).unwrap().as_bytes(),
                &text[..]
            );
            assert_eq!(
                Room::new().read(|out| hand_out(&text, out)).unwrap(),
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
        assert_eq!(read_short(|_| -1), Err(Status::NotFound));
        assert_eq!(Room::new().read(|_| -1), Err(Status::NotFound));
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

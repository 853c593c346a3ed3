//! A client that writes and reads HTTP/2 frames one by one, also such as no client should.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::DEADLINE;

/// A connection of HTTP/2 frames.
pub struct FrameClient {
    socket: TcpStream,
}

/// A frame (RFC 9113 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Codes of errors (RFC 9113 §7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

impl FrameClient {
    /// Connects and sends preface and settings, each an identifier and a value.
    pub fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let socket = TcpStream::connect(address).expect("connected");
        socket.set_read_timeout(Some(DEADLINE)).expect("an option");
        socket.set_write_timeout(Some(DEADLINE)).expect("an option");
        let mut client = Self { socket };
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        client.send(SETTINGS, 0, 0, &payload);
        client
    }

    /// Another handle of the connection, for another thread to write to.
    pub fn also(&self) -> Self {
        let socket = self.socket.try_clone().expect("a descriptor");
        Self { socket }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("written");
    }

    /// Sends a frame.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload));
    }

    /// Sends bytes. False: the gateway has ended the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Sends a GET for `path` that ends its stream.
    pub fn get(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &get(path));
    }

    /// Reads the next frame. `None`: the connection has ended.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if ENDED.contains(&error.kind()) => return None,
            Err(error) => panic!("no frame: {error}"),
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        match self.socket.read_exact(&mut payload) {
            Ok(()) => {}
            Err(error) if ENDED.contains(&error.kind()) => return None,
            Err(error) => panic!("no payload: {error}"),
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// Reads up to a frame of this kind, which must come.
    pub fn read_until(&mut self, kind: u8) -> Frame {
        self.until(|frame| frame.kind == kind)
    }

    /// Reads up to a frame that `is_it`, which must come.
    pub fn until(&mut self, is_it: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.read().expect("the connection has ended before");
            if is_it(&frame) {
                return frame;
            }
        }
    }

    /// Reads up to the end of the connection. Returns the frames that came.
    pub fn read_to_end(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.read()).collect()
    }

    /// Reads the response of a stream to its end: the first byte of its head, which says the status, and its body. `Err`: the code
    /// that it was reset with.
    pub fn response(&mut self, stream: u32) -> Result<(u8, Vec<u8>), u32> {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let frame = self.until(|frame| frame.stream == stream);
            match frame.kind {
                HEADERS if status == 0 => status = frame.payload[0],
                DATA => body.extend_from_slice(&frame.payload),
                RST_STREAM => return Err(frame.code()),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Ok((status, body));
            }
        }
    }

    /// Says that nothing more comes.
    pub fn end(&mut self) {
        let _ended = self.socket.shutdown(Shutdown::Write);
    }
}

const ENDED: [ErrorKind; 3] = [
    ErrorKind::UnexpectedEof,
    ErrorKind::ConnectionReset,
    ErrorKind::BrokenPipe,
];

impl Frame {
    /// Code of a RST_STREAM or a GOAWAY.
    pub fn code(&self) -> u32 {
        let at = match self.kind {
            GOAWAY => 4,
            _ => 0,
        };
        let code = self.payload[at..].first_chunk().expect("a code");
        u32::from_be_bytes(*code)
    }
}

/// Status of a head whose first byte this is: one of those in HPACK's table (RFC 7541, appendix A).
pub fn status(first: u8) -> u16 {
    match first {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => 0,
    }
}

/// Bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Block of fields, each as a literal that is not indexed and not compressed (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 §5.1, with a prefix of 7 bits.
fn push_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).expect("short"));
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("short") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("short"));
}

/// Block of a GET.
pub fn get(path: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "test.example"),
        (":path", path),
    ])
}

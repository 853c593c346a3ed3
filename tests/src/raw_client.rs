//! A client that sends bytes as they are and shows what came back, byte for byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::DEADLINE;

/// Connection whose bytes the test writes itself. Reads and writes fail after [`DEADLINE`].
#[derive(Debug)]
pub struct RawClient {
    socket: TcpStream,
    /// Read, but not yet taken.
    pending: Vec<u8>,
}

/// A response as it came.
#[derive(Clone, Debug)]
pub struct RawReply {
    pub status: u16,
    /// Status line and headers, with their line ends, without the empty line.
    pub head: String,
    /// Without the transfer coding.
    pub body: Vec<u8>,
}

impl RawReply {
    /// The first value of that header. Names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    /// All values of that header.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawClient {
    /// Connects.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, DEADLINE)
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::over(socket)
    }

    /// Connects from this address of the machine's, such as `127.0.0.9`.
    #[track_caller]
    pub fn connect_from(client: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| {
            socket.bind(&SocketAddr::from((client, 0)).into())?;
            socket.connect_timeout(&address.into(), DEADLINE)?;
            Ok(socket)
        });
        let socket = socket.unwrap_or_else(|error| panic!("{client} to {address}: {error}"));
        Self::over(socket.into())
    }

    /// Over a socket that is connected already.
    pub fn over(socket: TcpStream) -> Self {
        let ready = [
            socket.set_read_timeout(Some(DEADLINE)),
            socket.set_write_timeout(Some(DEADLINE)),
            socket.set_nodelay(true),
        ];
        assert!(
            ready.iter().all(Result::is_ok),
            "a socket's options: {ready:?}"
        );
        Self {
            socket,
            pending: Vec::new(),
        }
    }

    /// Sends these bytes. A gateway that has closed meanwhile is no failure here: what it said can still be read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _closed_by_the_other_side = self.socket.write_all(bytes.as_ref());
        self
    }

    /// Reads one response. Panics when the connection ends before the response does.
    #[track_caller]
    pub fn read_reply(&mut self) -> RawReply {
        self.reply(false).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads as [`Self::read_reply`] does, but a response to HEAD: it ends with its head, whatever that says.
    #[track_caller]
    pub fn read_reply_to_head(&mut self) -> RawReply {
        self.reply(true).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads a response; the error says how it is bad.
    pub fn try_read_reply(&mut self) -> Result<RawReply, String> {
        self.reply(false)
    }

    /// Reads a head of any kind, up to and with its empty line.
    pub fn read_head(&mut self) -> Result<String, String> {
        let end = loop {
            if let Some(at) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill()? == 0 {
                return Err(format!(
                    "closed in the middle of a head: {:?}",
                    String::from_utf8_lossy(&self.pending)
                ));
            }
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        String::from_utf8(head).map_err(|error| format!("a head that is not text: {error}"))
    }

    /// Reads exactly `len` bytes.
    pub fn read_exact(&mut self, len: usize) -> Result<Vec<u8>, String> {
        while self.pending.len() < len {
            if self.fill()? == 0 {
                return Err(format!(
                    "closed after {} bytes of {len}",
                    self.pending.len()
                ));
            }
        }
        Ok(self.pending.drain(..len).collect())
    }

    /// Reads until the other side closes.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>, String> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.pending))
    }

    /// Waits until the other side closes; panics when it sends a byte more or keeps the connection.
    #[track_caller]
    pub fn expect_close(&mut self) {
        match self.read_to_end() {
            Ok(rest) if rest.is_empty() => {}
            Ok(rest) => panic!("more before the end: {:?}", String::from_utf8_lossy(&rest)),
            Err(error) => panic!("not closed: {error}"),
        }
    }

    /// Waits until the other side closes the connection in order; panics when it resets it or sends a byte more.
    #[track_caller]
    pub fn expect_closed_in_order(&mut self) {
        match self.socket.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => panic!("more before the end"),
            Err(error) => panic!("not closed in order: {error}"),
        }
    }

    /// Waits until the other side resets the connection, whatever it sends before; panics when it closes it in order.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => panic!("closed in order"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("not reset: {error}"),
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) -> &mut Self {
        let _closed_by_the_other_side = self.socket.shutdown(Shutdown::Write);
        self
    }

    /// Ends the connection with a reset in the place of a close.
    pub fn reset(self) {
        let _closed_by_the_other_side =
            socket2::SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO));
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn reply(&mut self, to_head: bool) -> Result<RawReply, String> {
        let head = self.read_head()?;
        let status = head
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| format!("no status line: {head:?}"))?;
        let head = head.strip_suffix("\r\n").unwrap_or(&head).to_owned();
        let mut reply = RawReply {
            status,
            head,
            body: Vec::new(),
        };
        let bodyless = to_head || status < 200 || status == 204 || status == 304;
        if bodyless {
            return Ok(reply);
        }
        let chunked = reply
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = reply.header("content-length").map(str::parse::<usize>);
        reply.body = match (chunked, length) {
            (true, _) => self.chunks()?,
            (false, Some(Ok(length))) => self.read_exact(length)?,
            (false, Some(Err(error))) => return Err(format!("Content-Length: {error}")),
            (false, None) => self.read_to_end()?,
        };
        Ok(reply)
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16)
                .map_err(|error| format!("chunk size {line:?}: {error}"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.read_exact(size)?);
            let end = self.line()?;
            if !end.is_empty() {
                return Err(format!("after a chunk: {end:?}"));
            }
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let end = loop {
            if let Some(at) = self.pending.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            if self.fill()? == 0 {
                return Err("closed in the middle of a chunk's line".to_owned());
            }
        };
        let line: Vec<u8> = self.pending.drain(..end + 2).take(end).collect();
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads more; 0 at the end. A reset is an end, too.
    fn fill(&mut self) -> Result<usize, String> {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(read) => {
                self.pending.extend_from_slice(&buffer[..read]);
                Ok(read)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            Err(error) => Err(format!("read: {error}")),
        }
    }
}

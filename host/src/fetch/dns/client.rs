//! Servers are asked: by UDP, each time from another port, and by TCP where a response has no room.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{NoAnswer, RecordKind, Records, question, response};

/// Servers of one resolution.
pub struct Servers<'a> {
    pub addresses: &'a [SocketAddr],
    /// Longest wait for each.
    pub timeout: Duration,
}

/// Times that all servers are asked.
const ROUNDS: usize = 2;

/// Largest response by UDP: no more was offered, and a larger one is read all the same.
const LARGEST_DATAGRAM: usize = 4096;

impl Servers<'_> {
    /// Asks one server after the other until one answers. The error says what was wrong with the last one, in a line for a
    /// person.
    pub async fn ask(&self, name: &str, kind: RecordKind) -> Result<Records, String> {
        let mut last = "no name server is known".to_owned();
        for _ in 0..ROUNDS {
            for server in self.addresses {
                match timeout(self.timeout, ask_one(*server, name, kind)).await {
                    Ok(Ok(records)) => return Ok(records),
                    Ok(Err(error)) => last = format!("name server {server} {error}"),
                    Err(_) => {
                        let timeout = self.timeout;
                        last = format!("name server {server} does not answer within {timeout:?}");
                    }
                }
            }
        }
        Err(last)
    }
}

async fn ask_one(server: SocketAddr, name: &str, kind: RecordKind) -> Result<Records, String> {
    let id = random_id().map_err(|error| format!("cannot be asked: {error}"))?;
    let asked = question(id, name, kind).ok_or("cannot be asked: no name is so long")?;
    let failed = |error: io::Error| format!("cannot be asked: {error}");
    match by_udp(server, &asked, |bytes| response(bytes, id, name, kind)).await {
        Ok(Ok(records)) => Ok(records),
        Ok(Err(NoAnswer::Truncated)) => {
            let bytes = by_tcp(server, &asked).await.map_err(failed)?;
            response(&bytes, id, name, kind).map_err(|error| match error {
                NoAnswer::Failed(error) => error,
                NoAnswer::Stray | NoAnswer::Truncated => "answers another question".to_owned(),
            })
        }
        Ok(Err(NoAnswer::Failed(error))) => Err(error),
        Ok(Err(NoAnswer::Stray)) => Err("answers another question".to_owned()),
        Err(error) => Err(failed(error)),
    }
}

/// Asks from a new socket, whose port nobody knows, and reads until a response to the question has come.
async fn by_udp(
    server: SocketAddr,
    asked: &[u8],
    read: impl Fn(&[u8]) -> Result<Records, NoAnswer>,
) -> io::Result<Result<Records, NoAnswer>> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Datagrams of others are thrown away by the kernel.
    socket.connect(server).await?;
    socket.send(asked).await?;
    let mut bytes = vec![0; LARGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut bytes).await?;
        match read(&bytes[..length]) {
            Err(NoAnswer::Stray) => {}
            answered => return Ok(answered),
        }
    }
}

/// RFC 1035 §4.2.2: a length of two bytes comes before each message.
async fn by_tcp(server: SocketAddr, asked: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(asked.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(asked);
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn random_id() -> io::Result<u16> {
    let mut id = [0; 2];
    getrandom(&mut id, GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(id))
}

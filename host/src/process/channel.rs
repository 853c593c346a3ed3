//! Frames between processes: a length of four bytes (little-endian), then that many bytes of JSON.
//!
//! Master and worker speak [`ToWorker`] and [`FromWorker`] over a socket pair; the control socket uses the same frames
//! for its own messages.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::acme::News;
use crate::config::{Accept, Config};
use crate::gateway::{GatewayStatus, Identity};
use crate::upstream::PeerList;
use crate::wasm::Manifest;

use super::granted_files::Notice;

/// Order of the master to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message: everything that the worker is to run. The worker answers `Ready` or `Failed`.
    Start(Box<WorkerSpec>),
    /// All workers of the generation are ready: accept.
    Serve,
    /// Stop accepting, let requests finish, end. What is left after this time is closed.
    Drain(Duration),
    /// End now.
    Stop,
    ReopenLogs,
    /// Request that the worker answers by `Status`.
    StatusRequest,
    /// Request that the worker answers by `Alive`.
    Heartbeat,
    /// News of certificates that are ordered, with their number, which the worker answers by `TakenIn`.
    News(u64, Box<News>),
    /// Other peers of this upstream.
    Peers(String, PeerList),
}

/// Message of a worker to its master.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// Plugins are instantiated and upstreams made; waits for `Serve`.
    Ready,
    /// The worker accepts connections.
    Serving,
    /// The worker accepts no more connections.
    Draining,
    /// The worker cannot run this config, and ends. Lines for a person.
    Failed(Vec<String>),
    Status(GatewayStatus),
    /// The event loop turns.
    Alive,
    /// The news of this number are in effect, and all before them.
    TakenIn(u64),
    /// No connection is left; the worker ends.
    Drained,
}

/// Work of a worker, and the meaning of each descriptor that it has inherited.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerSpec {
    pub generation: u64,
    pub slot: usize,
    pub identity: Identity,
    pub config: Config,
    pub listeners: Vec<ListenerFd>,
    pub modules: Vec<ModuleFd>,
    /// Zones by name.
    pub zones: BTreeMap<String, ZoneHandle>,
    /// Row of the memory that workers share, in the metrics and beside the peers. Without one, the worker is counted nowhere.
    pub row: Option<u32>,
    /// Memory of the metrics.
    pub metrics: RawFd,
    /// Memory of the peers' state.
    pub peers: RawFd,
    /// Memory of flights, and their bell.
    pub flights: (RawFd, RawFd),
    /// The bell of topics.
    pub topics: RawFd,
    /// File for bodies that are kept on disk; `None` where none are.
    pub spill_file: Option<RawFd>,
    /// Files that plugins are granted.
    pub files: Vec<FileFd>,
    /// Socket through which later versions of them come; `None` where there are none.
    pub file_channel: Option<RawFd>,
    /// Peers by upstream.
    pub upstreams: BTreeMap<String, PeerList>,
    /// Certificates that were ordered, and challenges of those that are.
    pub news: Vec<News>,
}

/// A bound socket. It listens from `Serve` on.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListenerFd {
    pub listener: String,
    pub fd: RawFd,
    pub accept: Accept,
}

/// A compiled plugin's file.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModuleFd {
    pub plugin: String,
    pub manifest: Manifest,
    pub fd: RawFd,
}

/// A granted file's contents.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileFd {
    pub notice: Notice,
    pub fd: RawFd,
}

/// Key by which a worker opens a zone.
#[derive(Debug, Serialize, Deserialize)]
pub enum ZoneHandle {
    /// A counter zone's memory.
    Counter(RawFd),
    /// A kv zone's folder.
    Kv(PathBuf),
    /// A gauge zone's memory.
    Gauge(RawFd),
    /// A topic's memory.
    Topic(RawFd),
}

/// Largest frame from a worker to its master, bytes.
pub const WORKER_FRAME_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// Largest frame from a master to its worker, bytes: the largest config that is read, with a place for each value of plugins'
/// configs.
pub const ORDER_LIMIT_BYTES: usize = 1024 * 1024 * 1024;

/// Reads frames of one message type.
pub struct FrameReader<R, M> {
    source: R,
    buffer: BytesMut,
    limit_bytes: usize,
    message: PhantomData<M>,
}

impl<R: AsyncRead + Unpin, M: DeserializeOwned> FrameReader<R, M> {
    /// Refuses frames larger than the limit before it reads them.
    pub fn new(source: R, limit_bytes: usize) -> Self {
        Self {
            source,
            buffer: BytesMut::new(),
            limit_bytes,
            message: PhantomData,
        }
    }

    /// The next message; `None` when the other side has closed between two frames.
    ///
    /// Fails on a frame that is too large, cut off or no such message. Cancelling loses nothing: what was read so far
    /// is kept for the next call.
    pub async fn next(&mut self) -> io::Result<Option<M>> {
        loop {
            if let Some(frame) = self.split_frame()? {
                return serde_json::from_slice(&frame)
                    .map(Some)
                    .map_err(io::Error::from);
            }
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    fn split_frame(&mut self) -> io::Result<Option<BytesMut>> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let frame_bytes = u32::from_le_bytes(*head) as usize;
        if frame_bytes > self.limit_bytes {
            return Err(too_large(frame_bytes, self.limit_bytes));
        }
        if rest.len() < frame_bytes {
            self.buffer
                .reserve(HEAD_BYTES + frame_bytes - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(frame_bytes)))
    }
}

/// Writes one message. Cancelling may leave half a frame, after which the stream is of no use.
pub async fn write_frame<W: AsyncWrite + Unpin>(
    sink: &mut W,
    message: &impl Serialize,
    limit_bytes: usize,
) -> io::Result<()> {
    let mut frame = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut frame, message)?;
    let frame_bytes = frame.len() - HEAD_BYTES;
    let head = match u32::try_from(frame_bytes) {
        Ok(head) if frame_bytes <= limit_bytes => head,
        _ => return Err(too_large(frame_bytes, limit_bytes)),
    };
    frame[..HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
    sink.write_all(&frame).await?;
    sink.flush().await
}

const HEAD_BYTES: usize = 4;

fn too_large(frame_bytes: usize, limit_bytes: usize) -> io::Error {
    let text = format!("a message of {frame_bytes} bytes; expected at most {limit_bytes}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(test)
    }

    async fn frames(messages: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            write_frame(&mut bytes, message, 100).await.unwrap();
        }
        bytes
    }

    #[test]
    fn messages_come_out_as_they_went_in_whatever_the_reads_were() {
        run(async {
            let bytes = frames(&["one", "", "three"]).await;
            for read_bytes in 1..bytes.len() {
                let mut source = in_reads_of(&bytes, read_bytes);
                let mut reader = FrameReader::<_, String>::new(&mut source, 100);
                for expected in ["one", "", "three"] {
                    assert_eq!(reader.next().await.unwrap().as_deref(), Some(expected));
                }
                assert_eq!(reader.next().await.unwrap(), None);
            }
        });
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_its_bytes_are_read() {
        run(async {
            let head = 101_u32.to_le_bytes();
            let mut reader = FrameReader::<_, String>::new(&head[..], 100);
            let error = reader.next().await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "a message of 101 bytes; expected at most 100"
            );
            assert!(
                write_frame(&mut Vec::new(), &"x".repeat(99), 100)
                    .await
                    .is_err()
            );
        });
    }

    #[test]
    fn a_cut_frame_and_a_wrong_message_are_errors() {
        run(async {
            let bytes = frames(&["one"]).await;
            let mut cut = FrameReader::<_, String>::new(&bytes[..bytes.len() - 1], 100);
            assert_eq!(
                cut.next().await.unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof
            );
            let mut wrong = FrameReader::<_, u32>::new(&bytes[..], 100);
            assert_eq!(
                wrong.next().await.unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        });
    }

    #[test]
    fn cancelling_a_read_loses_nothing() {
        run(async {
            let bytes = frames(&["kept"]).await;
            let (mut near, far) = tokio::io::duplex(64);
            let mut reader = FrameReader::<_, String>::new(far, 100);
            near.write_all(&bytes[..6]).await.unwrap();
            tokio::select! {
                biased;
                _ = reader.next() => panic!("half a frame was read as one"),
                () = tokio::task::yield_now() => {}
            }
            near.write_all(&bytes[6..]).await.unwrap();
            assert_eq!(reader.next().await.unwrap().as_deref(), Some("kept"));
        });
    }

    /// Hands out at most so many bytes a read.
    fn in_reads_of(bytes: &[u8], read_bytes: usize) -> impl AsyncRead + Unpin + use<> {
        let (mut near, far) = tokio::io::duplex(read_bytes);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { near.write_all(&bytes).await });
        far
    }
}

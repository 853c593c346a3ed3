//! A Unix socket in front of an origin: what comes there goes on by TCP.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A listening Unix socket. Dropping it ends it; connections that it has passed on end with their origin.
#[derive(Debug)]
pub struct UnixBridge {
    path: PathBuf,
    connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl UnixBridge {
    /// Listens at `path`, and connects to `origin` for each connection.
    pub fn new(path: impl AsRef<Path>, origin: SocketAddr) -> Self {
        let bridge = Self {
            path: path.as_ref().to_owned(),
            connections: Arc::default(),
            stopping: Arc::default(),
        };
        let listener = UnixListener::bind(&bridge.path).expect("a free path");
        let (connections, stopping) = (
            Arc::clone(&bridge.connections),
            Arc::clone(&bridge.stopping),
        );
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stopping.load(Ordering::Acquire) {
                    break;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                // Errors show at the other end.
                let _passed = pass_on(socket, origin);
            }
        });
        bridge
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for UnixBridge {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let _wakes_the_accept = UnixStream::connect(&self.path);
        let _gone_before = std::fs::remove_file(&self.path);
    }
}

/// Moves the bytes of both directions, each in a thread of its own.
fn pass_on(socket: UnixStream, origin: SocketAddr) -> io::Result<()> {
    let onward = TcpStream::connect(origin)?;
    onward.set_nodelay(true)?;
    let (mut from, mut to) = (socket.try_clone()?, onward.try_clone()?);
    std::thread::spawn(move || {
        let _ended = io::copy(&mut from, &mut to);
        let _ended_before = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (onward, socket);
    std::thread::spawn(move || {
        let _ended = io::copy(&mut from, &mut to);
        let _ended_before = to.shutdown(Shutdown::Write);
    });
    Ok(())
}

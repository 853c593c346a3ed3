//! The demo's WebSocket server: it sends back what it gets.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};
use tungstenite::Message;

/// Where it listens, as `conf/demo.toml` has it.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 28083);

/// Serves until this program ends.
pub(crate) fn start() -> Result<()> {
    let address = SocketAddr::from(ADDRESS);
    let listener = TcpListener::bind(address)
        .with_context(|| format!("{address}, for the WebSocket server"))?;
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            thread::spawn(move || serve(socket));
        }
    });
    Ok(())
}

fn serve(socket: TcpStream) {
    // A client that asks for something else, or leaves, has ended.
    let Ok(mut client) = tungstenite::accept(socket) else {
        return;
    };
    while let Ok(message) = client.read() {
        let echoed = match message {
            Message::Text(_) | Message::Binary(_) => client.send(message),
            _ => Ok(()),
        };
        if echoed.is_err() {
            return;
        }
    }
}

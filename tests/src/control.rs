//! The control socket without the command: a process for each question costs more than a gateway's answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Asks for a reload; returns when the new generation serves. `Err` is why it was refused.
pub fn reload(control: &Path) -> Result<(), String> {
    let answer = ask(control, &Value::from("Reload")).map_err(|error| error.to_string())?;
    match answer.get("Reloaded") {
        Some(_) => Ok(()),
        None => Err(answer.to_string()),
    }
}

/// Asks for a reload that will wait, and does so: the connection keeps the place. Dropping it is what an interrupted
/// command does.
pub fn begin_reload(control: &Path) -> std::io::Result<UnixStream> {
    let mut socket = UnixStream::connect(control)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    send(&mut socket, &Value::from("Reload"))?;
    let said = receive(&mut socket)?;
    match said.get("Waits") {
        Some(_) => Ok(socket),
        None => Err(std::io::Error::other(said.to_string())),
    }
}

/// Sends a question and reads the answer, each a length of four bytes (little-endian) and that many bytes of JSON.
fn ask(control: &Path, question: &Value) -> std::io::Result<Value> {
    let mut socket = UnixStream::connect(control)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    send(&mut socket, question)?;
    receive(&mut socket)
}

fn send(socket: &mut UnixStream, question: &Value) -> std::io::Result<()> {
    let question = serde_json::to_vec(question)?;
    let len = u32::try_from(question.len()).map_err(std::io::Error::other)?;
    socket.write_all(&[&len.to_le_bytes()[..], &question].concat())
}

fn receive(socket: &mut UnixStream) -> std::io::Result<Value> {
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let mut answer = vec![0; u32::from_le_bytes(len) as usize];
    socket.read_exact(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Longer than a gateway waits for its workers.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

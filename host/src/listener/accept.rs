//! Takes connections from a listening socket for as long as the worker may have more.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tracing::{debug, warn};

use super::{ConnectionPermit, Listener, ListeningSocket, Shedder};
use crate::connection;
use crate::error::is_shortage;
use crate::transport::address::ClientAddress;
use crate::transport::socket::Socket;
use crate::worker_context::WorkerContext;

/// Who takes connections.
#[derive(Clone)]
pub struct Acceptor {
    pub worker: Rc<WorkerContext>,
    pub shedder: Rc<Shedder>,
}

/// Connections that are taken at once from a worker's own socket, before the worker turns to those that it has.
const BATCH: usize = 16;

/// From a shared socket: one, as nginx does, so that others have their share of many that come at once. Measured with 400
/// connections and 8 workers on two busy cores, the most that one worker had was 122 in the mean, with a batch of 8 it was 151.
const SHARED_BATCH: usize = 1;

/// After an accept that failed for want of memory, or of descriptors where the connection could not be shed either.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a worker looks at a shared socket that it has not been woken for. The kernel wakes one worker for a
/// connection; where that one cannot take it, since it has just become full on another socket of the listener or has no
/// descriptor, nobody else is told. As long as nginx's `accept_mutex_delay` by default.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Interval at which a full worker looks whether a connection waits for room. Other workers have so long to take one from a
/// shared socket.
const LOOK_FULL: Duration = Duration::from_millis(50);

/// Accepts until the worker drains. The socket stays open in the master, so what is queued in it then is for the next
/// generation.
pub async fn accept(socket: Rc<ListeningSocket>, listener: Rc<Listener>, taker: Acceptor) {
    let Acceptor { worker, .. } = &taker;
    while !worker.is_draining() {
        if let Err(error) = step(&socket, &listener, &taker).await {
            debug!(listener = %listener.name, "connections wait: {error}");
            taker.shedder.paused();
            // A connection that this worker cannot take is for another.
            socket.leave();
            tokio::select! {
                () = pause(&socket, &listener) => {}
                () = worker.drain_begins() => return,
            }
        }
    }
}

/// Until the socket is waited on again: one that is not has no other turn.
async fn pause(socket: &ListeningSocket, listener: &Listener) {
    let mut is_told = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        match socket.join() {
            Ok(()) => return,
            Err(error) if is_told => debug!(listener = %listener.name, "still: {error}"),
            Err(error) => {
                warn!(listener = %listener.name, "socket cannot be waited on, tried again: {error}");
                is_told = true;
            }
        }
    }
}

/// Once a worker has begun to drain. It may have been woken for a connection on a shared socket that it has not taken
/// yet; the kernel has told nobody else, so it is this worker's still.
pub fn accept_leftover(socket: &ListeningSocket, listener: &Rc<Listener>, taker: &Acceptor) {
    if socket.is_shared() {
        socket.leave();
        // What cannot be taken is met by the next worker that is woken.
        let _ = take(socket, listener, taker);
    }
}

/// Waits for a turn and takes what there is.
async fn step(
    socket: &ListeningSocket,
    listener: &Rc<Listener>,
    taker: &Acceptor,
) -> io::Result<()> {
    let worker = &taker.worker;
    if !listener.has_room() {
        return make_room(socket, listener, worker).await;
    }
    let turn = tokio::select! {
        biased;
        () = worker.drain_begins() => return Ok(()),
        turn = socket.turn() => turn?,
        () = tokio::time::sleep(LOOK_EVERY), if socket.is_shared() => {
            // Joining tells of what is queued.
            return socket.join();
        }
    };
    let is_empty = take(socket, listener, taker)?;
    turn.end(is_empty)?;
    if !is_empty {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Waits until there may be room for one more, and has idle connections end where one waits for it.
async fn make_room(
    socket: &ListeningSocket,
    listener: &Rc<Listener>,
    worker: &Rc<WorkerContext>,
) -> io::Result<()> {
    // A connection on a shared socket is for a worker that has room, if one has.
    socket.leave();
    let mut room = pin!(listener.room.notified());
    loop {
        tokio::select! {
            () = &mut room => break,
            () = worker.drain_begins() => return Ok(()),
            () = tokio::time::sleep(LOOK_FULL) => {}
        }
        if socket.has_queued() {
            listener.end_idle(worker);
        }
    }
    socket.join()
}

/// Takes a batch of connections. Whether none was left.
fn take(socket: &ListeningSocket, listener: &Rc<Listener>, taker: &Acceptor) -> io::Result<bool> {
    let batch = match socket.is_shared() {
        true => SHARED_BATCH,
        false => BATCH,
    };
    for _ in 0..batch {
        if !listener.has_room() {
            return Ok(false);
        }
        match socket.accept() {
            Ok(Some((stream, client))) => admit(stream, client, listener, &taker.worker),
            Ok(None) => return Ok(true),
            Err(error) if is_shortage(&error) => {
                if !taker.shedder.shed(socket, listener)? {
                    return Ok(true);
                }
            }
            // Of the connection that would have been accepted (accept(2)).
            Err(error) => debug!(listener = %listener.name, "connection ended at once: {error}"),
        }
    }
    Ok(false)
}

fn admit(
    stream: Socket,
    client: ClientAddress,
    listener: &Rc<Listener>,
    worker: &Rc<WorkerContext>,
) {
    let Some(counted) = ConnectionPermit::new(client, listener, worker) else {
        // The stream closes here.
        debug!(listener = %listener.name, %client, "connection refused: max_connections_per_address");
        return;
    };
    let (listener, worker) = (Rc::clone(listener), Rc::clone(worker));
    tokio::task::spawn_local(connection::serve(stream, client, listener, worker, counted));
}

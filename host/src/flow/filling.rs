//! A response on its way into the cache. A task of its own reads it, as fast as it comes: a client that is slow, or leaves, holds up
//! nobody who waits for the same.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::sync::Notify;
use tracing::debug;

use crate::cache::{PASSES_FOR, Place, Response, RouteCache, Vary};
use crate::downstream::{Collector, Downstream, RequestBody};
use crate::error::{ClientError, Error};
use crate::exchange::Exchange;
use crate::message::{BodySize, Headers, Piece};
use crate::runtime::PieceBudget;
use crate::upstream::{self, UploadSource};
use crate::worker_context::WorkerContext;
use crate::zone::Flight;

/// A response that is to be stored, without its body.
pub struct Fill {
    pub cache: Rc<RouteCache>,
    pub place: Place,
    /// Fields of the request that it answers.
    pub request: Headers,
    pub vary: Vary,
    /// When the origin was asked, by the zones' clock.
    pub asked_ns: u64,
    pub response: Response,
    /// Whom others wait for; `None`: others do not wait.
    pub flight: Option<Flight>,
}

/// Reader of a response that is being stored.
pub struct Filling {
    shared: Rc<Shared>,
    size: BodySize,
}

struct Shared {
    /// Pieces that are stored, or that the reader has not taken.
    pieces: RefCell<VecDeque<Bytes>>,
    /// Number of them that the reader has taken.
    read: Cell<usize>,
    state: RefCell<State>,
    /// Bytes of pieces that the reader has not taken, once what is read is not stored.
    unread: Cell<usize>,
    is_stored: Cell<bool>,
    has_reader: Cell<bool>,
    /// There is more, or an end.
    news: Notify,
    /// The reader has taken something, or is gone.
    taken: Notify,
}

enum State {
    Comes,
    Ended(Headers),
    Failed(Option<Error>),
}

/// How long a body is read on that nobody reads, for those who wait.
const UNREAD_FOR: Duration = Duration::from_secs(30);

/// Bytes that a worker holds of bodies on their way into caches.
const MOST_FILLING_BYTES: usize = 64 << 20;

/// Bytes that a piece counts beside its own.
const PIECE_BYTES: usize = 64;

/// Bytes that are read ahead of a client once they are not stored.
const READ_AHEAD_BYTES: usize = 64 * 1024;

impl Filling {
    /// Begins to read the body.
    pub fn begin(fill: Fill, body: upstream::Body, worker: &WorkerContext) -> Self {
        let shared = Rc::new(Shared {
            pieces: RefCell::default(),
            read: Cell::new(0),
            state: RefCell::new(State::Comes),
            unread: Cell::new(0),
            is_stored: Cell::new(true),
            has_reader: Cell::new(true),
            news: Notify::new(),
            taken: Notify::new(),
        });
        let size = body.size();
        let filler = Filler {
            shared: Rc::clone(&shared),
            fill,
            worker: worker.handle(),
            seen_bytes: 0,
            until: Instant::now() + UNREAD_FOR,
            room: 0,
        };
        tokio::task::spawn_local(filler.run(body));
        Self { shared, size }
    }

    pub fn size(&self) -> BodySize {
        self.size
    }

    /// Takes what has come, without waiting. Its end hands out the trailers.
    pub fn try_piece(&mut self, trailers: &mut Headers) -> Result<Piece, Error> {
        let shared = &self.shared;
        let piece = match shared.is_stored.get() {
            true => shared.pieces.borrow().get(shared.read.get()).cloned(),
            false => shared.pieces.borrow_mut().pop_front(),
        };
        if let Some(piece) = piece {
            match shared.is_stored.get() {
                true => shared.read.set(shared.read.get() + 1),
                false => shared
                    .unread
                    .set(shared.unread.get().saturating_sub(piece.len())),
            }
            shared.taken.notify_one();
            return Ok(Piece::Data(piece));
        }
        match &mut *self.shared.state.borrow_mut() {
            State::Comes => Ok(Piece::NeedMore),
            State::Ended(own) => {
                *trailers = std::mem::take(own);
                Ok(Piece::End)
            }
            // A reader that was told once and goes on is not to take it for an end.
            State::Failed(error) => Err(error.take().unwrap_or(ClientError::Gone.into())),
        }
    }

    /// Waits for more.
    pub async fn more(&self) {
        self.shared.news.notified().await;
    }

    /// Waits until all of it is there; `None`: it is longer than this, or than is stored. Then it goes on from its beginning.
    pub async fn whole(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, Error> {
        loop {
            let seen: usize = self.shared.pieces.borrow().iter().map(Bytes::len).sum();
            if seen > limit_bytes || !self.shared.is_stored.get() {
                return Ok(None);
            }
            match &mut *self.shared.state.borrow_mut() {
                State::Comes => {}
                State::Ended(_) => break,
                State::Failed(error) => {
                    return Err(error.take().unwrap_or(ClientError::Gone.into()));
                }
            }
            self.more().await;
        }
        Ok(Some(joined(&mut self.shared.pieces.borrow_mut())))
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.shared.has_reader.set(false);
        self.shared.taken.notify_one();
    }
}

/// The task that reads.
struct Filler {
    shared: Rc<Shared>,
    fill: Fill,
    worker: Option<Rc<WorkerContext>>,
    seen_bytes: u64,
    /// How long it goes on though nobody reads it.
    until: Instant,
    /// Bytes of the worker's room for such bodies.
    room: usize,
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.give_room_back();
    }
}

impl Filler {
    async fn run(mut self, body: upstream::Body) {
        match self.read(body).await {
            Ok(None) => self.let_others_pass(),
            Ok(Some(trailers)) => {
                if self.shared.is_stored.get() {
                    self.store();
                }
                self.shared.end(State::Ended(trailers));
            }
            Err(error) => {
                debug!(
                    zone = &*self.fill.cache.zone_name,
                    "cache: not stored: {error}"
                );
                self.let_others_pass();
                self.shared.end(State::Failed(Some(error)));
            }
        }
    }

    /// Reads it to its end. `None`: nobody wants it.
    async fn read(&mut self, mut body: upstream::Body) -> Result<Option<Headers>, Error> {
        let mut exchange = Exchange::idle();
        let mut source = UploadSource {
            downstream: &mut Downstream::Collect(Collector::new(&Method::GET, 0)),
            body: &mut RequestBody::held(Bytes::new()),
            filter: &mut None,
            pinned: None,
        };
        let mut pieces = PieceBudget::default();
        loop {
            pieces.next().await;
            match body.try_piece()? {
                Piece::Data(piece) => {
                    self.add(piece);
                    if !self.wait_for_reader().await {
                        return Ok(None);
                    }
                }
                Piece::NeedMore => {
                    let filled = Box::pin(body.fill(&mut source, &mut exchange));
                    match self.while_wanted(filled).await {
                        Some(filled) => filled?,
                        None => return Ok(None),
                    }
                }
                Piece::End => {
                    let trailers = body.take_trailers().unwrap_or_default();
                    body.finish();
                    return Ok(Some(trailers));
                }
            }
        }
    }

    fn add(&mut self, piece: Bytes) {
        self.seen_bytes += (piece.len() + PIECE_BYTES) as u64;
        let is_too_large = self.seen_bytes > self.fill.cache.max_body_bytes + PIECE_BYTES as u64;
        let is_stored = self.shared.is_stored.get();
        if is_stored && (is_too_large || !self.take_room(piece.len() + PIECE_BYTES)) {
            self.fill.cache.metrics.too_large.inc();
            self.let_others_pass();
            self.stop_storing();
        }
        let shared = &self.shared;
        if !shared.is_stored.get() {
            shared.unread.set(shared.unread.get() + piece.len());
        }
        shared.pieces.borrow_mut().push_back(piece);
        shared.news.notify_one();
    }

    /// Takes room for bytes that are held for the cache. False: this worker has enough of them.
    fn take_room(&mut self, bytes: usize) -> bool {
        let Some(worker) = &self.worker else {
            return false;
        };
        let taken = worker.filling_bytes.get() + bytes;
        if taken > MOST_FILLING_BYTES {
            return false;
        }
        worker.filling_bytes.set(taken);
        self.room += bytes;
        true
    }

    /// Lets go what the reader has taken.
    fn stop_storing(&mut self) {
        let shared = &self.shared;
        shared.is_stored.set(false);
        let mut pieces = shared.pieces.borrow_mut();
        let read = shared.read.replace(0).min(pieces.len());
        pieces.drain(..read);
        shared.unread.set(pieces.iter().map(Bytes::len).sum());
        drop(pieces);
        self.give_room_back();
    }

    fn give_room_back(&mut self) {
        if let Some(worker) = &self.worker {
            let left = worker.filling_bytes.get().saturating_sub(self.room);
            worker.filling_bytes.set(left);
        }
        self.room = 0;
    }

    /// Waits for more. `None`: nobody reads it, and it comes too slowly to be read for those alone who may ask later.
    async fn while_wanted<T>(&self, work: impl Future<Output = T> + Unpin) -> Option<T> {
        let mut work = work;
        loop {
            if !self.shared.has_reader.get() {
                let left = self.until.saturating_duration_since(Instant::now());
                return match self.fill.flight {
                    Some(_) => tokio::time::timeout(left, work).await.ok(),
                    None => None,
                };
            }
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.shared.taken.notified() => {}
            }
        }
    }

    /// Waits where nothing is stored and the client is slow. False: nobody wants more.
    async fn wait_for_reader(&self) -> bool {
        let shared = &self.shared;
        if !shared.has_reader.get() && !self.is_worth_it() {
            return false;
        }
        while !shared.is_stored.get() {
            if !shared.has_reader.get() {
                return false;
            }
            if shared.unread.get() <= READ_AHEAD_BYTES {
                break;
            }
            shared.taken.notified().await;
        }
        true
    }

    /// Whether what nobody reads is read on: others wait for it, and it is not too slow.
    fn is_worth_it(&self) -> bool {
        self.fill.flight.is_some() && Instant::now() < self.until
    }

    fn store(&mut self) {
        let Fill {
            cache,
            place,
            request,
            vary,
            asked_ns,
            response,
            ..
        } = &mut self.fill;
        response.body = joined(&mut self.shared.pieces.borrow_mut());
        let stored = cache.store(place, request, (vary, *asked_ns), response);
        match cache.noted(stored) {
            Some(true) => cache.metrics.stored.inc(),
            Some(false) | None => return self.let_others_pass(),
        }
        // From here on those who wait find it.
        self.fill.flight = None;
    }

    /// Has requests that wait for this response go to the origin by themselves.
    fn let_others_pass(&mut self) {
        let Fill {
            cache,
            place,
            flight,
            ..
        } = &mut self.fill;
        let key = place.flight(cache);
        let is_awaited = self
            .worker
            .as_ref()
            .is_some_and(|worker| worker.flights().is_awaited(&key));
        if flight.is_some() && is_awaited {
            cache.let_pass(place, PASSES_FOR, false);
        }
        *flight = None;
    }
}

/// All pieces as one.
fn joined(pieces: &mut VecDeque<Bytes>) -> Bytes {
    match &*pieces.make_contiguous() {
        [] => Bytes::new(),
        [piece] => piece.clone(),
        pieces => Bytes::from(pieces.concat()),
    }
}

impl Shared {
    fn end(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.news.notify_one();
    }
}

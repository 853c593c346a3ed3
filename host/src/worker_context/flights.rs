//! Waits for flights: requests of this worker that want a value which somebody fetches.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::exchange::{Exchange, PluginKey};
use crate::runtime::readiness::watch_readable;
use crate::wasm::{FlightRequest, Flown};
use crate::zone::{Flight, FlightKey, Flights, Key, KvZone, Permit, ZoneError, now_ns};

/// Waits of this worker, by flight.
#[derive(Clone)]
pub struct FlightWaits(Rc<Shared>);

struct Shared {
    flights: Arc<Flights>,
    waits: RefCell<HashMap<FlightKey, Rc<Wait>>>,
    /// The bell is listened to, from the first wait on.
    is_listening: Cell<bool>,
}

/// Requests that wait for one flight.
struct Wait {
    /// Zone and key of what is fetched; `None`: its end alone is waited for.
    value: Option<(Arc<KvZone>, Vec<u8>)>,
    /// Rings for all of them when the value is there, and for one when nobody fetches it any more.
    news: Notify,
    count: Cell<usize>,
}

/// End of a wait.
pub enum Landed {
    /// The key has a value now.
    Value,
    /// The caller fetches it.
    Fetch(Flight),
    TimedOut,
}

impl Landed {
    /// Has the exchange hold the flight, where this is one.
    pub fn hold_in(self, exchange: &mut Exchange, plugin: PluginKey) -> Flown {
        match self {
            Self::Value => Flown::Value,
            Self::TimedOut => Flown::TimedOut,
            Self::Fetch(flight) => {
                exchange.context_mut().permits.hold_flight(plugin, flight);
                Flown::Fetch
            }
        }
    }
}

impl FlightWaits {
    pub fn new(flights: Arc<Flights>) -> Self {
        Self(Rc::new(Shared {
            flights,
            waits: RefCell::default(),
            is_listening: Cell::new(false),
        }))
    }

    /// Waits until the key of this zone has a value, or nobody else fetches it, or the time is over. Cancelled, it leaves nothing.
    pub async fn fly(&self, wish: &FlightRequest) -> Result<Landed, ZoneError> {
        let FlightRequest {
            name,
            zone,
            key,
            longest,
            ..
        } = wish;
        let flight_key = FlightKey::new(name, key);
        if let Some(landed) = self.try_now(zone, key, &flight_key)? {
            return Ok(landed);
        }
        if longest.is_zero() {
            return Ok(Landed::TimedOut);
        }
        if let Err(error) = self.listen() {
            tracing::error!(%error, "the bell of flights cannot be heard");
            return Ok(Landed::TimedOut);
        }
        let Ok(counted) = self.0.flights.await_end(&flight_key) else {
            // No room for those who wait: whoever ends the flight would not ring.
            return Ok(Landed::Fetch(self.0.flights.alone(&flight_key)));
        };
        let value = (Arc::clone(zone), key.clone());
        let waiter = Waiter::new(&self.0, Some(value), &flight_key, counted);
        let landed = async {
            loop {
                let mut news = pin!(waiter.wait.news.notified());
                // From here on nothing is missed that the next look does not see.
                news.as_mut().enable();
                if let Some(landed) = self.try_now(zone, key, &flight_key)? {
                    return Ok(landed);
                }
                news.await;
            }
        };
        let landed = tokio::time::timeout(*longest, landed).await;
        landed.unwrap_or(Ok(Landed::TimedOut))
    }

    /// Begins a flight; `None`: it is under way.
    pub fn begin(&self, key: &FlightKey) -> Option<Flight> {
        self.0.flights.begin(key)
    }

    /// Whether somebody waits for the end of this flight, in whichever worker.
    pub fn is_awaited(&self, key: &FlightKey) -> bool {
        self.0.flights.is_awaited(key)
    }

    /// Waits until the flight is over; false: the time is. Cancelled, it leaves nothing.
    pub async fn end_of(&self, key: &FlightKey, longest: Duration) -> bool {
        if longest.is_zero() || self.listen().is_err() {
            return false;
        }
        let Ok(counted) = self.0.flights.await_end(key) else {
            return false;
        };
        let waiter = Waiter::new(&self.0, None, key, counted);
        let over = async {
            loop {
                let mut news = pin!(waiter.wait.news.notified());
                // From here on nothing is missed that the next look does not see.
                news.as_mut().enable();
                if !self.0.flights.is_under_way(key) {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(longest, over).await.is_ok()
    }

    /// Looks for what there is without waiting; `None`: somebody fetches the value.
    fn try_now(
        &self,
        zone: &KvZone,
        key: &[u8],
        flight_key: &FlightKey,
    ) -> Result<Option<Landed>, ZoneError> {
        if has_value(zone, key)? {
            return Ok(Some(Landed::Value));
        }
        let Some(flight) = self.0.flights.begin(flight_key) else {
            return Ok(None);
        };
        // The one before has put it there in between.
        Ok(Some(match has_value(zone, key)? {
            true => Landed::Value,
            false => Landed::Fetch(flight),
        }))
    }

    fn listen(&self) -> std::io::Result<()> {
        if self.0.is_listening.get() {
            return Ok(());
        }
        let bell = self.0.flights.bell().as_fd().try_clone_to_owned()?;
        // Edges count from here on, before the task has run.
        let bell = watch_readable(bell)?;
        self.0.is_listening.set(true);
        tokio::task::spawn_local(listen(bell, Rc::downgrade(&self.0)));
        Ok(())
    }
}

/// Looks again at what is waited for, whenever the bell rings.
async fn listen(bell: AsyncFd<OwnedFd>, shared: Weak<Shared>) {
    while let Ok(mut rung) = bell.readable().await {
        rung.clear_ready();
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.look_again();
    }
}

impl Shared {
    fn look_again(&self) {
        for (flight_key, wait) in &*self.waits.borrow() {
            let is_under_way = || self.flights.is_under_way(flight_key);
            let Some((zone, key)) = &wait.value else {
                if !is_under_way() {
                    wait.news.notify_waiters();
                }
                continue;
            };
            match has_value(zone, key) {
                // Each meets the error itself.
                Ok(true) | Err(_) => wait.news.notify_waiters(),
                Ok(false) if is_under_way() => {}
                // A single one, who then fetches it or finds that another worker does.
                Ok(false) => wait.news.notify_one(),
            }
        }
    }
}

fn has_value(zone: &KvZone, key: &[u8]) -> Result<bool, ZoneError> {
    let found = zone.read(&Key::new(key)?, now_ns(), |_| ())?;
    Ok(found.is_some())
}

/// Request that waits.
struct Waiter<'a> {
    shared: &'a Shared,
    key: FlightKey,
    wait: Rc<Wait>,
    /// Has whoever ends the flight ring the bell.
    _counted: Option<Permit>,
}

impl<'a> Waiter<'a> {
    fn new(
        shared: &'a Shared,
        value: Option<(Arc<KvZone>, Vec<u8>)>,
        flight_key: &FlightKey,
        counted: Option<Permit>,
    ) -> Self {
        let mut waits = shared.waits.borrow_mut();
        let wait = waits.entry(flight_key.clone()).or_insert_with(|| {
            Rc::new(Wait {
                value,
                news: Notify::new(),
                count: Cell::new(0),
            })
        });
        wait.count.set(wait.count.get() + 1);
        Self {
            shared,
            key: flight_key.clone(),
            wait: Rc::clone(wait),
            _counted: counted,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.wait.count.set(self.wait.count.get() - 1);
        if self.wait.count.get() == 0 {
            self.shared.waits.borrow_mut().remove(&self.key);
        }
    }
}

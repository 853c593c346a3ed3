//! The new master's side.

use std::os::fd::RawFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::process::channel::{FrameReader, write_frame};
use crate::process::sys;

use super::descriptors;
use super::inheritance::Inheritance;
use super::message::{DESCRIPTORS_MAX, FRAME_LIMIT_BYTES, FromNew, FromOld, Serving};
use super::predecessor::Predecessor;

/// The channel to the old master, before all is the new one's.
pub struct TakeOver {
    pid: u32,
    inbox: FrameReader<OwnedReadHalf, FromOld>,
    outbox: OwnedWriteHalf,
}

impl TakeOver {
    /// Receives what the old master hands over. The error is for a person; the old master has been told.
    pub async fn begin(channel: RawFd) -> Result<(Self, Inheritance), String> {
        let channel = sys::inherited(channel).map_err(|error| format!("--channel: {error}"))?;
        let channel = StdUnixStream::from(channel);
        channel
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        let stream = UnixStream::from_std(channel).map_err(|error| error.to_string())?;
        let received = tokio::time::timeout(OFFER_TIMEOUT, async {
            let received = descriptors::receive(&stream, DESCRIPTORS_MAX).await;
            let (source, outbox) = stream.into_split();
            let mut inbox = FrameReader::<_, FromOld>::new(source, FRAME_LIMIT_BYTES);
            let offer = match &received {
                Ok(_) => inbox.next().await,
                Err(_) => Ok(None),
            };
            (received, offer, inbox, outbox)
        });
        let Ok((received, offer, inbox, outbox)) = received.await else {
            return Err("the old master hands nothing over".to_owned());
        };
        let sorted = match (received, offer) {
            (Err(error), _) => Err(format!("descriptors: {error}")),
            (Ok(descriptors), Ok(Some(FromOld::Offer(offer)))) => {
                Inheritance::sort(offer, descriptors)
            }
            (Ok(_), Ok(Some(_))) => Err("the old master's first message is no offer".to_owned()),
            (Ok(_), Ok(None)) => Err("the old master ended".to_owned()),
            (Ok(_), Err(error)) => Err(format!("the hand-over cannot be read: {error}")),
        };
        let mut begun = Self {
            pid: 0,
            inbox,
            outbox,
        };
        match sorted {
            Ok(inheritance) => {
                begun.pid = inheritance.pid;
                Ok((begun, inheritance))
            }
            Err(error) => {
                begun.refuse(vec![error.clone()]).await;
                Err(error)
            }
        }
    }

    /// Tells the old master why nothing comes of it.
    pub async fn refuse(&mut self, reasons: Vec<String>) {
        // An old master that is gone needs no reason.
        let _ = self.tell(&FromNew::Refused(reasons)).await;
    }

    /// Says that all went well which can fail without the old master's word, and waits for that word. The error is for a person.
    pub async fn ready(&mut self) -> Result<(), String> {
        self.tell(&FromNew::Ready).await?;
        match self.inbox.next().await {
            Ok(Some(FromOld::Commit)) => Ok(()),
            Ok(Some(other)) => Err(format!("the old master says {other:?} out of turn")),
            Ok(None) | Err(_) => Err(GONE.to_owned()),
        }
    }

    /// Resolves when the old master has given this one up, or has ended.
    pub async fn given_up(&mut self) -> String {
        match self.inbox.next().await {
            Ok(Some(other)) => format!("the old master says {other:?} out of turn"),
            Ok(None) | Err(_) => GONE.to_owned(),
        }
    }

    /// Tells the old master that this one serves, and waits until it has let go of everything. One that was killed in
    /// this moment has let go, too; one that lives and has given this one up is the master. The error is for a person.
    pub async fn serving(mut self, serving: Serving) -> Result<Rc<Predecessor>, String> {
        // The old master's end is found out below.
        let _ = self.tell(&FromNew::Serving(serving)).await;
        match self.inbox.next().await {
            Ok(Some(FromOld::Yours)) => {}
            Ok(_) | Err(_) if !sys::has_ended(self.pid) => return Err(GONE.to_owned()),
            Ok(_) | Err(_) => tracing::warn!("the old master ended while it handed over"),
        }
        Ok(Predecessor::new(self.pid, self.inbox, self.outbox))
    }

    async fn tell(&mut self, message: &FromNew) -> Result<(), String> {
        write_frame(&mut self.outbox, message, FRAME_LIMIT_BYTES)
            .await
            .map_err(|_| GONE.to_owned())
    }
}

const GONE: &str = "the old master has ended, or has given this one up";

/// Time for the offer, which the old master sends at once.
const OFFER_TIMEOUT: Duration = Duration::from_secs(30);

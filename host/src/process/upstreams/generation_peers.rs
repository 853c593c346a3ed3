//! Peers of one generation, and who is told when they are others.

use std::cell::RefCell;

use crate::upstream::PeerList;

use super::Lists;
use super::table::LeasedList;

/// Peers of one generation, by upstream. Its workers' lists are copies of these.
pub struct GenerationPeers {
    lists: RefCell<Lists>,
    /// Tells its workers of an upstream's other peers. `None` before it has some.
    tell: RefCell<Option<Tell>>,
}

type Tell = Box<dyn Fn(&str, &PeerList)>;

impl GenerationPeers {
    pub fn new(lists: Lists) -> Self {
        Self {
            lists: RefCell::new(lists),
            tell: RefCell::default(),
        }
    }

    /// Has changes told so from now on.
    pub fn tell_by(&self, tell: impl Fn(&str, &PeerList) + 'static) {
        self.tell.replace(Some(Box::new(tell)));
    }

    /// Lends the peers; there are none any more when the generation has ended.
    pub fn with_lists<T>(&self, use_them: impl FnOnce(&Lists) -> T) -> T {
        use_them(&self.lists.borrow())
    }

    /// Other peers of an upstream that the generation has, of which its workers are told.
    pub(super) fn set(&self, upstream: &str, leased: LeasedList) {
        let list = leased.list.clone();
        let before = match self.lists.borrow_mut().get_mut(upstream) {
            Some(peers) => std::mem::replace(&mut peers.leased, leased),
            None => return,
        };
        drop(before);
        if let Some(tell) = &*self.tell.borrow() {
            tell(upstream, &list);
        }
    }

    /// Lets go of all peers: the generation has ended.
    pub fn end(&self) {
        drop((self.lists.take(), self.tell.take()));
    }
}

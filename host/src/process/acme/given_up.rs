//! Orders that are given up.

use crate::acme::{Entry, Record, Store, failure_wait};

use super::wanted::now;

/// Guard of an order that may be given up, by another config or for another master: that is no failure, but the next one waits as
/// long as after the first. A gateway that is started over and over would order without end.
pub struct GivenUp<'a> {
    store: &'a Store,
    entry: &'a Entry,
    /// State to go back to.
    record: Option<Record>,
    /// Whether the next order is a successor's, which need not wait.
    hands_over: &'a dyn Fn() -> bool,
}

impl<'a> GivenUp<'a> {
    pub fn restores(
        store: &'a Store,
        entry: &'a Entry,
        record: Record,
        hands_over: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            store,
            entry,
            record: Some(record),
            hands_over,
        }
    }

    /// The order has come to its end.
    pub fn forget(mut self) {
        self.record = None;
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        if !(self.hands_over)() {
            let wait_end = now() + failure_wait(1, None);
            record.not_before = record.not_before.max(Some(wait_end));
        }
        // Where the store takes nothing, the order counts as failed.
        let _ = self.store.save_record(self.entry, &record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::placed_store;

    #[test]
    fn the_next_order_waits_but_for_a_successor() {
        let folder = tempfile::tempdir().unwrap();
        let (store, entry) = placed_store(folder.path());
        let before = |not_before| Record {
            failures: 2,
            not_before,
            ..Record::default()
        };
        let left = |record: Record, hands_over: bool| {
            drop(GivenUp::restores(&store, &entry, record, &|| hands_over));
            store.record(&entry)
        };
        let known = before(Some(now() + 900));
        assert_eq!(left(known.clone(), false), known);
        assert_eq!(left(known.clone(), true), known);
        let waits = left(before(None), false);
        assert_eq!(waits.failures, 2);
        assert!(waits.not_before.unwrap() >= now() + 55, "{waits:?}");
        assert_eq!(left(before(Some(7)), true), before(Some(7)));
        GivenUp::restores(&store, &entry, known, &|| false).forget();
        assert_eq!(store.record(&entry), before(Some(7)));
    }
}

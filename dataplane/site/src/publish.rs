//! How snapshots reach the workers, and how they come back.
//!
//! One mailbox for each worker: two bounded queues and the generation the worker goes by. The manager puts an
//! `Arc<Snapshot>` in; the worker takes it over between two bursts and puts its old one into the other queue; the
//! manager alone drops it. So a worker never allocates, frees or waits for a snapshot, and what a swap costs it
//! does not depend on how many backends there are.
//!
//! Invariant: at most [`IN_FLIGHT`] snapshots are on the way to a worker. A worker that does not move refuses the
//! next one, and the manager tries again; on the way back there is always room.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use engine::snapshot::Snapshot;
use ipc::sync::{AtomicU64, Ordering};

/// Snapshots on the way to one worker at most.
const IN_FLIGHT: usize = 4;

/// One worker's mailbox.
#[derive(Debug)]
struct Mailbox {
    fresh: ArrayQueue<Arc<Snapshot>>,
    retired: ArrayQueue<Arc<Snapshot>>,
    generation: CachePadded<AtomicU64>,
}

/// The manager's end: one for all workers.
#[derive(Debug, Default)]
pub struct Publisher {
    mailboxes: Vec<Arc<Mailbox>>,
}

/// A worker's end.
#[derive(Debug)]
pub struct Subscriber {
    mailbox: Arc<Mailbox>,
    current: Arc<Snapshot>,
}

impl Publisher {
    /// A mailbox for one more worker, which begins with `first`.
    pub fn subscribe(&mut self, first: &Arc<Snapshot>) -> Subscriber {
        let mailbox = Arc::new(Mailbox {
            fresh: ArrayQueue::new(IN_FLIGHT),
            // One more than can be under way: the one the worker goes by comes back too.
            retired: ArrayQueue::new(IN_FLIGHT + 1),
            generation: CachePadded::new(AtomicU64::new(first.generation)),
        });
        self.mailboxes.push(Arc::clone(&mailbox));
        Subscriber { mailbox, current: Arc::clone(first) }
    }

    /// Offers a snapshot to every worker; `false` when a worker's mailbox is full (try again once it moved on;
    /// workers that took it already ignore the second copy).
    #[must_use]
    pub fn publish(&self, snapshot: &Arc<Snapshot>) -> bool {
        self.reclaim();
        self.mailboxes.iter().all(|mailbox| mailbox.fresh.push(Arc::clone(snapshot)).is_ok())
    }

    /// Whether every worker goes by this generation or a later one.
    pub fn is_adopted(&self, generation: u64) -> bool {
        // ADOPTED: pairs with the store in `Subscriber::refresh`; what the worker did under the snapshot
        // before is visible to the manager that sees this.
        self.mailboxes.iter().all(|mailbox| mailbox.generation.load(Ordering::Acquire) >= generation)
    }

    /// Frees what came back.
    pub fn reclaim(&self) {
        for mailbox in &self.mailboxes {
            while mailbox.retired.pop().is_some() {}
        }
    }
}

impl Subscriber {
    /// Takes over the newest snapshot, if there is one; whether it did. Called between two bursts.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.mailbox.fresh.is_empty() { false } else { self.swap() }
    }

    /// The rare part of [`Subscriber::refresh`]: one hand-over.
    #[inline(never)]
    fn swap(&mut self) -> bool {
        if self.mailbox.retired.is_full() {
            return false;
        }
        let Some(fresh) = self.mailbox.fresh.pop() else { return false };
        let generation = fresh.generation;
        let old = core::mem::replace(&mut self.current, fresh);
        if let Err(old) = self.mailbox.retired.push(old) {
            // Unreachable: room was seen above and only this worker fills the queue. Were it not so, leaking
            // one snapshot is better than freeing it on a worker.
            core::mem::forget(old);
        }
        // ADOPTED.
        self.mailbox.generation.store(generation, Ordering::Release);
        true
    }

    /// The snapshot to go by.
    #[inline]
    pub fn snapshot(&self) -> &Snapshot {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use engine::model::Model;
    use engine::snapshot::{Port, Site};

    use super::*;

    fn snapshot(generation: u64) -> Arc<Snapshot> {
        let site = Site { ports: vec![Port::default()], tunnel_sources: [None, None], maglev_seed: 0 };
        Arc::new(Snapshot::of_model(&Model::default(), &site, generation))
    }

    #[test]
    fn a_snapshot_is_freed_by_the_publisher_and_never_by_the_subscriber() {
        let mut publisher = Publisher::default();
        let first = snapshot(0);
        let mut subscriber = publisher.subscribe(&first);
        let second = snapshot(1);
        assert!(publisher.publish(&second));
        assert!(!publisher.is_adopted(1));
        assert!(subscriber.refresh());
        assert!(publisher.is_adopted(1));
        assert_eq!(Arc::strong_count(&first), 2, "the old one is on its way back");
        publisher.reclaim();
        assert_eq!(Arc::strong_count(&first), 1);
        assert_eq!(subscriber.snapshot().generation, 1);
    }

    #[test]
    fn a_worker_that_does_not_move_fills_its_mailbox_and_nothing_is_lost() {
        let mut publisher = Publisher::default();
        let mut subscriber = publisher.subscribe(&snapshot(0));
        let mut last = 0;
        while publisher.publish(&snapshot(last + 1)) {
            last += 1;
        }
        assert_eq!(last, IN_FLIGHT as u64);
        while subscriber.refresh() {
            publisher.reclaim();
        }
        assert_eq!(subscriber.snapshot().generation, last);
    }
}

//! Connections of whom nobody knows yet who they are: few, and of each source fewer.
//!
//! Invariant: there are never more than [`MAX`], nor more than [`MAX_OF_ONE`] of one source (an IPv4 address, a /64 of
//! IPv6). Where one comes that would be too many, the one that has waited longest gives way, of the same source if that
//! is what has too many. An agent says who it is within milliseconds, so those that wait are those that say nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Connections at a time. Known ones are few by themselves: a later one of a backend takes the earlier one's place.
const MAX: usize = 256;

/// Of one source.
const MAX_OF_ONE: usize = 32;

/// Pause between two warnings.
const SAID: Duration = Duration::from_secs(60);

/// All strangers.
#[derive(Default)]
pub(super) struct Strangers(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// By the number of the connection: the first has waited longest.
    all: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    said: Option<Instant>,
    /// How many gave way since that was said.
    ended: u64,
}

/// A place among the strangers; given back when dropped.
pub(super) struct Place {
    strangers: Arc<Strangers>,
    number: u64,
    gives_way: Arc<Notify>,
}

impl Strangers {
    /// A place for a connection, whose numbers ascend. Another one may have to give way.
    pub fn enter(self: &Arc<Self>, number: u64, address: IpAddr) -> Place {
        let (source, gives_way) = (source(address), Arc::new(Notify::new()));
        let mut waiting = self.lock();
        let own = || waiting.all.iter().filter(|(_, (other, _))| *other == source).map(|(number, _)| *number);
        let too_many = if own().count() >= MAX_OF_ONE {
            own().next()
        } else if waiting.all.len() >= MAX {
            waiting.all.keys().next().copied()
        } else {
            None
        };
        if let Some((source, ended)) = too_many.and_then(|number| waiting.all.remove(&number)) {
            ended.notify_one();
            waiting.warn(source);
        }
        waiting.all.insert(number, (source, gives_way.clone()));
        drop(waiting);
        Place { strangers: self.clone(), number, gives_way }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic under the lock leaves a stranger too few or too many, who counts no more when it has ended.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Says that connections give way; once a minute, however many do.
    fn warn(&mut self, source: IpAddr) {
        self.ended += 1;
        if self.said.is_some_and(|said| said.elapsed() < SAID) {
            return;
        }
        log::warn!(
            "{} connections to the port for agents ended before they said who they are, the last from {source}: more \
             than {MAX} wait, or {MAX_OF_ONE} of one source; let only backends reach `listen` of [agents]",
            self.ended
        );
        (self.said, self.ended) = (Some(Instant::now()), 0);
    }
}

impl Place {
    /// Returns when another one needs the place.
    pub async fn gives_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.lock().all.remove(&self.number);
    }
}

/// What one stranger has at its disposal.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn is_ended(place: &Place) -> bool {
        place.gives_way().now_or_never().is_some()
    }

    #[test]
    fn of_one_source_the_one_that_waited_longest_gives_way_and_nobody_else_does() {
        let strangers = Arc::new(Strangers::default());
        let other = strangers.enter(0, "10.0.1.11".parse().unwrap());
        let address = |number: u64| format!("fd00:1::{number:x}").parse().unwrap();
        let places: Vec<Place> = (1..=40).map(|number| strangers.enter(number, address(number))).collect();
        let ended: Vec<bool> = places.iter().map(is_ended).collect();
        assert!(ended[..40 - MAX_OF_ONE].iter().all(|ended| *ended), "{ended:?}");
        assert!(!ended[40 - MAX_OF_ONE..].iter().any(|ended| *ended), "{ended:?}");
        assert!(!is_ended(&other));
        drop(places);
        assert_eq!(strangers.lock().all.len(), 1);
    }

    #[test]
    fn of_many_sources_the_one_that_waited_longest_gives_way() {
        let strangers = Arc::new(Strangers::default());
        let address = |number: u64| IpAddr::from([10, 7, 0, u8::try_from(number % 256).unwrap()]);
        let places: Vec<Place> = (0..300).map(|number| strangers.enter(number, address(number))).collect();
        let ended: Vec<bool> = places.iter().map(is_ended).collect();
        assert_eq!(strangers.lock().all.len(), MAX);
        assert!(ended[..300 - MAX].iter().all(|ended| *ended), "{ended:?}");
        assert!(!ended[300 - MAX..].iter().any(|ended| *ended), "{ended:?}");
    }
}

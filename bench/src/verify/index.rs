//! The packets that went in, found again by their bytes: 21 bytes a packet and a hash table of 4-byte numbers, so that
//! captures of millions of packets fit.
//!
//! A packet is known by a 64-bit hash, under a key of this run, of its VLAN tags and the whole IP packet. Two
//! different packets of ten million share one with a chance of three in a million. Equal packets (a SYN sent again)
//! are a ring in the order in which they came: the first to come out is the first that went in.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::flows::FlowId;

/// What must become of a packet that went in, by what the capture and the configuration say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// To a VIP: comes out.
    Forwarded,
    /// A SYN with MP_JOIN whose token a connection has taught: comes out, on that connection's backend.
    Join,
    /// The same where two connections claim the token, or its life may be over, or it has had more joins than a
    /// connection has subflows; and ICMP errors whose quote is cut or a fragment: may be dropped.
    Doubtful,
    /// A SYN with MP_JOIN of a token that nobody has taught yet, and the VIP drops or resets such.
    UnknownJoin,
    /// To a VIP, and perhaps too long for the port it would leave by.
    TooBig,
    /// An ICMP error that quotes a packet of a VIP's service.
    Related,
    /// What Weft answers itself.
    Question,
    /// A fragment of a TCP packet to a VIP: never comes out.
    TcpFragment,
    /// To nobody that Weft serves, or damaged: never comes out.
    Foreign,
}

impl Class {
    /// Whether a packet of this class that does not come out is lost.
    pub fn must_come_out(self) -> bool {
        matches!(self, Self::Forwarded | Self::Join | Self::Related)
    }

    /// Whether it may come out at all.
    pub fn may_come_out(self) -> bool {
        !matches!(self, Self::TcpFragment | Self::Foreign | Self::Question)
    }

    /// What the report calls those that did not come out.
    pub fn absent(self) -> &'static str {
        match self {
            Self::Forwarded => "to a VIP, lost",
            Self::Join => "joins of known tokens, lost",
            Self::Doubtful => {
                "joins of ambiguous, expired or crowded tokens, odd ICMP errors: dropped as they may be"
            }
            Self::UnknownJoin => "joins of unknown tokens, dropped or reset as configured",
            Self::TooBig => "longer than the MTU with the outer headers",
            Self::Related => "ICMP errors about a VIP's flows, lost",
            Self::Question => "ARP, neighbour discovery and echo requests, answered or not",
            Self::TcpFragment => "fragments of TCP packets",
            Self::Foreign => "to nobody's service, or damaged",
        }
    }
}

/// Of equal packets those that may be dropped are a ring of their own: a join that was dropped as unknown and the same
/// sent again when it was known are told apart by which of them had to come out.
const MAY_BE_DROPPED: u64 = 0x9e37_79b9_7f4a_7c15;

/// No packet, no flow.
const NONE: u32 = u32::MAX;

/// Where a packet's bytes were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It went in, and had not come out yet: its place.
    First(u32),
    /// It went in, and all of its like have come out: the number under which the last did.
    Again(u32),
    /// It did not go in.
    Never,
}

/// The packets that went in, in order. Places count from 0, numbers (as capture tools show them) from 1.
#[derive(Default)]
pub struct Index {
    keys: DefaultHashBuilder,
    table: HashTable<u32>,
    hashes: Vec<u64>,
    /// Of equal packets the next that waits; that of the last is the first.
    next: Vec<u32>,
    flows: Vec<u32>,
    /// The number under which it came out, 0 while it has not.
    out: Vec<u32>,
    classes: Vec<Class>,
}

impl Index {
    /// How many packets went in.
    pub fn count(&self) -> usize {
        self.hashes.len()
    }

    /// The hash by which a packet is found.
    pub fn hash(&self, tags: &[u8], packet: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write(tags);
        hasher.write(packet);
        hasher.finish()
    }

    /// Adds a packet; gives its place. `None` past four thousand million.
    pub fn add(&mut self, hash: u64, flow: Option<FlowId>, class: Class) -> Option<u32> {
        let place = u32::try_from(self.hashes.len()).ok().filter(|place| *place != NONE)?;
        let hash = if class.must_come_out() { hash } else { hash ^ MAY_BE_DROPPED };
        let hashes = &self.hashes;
        let of = |place: &u32| hashes.get(*place as usize).copied().unwrap_or_default();
        let next = match self.table.find_mut(hash, |place| of(place) == hash) {
            Some(last) => {
                let before = *last;
                *last = place;
                self.next.get_mut(before as usize).map_or(place, |next| std::mem::replace(next, place))
            }
            None => {
                self.table.insert_unique(hash, place, of);
                place
            }
        };
        self.hashes.push(hash);
        self.next.push(next);
        self.flows.push(flow.map_or(NONE, |flow| flow.0));
        self.out.push(0);
        self.classes.push(class);
        Some(place)
    }

    /// Notes that a packet came out, as this number, and says where it went in.
    pub fn claim(&mut self, hash: u64, number: u32) -> Found {
        match self.claim_of(hash, number) {
            first @ Found::First(_) => first,
            other => match self.claim_of(hash ^ MAY_BE_DROPPED, number) {
                Found::Never => other,
                found => found,
            },
        }
    }

    fn claim_of(&mut self, hash: u64, number: u32) -> Found {
        let hashes = &self.hashes;
        let found = self.table.find(hash, |place| hashes.get(*place as usize) == Some(&hash));
        let Some(&last) = found else { return Found::Never };
        let first = self.next.get(last as usize).copied().unwrap_or(last);
        match self.out.get_mut(first as usize) {
            Some(out) if *out == 0 => *out = number,
            Some(out) => return Found::Again(*out),
            None => return Found::Never,
        }
        // The ring turns; once all have come out, the first is met again, and is out.
        if let Some(place) = self.table.find_mut(hash, |place| hashes.get(*place as usize) == Some(&hash)) {
            *place = first;
        }
        Found::First(first)
    }

    /// Notes that a packet was answered by this packet of the output.
    pub fn answered(&mut self, place: u32, number: u32) {
        if let Some(out) = self.out.get_mut(place as usize) {
            *out = number;
        }
    }

    /// Whether a packet has come out, or was answered.
    pub fn is_out(&self, place: u32) -> bool {
        self.out.get(place as usize).is_some_and(|out| *out != 0)
    }

    /// A packet's class.
    pub fn class(&self, place: u32) -> Class {
        self.classes.get(place as usize).copied().unwrap_or(Class::Foreign)
    }

    /// The flow a packet is of, if it is of one.
    pub fn flow(&self, place: u32) -> Option<FlowId> {
        self.flows.get(place as usize).copied().filter(|flow| *flow != NONE).map(FlowId)
    }

    /// The packets that have not come out: place and class.
    pub fn absent(&self) -> impl Iterator<Item = (u32, Class)> {
        let waiting = self.out.iter().zip(&self.classes).zip(0..);
        waiting.filter(|((out, _), _)| **out == 0).map(|((_, class), place)| (place, *class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_packets_come_out_in_the_order_in_which_they_went_in_and_not_once_more() {
        let mut index = Index::default();
        let [a, b] = [index.hash(&[], b"again"), index.hash(&[1], b"again")];
        assert_ne!(a, b, "tags count");
        for hash in [a, b, a, a] {
            index.add(hash, None, Class::Forwarded);
        }
        let came = [a, a, b, a].map(|hash| index.claim(hash, 9));
        assert_eq!(came, [0, 2, 1, 3].map(Found::First));
        assert_eq!(index.claim(a, 10), Found::Again(9));
        assert_eq!(index.claim(7, 10), Found::Never);
        assert_eq!(index.absent().count(), 0);
    }

    #[test]
    fn what_has_not_come_out_is_listed_with_its_class() {
        let mut index = Index::default();
        for (hash, class) in
            [(1, Class::Forwarded), (2, Class::UnknownJoin), (3, Class::UnknownJoin), (3, Class::Join)]
        {
            index.add(hash, Some(FlowId(7)), class);
        }
        assert_eq!(index.claim(3, 1), Found::First(3), "the one that had to come out");
        let dropped = Class::UnknownJoin;
        assert_eq!(index.absent().collect::<Vec<_>>(), [(0, Class::Forwarded), (1, dropped), (2, dropped)]);
        assert_eq!((index.claim(3, 2), index.claim(3, 3)), (Found::First(2), Found::Again(2)));
        assert_eq!(index.flow(0), Some(FlowId(7)));
    }
}

//! Keys of servers that the balancer chooses, and what tells their backends without a table (Olteanu and Raiciu,
//! "Datacenter scale load balancing for Multipath TCP", HotMiddlebox 2016, solution 1: the balancer draws a key, picks the
//! server by its token, tunnels SYN and key to it; the server's number travels in the 12 last bits of the timestamps).
//!
//! Where the source is silent, our choice:
//! - a key is no random number but a keyed function of 5-tuple and initial sequence number, so that a retransmitted SYN
//!   gets the same key and needs no memory: the first 64 bits of SHA-256's compression of one block of fixed form, begun
//!   at the compression of the secret (a keyed hash of fixed length, so nothing can be appended);
//! - a key whose token names a backend that takes no new connections is thrown away and another one drawn; so is, by lot,
//!   one that names a backend of little weight ([`accepts`]), since the split of the token space knows no weights;
//! - in GUE's private data (draft-ietf-intarea-gue-09 section 3.2: what follows the header's fields): twelve bytes, see
//!   [`private_data`].

use packet::{Family, Flow, Key};
use sha2::block_api::compress256;

/// FIPS 180-4 section 5.3.3.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Bits of a backend's number in a timestamp.
const NUMBER_BITS: u32 = 12;

/// What tells the server its key, between GUE's header and the packet, in the words of four bytes that GUE counts.
pub const PRIVATE_WORDS: u8 = 3;

/// The same in bytes.
pub const PRIVATE_LEN: usize = 4 * PRIVATE_WORDS as usize;

/// The first byte of our private data.
const PRIVATE_TYPE: u8 = 1;

/// How many keys are drawn for a SYN before it is given up.
pub const DRAWS: u8 = 16;

/// In how many of them, the first, weights have a say: where hardly any backend has much weight, an unwanted one is better
/// than none.
const WEIGHED_DRAWS: u8 = 8;

/// A key, and a number that goes with it and that nobody else is told: the lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The server's key.
    pub key: Key,
    /// As good as random, whatever the key.
    pub lot: u32,
}

/// Whether the draw with this number is for a backend of this weight, where `most` is the greatest of its pool: always for
/// that one, else as often as its weight is a part of it.
#[inline]
pub fn accepts(number: u8, lot: u32, weight: u32, most: u32) -> bool {
    number >= WEIGHED_DRAWS || u64::from(lot) * u64::from(most) < u64::from(weight) << 32
}

/// Makes keys of 5-tuples under one secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyMaker([u32; 8]);

impl core::fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KeyMaker(..)")
    }
}

impl KeyMaker {
    /// Under this secret.
    pub fn new(secret: [u8; 16]) -> Self {
        let mut block = [0; 64];
        if let Some(place) = block.first_chunk_mut() {
            *place = secret;
        }
        let mut state = START;
        compress256(&mut state, &[block]);
        Self(state)
    }

    /// The key for a SYN's flow and initial sequence number. Draws of other numbers give other keys.
    ///
    /// Never inlined, for the reason given at [`packet::Token::from_key`].
    #[inline(never)]
    pub fn draw(&self, flow: &Flow, isn: u32, number: u8) -> Draw {
        let mut block = [0; 64];
        let [source, destination] = [flow.source, flow.destination].map(packet::Address::v6_octets);
        let family = match flow.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let fields = source
            .into_iter()
            .chain(destination)
            .chain(flow.source_port.to_be_bytes())
            .chain(flow.destination_port.to_be_bytes())
            .chain(isn.to_be_bytes())
            .chain([flow.protocol, family, number]);
        block.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        let mut state = self.0;
        compress256(&mut state, &[block]);
        let [first, second, lot, ..] = state;
        Draw { key: Key((u64::from(first) << 32 | u64::from(second)).to_be_bytes()), lot }
    }
}

/// What stands between GUE's header and the packet: type 1, a zero, the backend's number, the key. Integers big-endian.
pub const fn private_data(number: u16, key: Key) -> [u8; PRIVATE_LEN] {
    let [high, low] = number.to_be_bytes();
    let [a, b, c, d, e, f, g, h] = key.0;
    [PRIVATE_TYPE, 0, high, low, a, b, c, d, e, f, g, h]
}

/// The number and the key of private data that [`private_data`] wrote; `None` for any other.
pub const fn read_private_data(data: &[u8]) -> Option<(u16, Key)> {
    match *data {
        [PRIVATE_TYPE, 0, high, low, a, b, c, d, e, f, g, h] => {
            Some((u16::from_be_bytes([high, low]), Key([a, b, c, d, e, f, g, h])))
        }
        _ => None,
    }
}

/// The backend's number in a timestamp that its client echoes; `None` where it is nobody's.
#[inline]
pub const fn number_of(echoed: u32) -> Option<u16> {
    match (echoed & ((1 << NUMBER_BITS) - 1)) as u16 {
        0 => None,
        number => Some(number),
    }
}

/// A server's timestamp: its clock's, with its number in the last twelve bits.
pub const fn timestamp(clock: u32, number: u16) -> u32 {
    clock << NUMBER_BITS | number as u32 & ((1 << NUMBER_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{Address, Token, Version};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};
    use std::collections::BTreeSet;

    fn flow(port: u16) -> Flow {
        Flow {
            source: Address::from_v4([192, 0, 2, 1]),
            destination: Address::from_v4([10, 9, 9, 9]),
            source_port: port,
            destination_port: 443,
            protocol: 6,
            family: Family::V4,
        }
    }

    #[test]
    fn a_key_depends_on_everything_that_names_a_syn() {
        let maker = KeyMaker::new([1; 16]);
        let first = maker.draw(&flow(1), 7, 0);
        assert_eq!(maker.draw(&flow(1), 7, 0), first, "a retransmission");
        let v6 = Flow { family: Family::V6, ..flow(1) };
        let there = Flow { destination_port: 80, ..flow(1) };
        let far = Flow { destination: Address::from_v4([10, 9, 9, 8]), ..flow(1) };
        let others = [
            maker.draw(&flow(2), 7, 0),
            maker.draw(&flow(1), 8, 0),
            maker.draw(&flow(1), 7, 1),
            maker.draw(&v6, 7, 0),
            maker.draw(&there, 7, 0),
            maker.draw(&far, 7, 0),
            KeyMaker::new([2; 16]).draw(&flow(1), 7, 0),
            first,
        ];
        assert_eq!(others.iter().map(|draw| draw.key.0).collect::<BTreeSet<_>>().len(), others.len());
    }

    #[test]
    fn tokens_of_chosen_keys_fill_the_space_evenly() {
        let maker = KeyMaker::new([9; 16]);
        let mut counts = [0_u32; 16];
        for isn in 0..16_000 {
            let token = Token::from_key(Version::V1, &maker.draw(&flow(443), isn, 0).key);
            counts[usize::try_from(token.0 >> 28).unwrap()] += 1;
        }
        // 1000 on average, with a deviation of 31.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_backend_is_drawn_as_often_as_its_weight_says() {
        let maker = KeyMaker::new([3; 16]);
        let lots: Vec<u32> = (0..20_000).map(|isn| maker.draw(&flow(1), isn, 0).lot).collect();
        let share = |weight| lots.iter().filter(|lot| accepts(0, **lot, weight, 100)).count();
        assert_eq!((share(100), share(0)), (20_000, 0));
        // A quarter is 5,000 with a deviation of 61.
        assert!((4_700..5_300).contains(&share(25)), "{}", share(25));
        assert!(lots.iter().all(|lot| accepts(WEIGHED_DRAWS, *lot, 1, 100)), "at last any will do");
        assert!(accepts(0, u32::MAX, u32::MAX, u32::MAX), "no weight is too great");
    }

    proptest! {
        #[test]
        fn a_key_is_what_sha256_makes_of_secret_and_block_before_its_padding(secret: [u8; 16], isn: u32) {
            // An oracle that knows the whole digest only: the state after two blocks is not the digest, but both are
            // the same function of one message where the third block is the padding, compressed here by hand.
            let maker = KeyMaker::new(secret);
            let mut message = [0; 128];
            message[..16].copy_from_slice(&secret);
            let flow = flow(5);
            message[64..80].copy_from_slice(&flow.source.v6_octets());
            message[80..96].copy_from_slice(&flow.destination.v6_octets());
            message[96..98].copy_from_slice(&5_u16.to_be_bytes());
            message[98..100].copy_from_slice(&443_u16.to_be_bytes());
            message[100..104].copy_from_slice(&isn.to_be_bytes());
            message[104..107].copy_from_slice(&[6, 4, 0]);
            let mut state = START;
            let (blocks, _) = message.as_chunks::<64>();
            compress256(&mut state, blocks);
            let [first, second, lot, ..] = state;
            prop_assert_eq!(maker.draw(&flow, isn, 0).lot, lot);
            prop_assert_eq!(maker.draw(&flow, isn, 0).key.0, (u64::from(first) << 32 | u64::from(second)).to_be_bytes());
            let mut padding = [0; 64];
            padding[0] = 0x80;
            padding[56..].copy_from_slice(&1024_u64.to_be_bytes());
            compress256(&mut state, &[padding]);
            let digest: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
            prop_assert_eq!(digest, Sha256::digest(message).to_vec());
        }

        #[test]
        fn private_data_is_read_as_written_and_nothing_else_is(number: u16, key: [u8; 8], other in proptest::collection::vec(any::<u8>(), 0..20)) {
            let data = private_data(number, Key(key));
            prop_assert_eq!(read_private_data(&data), Some((number, Key(key))));
            if let Some((number, key)) = read_private_data(&other) {
                prop_assert_eq!(private_data(number, key).to_vec(), other);
            }
        }

        #[test]
        fn a_timestamp_says_its_servers_number(clock: u32, number in 1..4096_u16) {
            prop_assert_eq!(number_of(timestamp(clock, number)), Some(number));
            prop_assert_eq!(number_of(clock << 12), None);
        }
    }
}

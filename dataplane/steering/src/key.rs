//! Keys of servers that the balancer chooses, and what tells their backends without a table (Olteanu and Raiciu,
//! "Datacenter scale load balancing for Multipath TCP", HotMiddlebox 2016, solution 1: the balancer draws a key, picks the
//! server by its token, tunnels SYN and key to it; the server's number travels in the 12 last bits of the timestamps).
//!
//! Where the source is silent, our choice:
//! - a key is no random number but a keyed function of 5-tuple and initial sequence number, so that a retransmitted SYN
//!   gets the same key and needs no memory: the first 64 bits of SHA-256's compression of one block of fixed form, begun
//!   at the compression of the secret (a keyed hash of fixed length, so nothing can be appended);
//! - in GUE's private data (draft-ietf-intarea-gue-09 section 3.2: what follows the header's fields): twelve bytes, see
//!   [`private_data`].

use packet::{Family, Flow, Key};
use sha2::block_api::compress256;

/// FIPS 180-4 section 5.3.3.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Bytes of a backend's number in a timestamp.
const NUMBER_BITS: u32 = 12;

/// Bytes that tell the server its key, between GUE's header and the packet.
pub const PRIVATE_LEN: usize = 12;

/// The first byte of our private data.
const PRIVATE_TYPE: u8 = 1;

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

    /// The key for a SYN's flow and initial sequence number. Of several attempts each gives another.
    ///
    /// Never inlined, for the reason given at [`packet::Token::from_key`].
    #[inline(never)]
    pub fn key(&self, flow: &Flow, isn: u32, attempt: u8) -> Key {
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
            .chain([flow.protocol, family, attempt]);
        block.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        let mut state = self.0;
        compress256(&mut state, &[block]);
        let [first, second, ..] = state;
        Key((u64::from(first) << 32 | u64::from(second)).to_be_bytes())
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
        let first = maker.key(&flow(1), 7, 0);
        assert_eq!(maker.key(&flow(1), 7, 0), first, "a retransmission");
        let v6 = Flow { family: Family::V6, ..flow(1) };
        let there = Flow { destination_port: 80, ..flow(1) };
        let far = Flow { destination: Address::from_v4([10, 9, 9, 8]), ..flow(1) };
        let others = [
            maker.key(&flow(2), 7, 0),
            maker.key(&flow(1), 8, 0),
            maker.key(&flow(1), 7, 1),
            maker.key(&v6, 7, 0),
            maker.key(&there, 7, 0),
            maker.key(&far, 7, 0),
            KeyMaker::new([2; 16]).key(&flow(1), 7, 0),
            first,
        ];
        assert_eq!(others.iter().map(|key| key.0).collect::<BTreeSet<_>>().len(), others.len());
    }

    #[test]
    fn tokens_of_chosen_keys_fill_the_space_evenly() {
        let maker = KeyMaker::new([9; 16]);
        let mut counts = [0_u32; 16];
        for isn in 0..16_000 {
            let token = Token::from_key(Version::V1, &maker.key(&flow(443), isn, 0));
            counts[usize::try_from(token.0 >> 28).unwrap()] += 1;
        }
        // 1000 on average, with a deviation of 31.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
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
            let [first, second, ..] = state;
            prop_assert_eq!(maker.key(&flow, isn, 0).0, (u64::from(first) << 32 | u64::from(second)).to_be_bytes());
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

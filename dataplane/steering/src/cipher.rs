//! Tokens that are a backend's number, encrypted (Paasch, Greenway and Ford, draft-paasch-mptcp-loadbalancer-00:
//! token = encrypt(X, Y), X of the server's own integers, Y a secret of balancers and servers).
//!
//! The draft names no cipher and no form of X. Our choice: Speck32/64 (Beaulieu, Shors, Smith, Treatman-Clark, Weeks and
//! Wingers, "The SIMON and SPECK families of lightweight block ciphers", 2013), a published block cipher of 32 bits with
//! published vectors, the width of a token; and X is the backend's number in the first twelve bits and a serial number in
//! the other twenty, the server's to choose.
//!
//! **Two keys may live at once,** so that a key can be changed: the last bit of a token says which. A server draws serial
//! numbers until the token has its key's bit, two on average. Otherwise a token would have to be decrypted under both
//! keys, and where both answers are numbers of backends nobody could tell which is right: one join in forty, at a hundred
//! backends.
//!
//! What it hides is which server a token belongs to. It is no authentication: one token in `4096 / backends` decrypts to a
//! number, and a server refuses a join to a connection it does not have.

/// Bits of X that the server chooses.
pub const SERIAL_BITS: u32 = 20;

const ROUNDS: usize = 22;

/// Speck32/64 under one key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Speck([u16; ROUNDS]);

impl core::fmt::Debug for Speck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Speck(..)")
    }
}

impl Speck {
    /// Under this key, its words in the order of the paper's vectors: the last two bytes are the first round's key.
    pub const fn new(key: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = key;
        let mut word = u16::from_be_bytes([g, h]);
        let mut l = [u16::from_be_bytes([e, f]), u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b])];
        let mut rounds = [0; ROUNDS];
        let mut round = 0;
        while round < ROUNDS {
            #[expect(clippy::indexing_slicing, reason = "below the length, and never while packets wait")]
            {
                rounds[round] = word;
            }
            #[expect(clippy::cast_possible_truncation, reason = "there are 22")]
            let next = word.wrapping_add(l[0].rotate_right(7)) ^ round as u16;
            word = word.rotate_left(2) ^ next;
            l = [l[1], l[2], next];
            round += 1;
        }
        Self(rounds)
    }

    /// The block under the key.
    pub fn encrypt(&self, block: u32) -> u32 {
        let (mut x, mut y) = halves(block);
        for key in self.0 {
            x = x.rotate_right(7).wrapping_add(y) ^ key;
            y = y.rotate_left(2) ^ x;
        }
        u32::from(x) << 16 | u32::from(y)
    }

    /// The block that [`Self::encrypt`] made this of.
    #[inline]
    pub fn decrypt(&self, block: u32) -> u32 {
        let (mut x, mut y) = halves(block);
        for key in self.0.iter().rev() {
            y = (y ^ x).rotate_right(2);
            x = (x ^ key).wrapping_sub(y).rotate_left(7);
        }
        u32::from(x) << 16 | u32::from(y)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "cutting a word into its halves is the purpose")]
const fn halves(block: u32) -> (u16, u16) {
    ((block >> 16) as u16, block as u16)
}

/// The token of a backend's number and a serial number under a key.
pub fn seal(key: &Speck, number: u16, serial: u32) -> u32 {
    key.encrypt(u32::from(number) << SERIAL_BITS | serial & ((1 << SERIAL_BITS) - 1))
}

/// The keys that live: of even tokens, and of odd ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphers([Option<Speck>; 2]);

impl Ciphers {
    /// The keys of even tokens and of odd ones.
    pub fn new(keys: [Option<[u8; 8]>; 2]) -> Self {
        Self(keys.map(|key| key.map(Speck::new)))
    }

    /// The number that a token was made of; `None` where the key of its parity is not known.
    #[inline]
    pub fn number(&self, token: u32) -> Option<u16> {
        let [even, odd] = &self.0;
        let key = if token & 1 == 0 { even } else { odd };
        key.as_ref().map(|key| (key.decrypt(token) >> SERIAL_BITS) as u16)
    }

    /// A token for a backend's number, under the key of even tokens or of odd ones, from the first serial number at or
    /// after `serial` that makes one, and that serial number; `None` where there is no such key, or 64 in a row make
    /// none, which happens once in 2^64. Token 0 is not made: Linux never uses it.
    pub fn token(&self, odd: bool, number: u16, serial: u32) -> Option<(u32, u32)> {
        let [even_key, odd_key] = &self.0;
        let key = if odd { odd_key } else { even_key }.as_ref()?;
        (0..64).map(|step| serial.wrapping_add(step)).find_map(|serial| {
            let token = seal(key, number, serial);
            (token & 1 == u32::from(odd) && token != 0).then_some((token, serial))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The vector of the paper's appendix C.
    const KEY: [u8; 8] = [0x19, 0x18, 0x11, 0x10, 0x09, 0x08, 0x01, 0x00];

    #[test]
    fn the_published_vector_holds() {
        let speck = Speck::new(KEY);
        assert_eq!(speck.encrypt(0x6574_694c), 0xa868_42f2);
        assert_eq!(speck.decrypt(0xa868_42f2), 0x6574_694c);
    }

    #[test]
    fn a_token_of_the_other_parity_is_the_other_keys() {
        let old = Ciphers::new([Some(KEY), None]);
        let both = Ciphers::new([Some(KEY), Some([7; 8])]);
        let new = Ciphers::new([None, Some([7; 8])]);
        for serial in 0..2000 {
            let (even, _) = both.token(false, 77, serial).unwrap();
            let (odd, _) = both.token(true, 78, serial).unwrap();
            assert_eq!((both.number(even), both.number(odd)), (Some(77), Some(78)));
            assert_eq!((old.number(even), old.number(odd)), (Some(77), None));
            assert_eq!((new.number(even), new.number(odd)), (None, Some(78)));
        }
        assert_eq!(old.token(true, 77, 0), None);
        assert_eq!(format!("{both:?}"), "Ciphers([Some(Speck(..)), Some(Speck(..))])");
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_read_again(key: [u8; 8], number in 1..4096_u16, serial: u32) {
            let ciphers = Ciphers::new([Some(key), Some(key.map(|byte| !byte))]);
            for odd in [false, true] {
                let (token, _) = ciphers.token(odd, number, serial).unwrap();
                prop_assert_eq!(ciphers.number(token), Some(number));
                prop_assert_eq!(token & 1 == 1, odd);
            }
        }

        #[test]
        fn decryption_undoes_encryption(key: [u8; 8], block: u32) {
            let speck = Speck::new(key);
            prop_assert_eq!(speck.decrypt(speck.encrypt(block)), block);
        }
    }
}

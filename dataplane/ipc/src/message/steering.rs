//! How a VIP finds the backend of a join, and by what else than its name a backend is found, as messages carry both.
//!
//! Secrets are among it: whoever has them can make tokens that name a backend of his choice. They travel, since both
//! processes must have them, and are never shown: their `Debug` tells no byte of them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{BadMessage, Field, Reader, Writer};
use crate::names;

names! {
    /// A way to find the backend that holds a join's connection.
    pub enum Scheme {
        /// By tokens that were taken from the handshakes that passed by.
        Learn = "learn",
        /// By a port or an address of the VIP's that belongs to one backend.
        Endpoint = "endpoint",
        /// By the token itself, which says who chose it.
        TokenMap = "token-map",
        /// By the token of a server's key that the balancer chose, and the echoed timestamps of its subflows.
        ChosenKey = "chosen-key",
        /// By tokens that the agents on the backends report.
        Agent = "agent",
    }
}

names! {
    /// How a token says who chose it.
    pub enum TokenMap {
        /// By the range it lies in: the token space is split among the pool's backends.
        Ranges = "ranges",
        /// By the backend's number, encrypted.
        Cipher = "cipher",
    }
}

names! {
    /// What a SYN at a backend's own port or address gets that is not for it.
    pub enum WrongEndpoint {
        /// Answered with RST.
        Reset = "reset",
        /// Dropped.
        Drop = "drop",
        /// Forwarded to that backend all the same.
        Forward = "forward",
    }
}

/// Schemes in order of preference, none of them twice.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Schemes([u8; Scheme::COUNT]);

impl Schemes {
    /// The schemes in this order; what stands twice counts where it stands first.
    pub fn new(order: impl IntoIterator<Item = Scheme>) -> Self {
        order.into_iter().fold(Self::default(), Self::with)
    }

    /// With one more at the end, if it is not there yet.
    fn with(mut self, scheme: Scheme) -> Self {
        if !self.has(scheme)
            && let Some(free) = self.0.iter_mut().find(|place| **place == 0)
        {
            *free = scheme as u8 + 1;
        }
        self
    }

    /// In order of preference.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Scheme> {
        self.0.into_iter().map_while(|place| Scheme::from_index(usize::from(place).checked_sub(1)?))
    }

    /// Whether a scheme is among them.
    #[inline]
    pub fn has(self, scheme: Scheme) -> bool {
        self.0.contains(&(scheme as u8 + 1))
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0[0] == 0
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Field for Schemes {
    const BYTES: usize = Scheme::COUNT;
    fn put(&self, to: &mut Writer<'_>) {
        to.put(self.0);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        let read = Self(from.get()?);
        // Neither gaps, nor strangers, nor one twice: what is left of the places when all are read is the same.
        if Self::new(read.iter()) == read { Ok(read) } else { Err(BadMessage) }
    }
}

/// A secret of `N` bytes. Shown to nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<const N: usize> Field for Secret<N> {
    const BYTES: usize = N;
    fn put(&self, to: &mut Writer<'_>) {
        to.put(self.0);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        Ok(Self(from.get()?))
    }
}

/// How a VIP finds the backend of a join, and which handshakes it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// A join goes through them in this order; what the first does not answer, the next is asked. Empty: joins are not
    /// told from other SYNs.
    pub schemes: Schemes,
    /// How a token says who chose it, under [`Scheme::TokenMap`].
    pub token_map: TokenMap,
    /// Keys of the cipher: of even tokens, and of odd ones.
    pub cipher_keys: [Option<Secret<8>>; 2],
    /// What server keys are made of, under [`Scheme::ChosenKey`].
    pub key_secret: Option<Secret<16>>,
    /// Whether handshakes with flag G are understood (Paasch and Ford, application-layer authentication).
    pub application_tokens: bool,
    /// Whether handshakes with flag E are understood (draft-baerts-tcpm-mptcpext).
    pub external_tokens: bool,
    /// What a SYN gets that is not for the backend whose port or address it came to, under [`Scheme::Endpoint`].
    pub wrong_endpoint: WrongEndpoint,
}

impl Steering {
    /// By no scheme: joins are not told from other SYNs.
    pub const NONE: Self = Self {
        schemes: Schemes([0; Scheme::COUNT]),
        token_map: TokenMap::Ranges,
        cipher_keys: [None; 2],
        key_secret: None,
        application_tokens: false,
        external_tokens: false,
        wrong_endpoint: WrongEndpoint::Reset,
    };

    /// By learned tokens only, which is the default of a VIP.
    pub const LEARN: Self = Self { schemes: Schemes(only(Scheme::Learn)), ..Self::NONE };

    /// By these schemes in this order, everything else as by default.
    pub fn by(order: impl IntoIterator<Item = Scheme>) -> Self {
        Self { schemes: Schemes::new(order), ..Self::NONE }
    }

    /// By learned tokens, or not at all.
    pub const fn learning(learn: bool) -> Self {
        if learn { Self::LEARN } else { Self::NONE }
    }

    /// Whether a scheme is among those it goes by.
    #[inline]
    pub fn has(&self, scheme: Scheme) -> bool {
        self.schemes.has(scheme)
    }
}

/// The places of a list of one.
const fn only(scheme: Scheme) -> [u8; Scheme::COUNT] {
    let mut places = [0; Scheme::COUNT];
    places[0] = scheme as u8 + 1;
    places
}

impl Field for Steering {
    const BYTES: usize = Schemes::BYTES
        + TokenMap::BYTES
        + 2 * <Option<Secret<8>>>::BYTES
        + <Option<Secret<16>>>::BYTES
        + 2 * bool::BYTES
        + WrongEndpoint::BYTES;
    fn put(&self, to: &mut Writer<'_>) {
        let Self { schemes, token_map, cipher_keys, key_secret, .. } = self;
        schemes.put(to);
        token_map.put(to);
        cipher_keys.iter().for_each(|key| key.put(to));
        key_secret.put(to);
        self.application_tokens.put(to);
        self.external_tokens.put(to);
        self.wrong_endpoint.put(to);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        Ok(Self {
            schemes: Field::get(from)?,
            token_map: Field::get(from)?,
            cipher_keys: [Field::get(from)?, Field::get(from)?],
            key_secret: Field::get(from)?,
            application_tokens: Field::get(from)?,
            external_tokens: Field::get(from)?,
            wrong_endpoint: Field::get(from)?,
        })
    }
}

/// By what else than its name and its addresses a backend is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handles {
    /// Its number in tokens that are encrypted, and in timestamps: 1 to [`crate::limits::MAX_NUMBER`].
    pub number: Option<u16>,
    /// Its own port on the VIP's addresses.
    pub endpoint_port: Option<u16>,
    /// Its own IPv4 address towards clients.
    pub endpoint4: Option<Ipv4Addr>,
    /// Its own IPv6 address towards clients.
    pub endpoint6: Option<Ipv6Addr>,
}

impl Handles {
    /// Whether its endpoint can be one: a port that is none, or an address that no host has, is nobody's.
    pub fn has_right_endpoint(&self) -> bool {
        let addresses = [self.endpoint4.map(IpAddr::V4), self.endpoint6.map(IpAddr::V6)];
        self.endpoint_port != Some(0) && addresses.into_iter().flatten().all(super::is_of_a_host)
    }
}

impl Field for Handles {
    const BYTES: usize = 2 * <Option<u16>>::BYTES + <Option<Ipv4Addr>>::BYTES + <Option<Ipv6Addr>>::BYTES;
    fn put(&self, to: &mut Writer<'_>) {
        self.number.put(to);
        self.endpoint_port.put(to);
        self.endpoint4.put(to);
        self.endpoint6.put(to);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        Ok(Self {
            number: Field::get(from)?,
            endpoint_port: Field::get(from)?,
            endpoint4: Field::get(from)?,
            endpoint6: Field::get(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(places: [u8; Scheme::COUNT]) -> Result<Schemes, BadMessage> {
        Schemes::get(&mut Reader(&places))
    }

    #[test]
    fn schemes_keep_their_order_and_stand_once() {
        use Scheme::{Agent, Endpoint, Learn};
        let schemes = Schemes::new([Endpoint, Learn, Endpoint, Agent, Learn]);
        assert_eq!(schemes.iter().collect::<Vec<_>>(), [Endpoint, Learn, Agent]);
        assert!(schemes.has(Agent) && !schemes.has(Scheme::TokenMap) && !schemes.is_empty());
        let all = Schemes::new(Scheme::ALL.iter().copied());
        assert_eq!(all.iter().collect::<Vec<_>>(), Scheme::ALL);
    }

    #[test]
    fn a_list_with_a_gap_a_stranger_or_one_twice_is_no_message() {
        assert_eq!(decoded([1, 0, 0, 0, 0]), Ok(Steering::LEARN.schemes));
        for bad in [[0, 1, 0, 0, 0], [1, 0, 2, 0, 0], [1, 1, 0, 0, 0], [6, 0, 0, 0, 0], [1, 2, 255, 0, 0]] {
            assert_eq!(decoded(bad), Err(BadMessage), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_shows_no_byte_of_itself() {
        let steering = Steering { key_secret: Some(Secret([0xab; 16])), ..Steering::NONE };
        let shown = format!("{steering:?}");
        assert!(shown.contains("Secret(..)") && !shown.contains("171"), "{shown}");
    }
}

//! The form of a message's fields in a slot. See [`crate::message`] for the whole.
//!
//! Why it exists: decoding is where a hostile peer is met, so it is one small file: each type's bytes are
//! written once and taken once, and `get` accepts exactly what `put` writes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::{BackendId, VipId};
use crate::limits::{MAX_BACKENDS, MAX_VIPS};
use crate::message::{
    BackendState, Forward, NAME_BYTES, Name, Presence, Protocol, Refusal, Scheme, TokenMap, TokenRank,
    UnknownToken, WrongEndpoint,
};

/// The bytes of a slot are no message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of a slot are no message")]
pub struct BadMessage;

/// A value with a fixed form in a slot. `get` accepts exactly what `put` writes.
pub(crate) trait Field: Sized {
    /// Bytes it takes, whatever its value.
    const BYTES: usize;
    fn put(&self, to: &mut Writer<'_>);
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage>;
}

/// Fills a slot from its start. The slot is large enough for every message: asserted where they are declared.
pub(crate) struct Writer<'a>(pub(crate) &'a mut [u8]);

impl Writer<'_> {
    pub(crate) fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some((head, rest)) = core::mem::take(&mut self.0).split_first_chunk_mut::<N>() {
            *head = bytes;
            self.0 = rest;
        }
    }
}

/// Takes a slot apart from its start.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn get<const N: usize>(&mut self) -> Result<[u8; N], BadMessage> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadMessage)?;
        self.0 = rest;
        Ok(*head)
    }
}

macro_rules! integer_fields {
    ($($type:ty),+) => { $(
        impl Field for $type {
            const BYTES: usize = size_of::<$type>();
            fn put(&self, to: &mut Writer<'_>) { to.put(self.to_le_bytes()) }
            fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> { Ok(<$type>::from_le_bytes(from.get()?)) }
        }
    )+ };
}
integer_fields!(u8, u16, u32, u64);

macro_rules! enum_fields {
    ($($type:ty),+) => { $(
        impl Field for $type {
            const BYTES: usize = 1;
            fn put(&self, to: &mut Writer<'_>) { to.put([*self as u8]) }
            fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
                let [byte] = from.get()?;
                <$type>::from_index(usize::from(byte)).ok_or(BadMessage)
            }
        }
    )+ };
}
enum_fields!(
    BackendState,
    Presence,
    Forward,
    Protocol,
    UnknownToken,
    TokenRank,
    Refusal,
    Scheme,
    TokenMap,
    WrongEndpoint
);

macro_rules! id_fields {
    ($($type:ident: $valid:expr),+) => { $(
        impl Field for $type {
            const BYTES: usize = 2;
            fn put(&self, to: &mut Writer<'_>) { to.put(self.0.to_le_bytes()) }
            fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
                let id = u16::from_le_bytes(from.get()?);
                if $valid.contains(&usize::from(id)) { Ok($type(id)) } else { Err(BadMessage) }
            }
        }
    )+ };
}
id_fields!(BackendId: (1..MAX_BACKENDS), VipId: (0..MAX_VIPS));

impl Field for bool {
    const BYTES: usize = 1;
    fn put(&self, to: &mut Writer<'_>) {
        to.put([u8::from(*self)]);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        match from.get()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(BadMessage),
        }
    }
}

impl Field for [u8; 6] {
    const BYTES: usize = 6;
    fn put(&self, to: &mut Writer<'_>) {
        to.put(*self);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        from.get()
    }
}

impl Field for Ipv4Addr {
    const BYTES: usize = 4;
    fn put(&self, to: &mut Writer<'_>) {
        to.put(self.octets());
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        Ok(Ipv4Addr::from(from.get::<4>()?))
    }
}

impl Field for Ipv6Addr {
    const BYTES: usize = 16;
    fn put(&self, to: &mut Writer<'_>) {
        to.put(self.octets());
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        Ok(Ipv6Addr::from(from.get::<16>()?))
    }
}

/// A byte 4 or 6, then 16 bytes, of which IPv4 uses four.
impl Field for IpAddr {
    const BYTES: usize = 17;
    fn put(&self, to: &mut Writer<'_>) {
        match self {
            IpAddr::V4(address) => {
                to.put([4]);
                address.put(to);
                to.put([0; 12]);
            }
            IpAddr::V6(address) => {
                to.put([6]);
                address.put(to);
            }
        }
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        match from.get()? {
            [4] => {
                let address = Ipv4Addr::get(from)?;
                if from.get()? == [0; 12] { Ok(IpAddr::V4(address)) } else { Err(BadMessage) }
            }
            [6] => Ok(IpAddr::V6(Ipv6Addr::get(from)?)),
            _ => Err(BadMessage),
        }
    }
}

impl Field for Name {
    const BYTES: usize = NAME_BYTES;
    fn put(&self, to: &mut Writer<'_>) {
        to.put(self.0);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        let bytes: [u8; NAME_BYTES] = from.get()?;
        let end = bytes.iter().position(|&byte| byte == 0).ok_or(BadMessage)?;
        let text = bytes.get(..end).and_then(|text| core::str::from_utf8(text).ok()).ok_or(BadMessage)?;
        let name: Name = text.parse().map_err(|_| BadMessage)?;
        // What follows the end must be the zeroes `put` wrote.
        if name.0 == bytes { Ok(name) } else { Err(BadMessage) }
    }
}

impl<T: Field> Field for Option<T> {
    const BYTES: usize = 1 + T::BYTES;
    fn put(&self, to: &mut Writer<'_>) {
        self.is_some().put(to);
        match self {
            Some(value) => value.put(to),
            None => (0..T::BYTES).for_each(|_| to.put([0])),
        }
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        if bool::get(from)? {
            return T::get(from).map(Some);
        }
        for _ in 0..T::BYTES {
            if from.get()? != [0] {
                return Err(BadMessage);
            }
        }
        Ok(None)
    }
}

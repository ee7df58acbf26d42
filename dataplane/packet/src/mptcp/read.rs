//! From the bytes of one option to its type. Each form is a line of a match on what must be exact; the fields
//! are then taken off the front one after the other, so that none can be read past the option's end.

use super::{
    AddAddr, Capable, CapableFlags, DataSequence, Dss, Join, Mapping, MpPrio, RemoveAddr, ResetReason,
    TcpRst, subtype,
};
use crate::flow::{Address, Family};
use crate::tcp::Flags;
use crate::tcp_option::{Malformed, Options};
use crate::token::{Key, Token, Version};

/// What the packet around the option says.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    pub flags: Flags,
    pub payload: bool,
}

/// Takes one option of kind 30 into the summary. `option` is all of it, kind and length included.
pub(crate) fn read(option: &[u8], context: Context, options: &mut Options) {
    let result = match option {
        [_, _, third, ..] => {
            options.mptcp = true;
            body(third >> 4, third & 0x0f, option, context, options)
        }
        _ => Err(Malformed::MptcpLength),
    };
    if let Err(cause) = result {
        options.malformed.get_or_insert(cause);
    }
}

fn body(
    subtype: u8,
    nibble: u8,
    option: &[u8],
    context: Context,
    options: &mut Options,
) -> Result<(), Malformed> {
    match subtype {
        subtype::CAPABLE => keep(&mut options.capable, capable(nibble, option, context)?),
        subtype::JOIN => keep(&mut options.join, join(nibble, option, context)?),
        subtype::DSS => keep(&mut options.dss, dss(option)?),
        subtype::ADD_ADDR => keep(&mut options.add_addr, add_addr(nibble, option)?),
        subtype::REMOVE_ADDR => keep(&mut options.remove_addr, remove_addr(option)?),
        subtype::PRIO => keep(&mut options.mp_prio, prio(nibble, option)?),
        subtype::FAIL => keep(&mut options.mp_fail, u64::from_be_bytes(*exact::<12, 4, 8>(option)?)),
        subtype::FASTCLOSE => keep(&mut options.fastclose, Key(*exact::<12, 4, 8>(option)?)),
        subtype::TCPRST => keep(&mut options.tcprst, tcprst(nibble, option, context)?),
        subtype::EXPERIMENTAL => options.experimental = true,
        // Unassigned: not understood, not wrong.
        _ => {}
    }
    Ok(())
}

/// The first of two equal options counts.
fn keep<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

/// The `N` bytes at `AT` of an option that must be `LEN` bytes long.
fn exact<const LEN: usize, const AT: usize, const N: usize>(option: &[u8]) -> Result<&[u8; N], Malformed> {
    const { assert!(AT + N <= LEN) }
    let whole: &[u8; LEN] = option.try_into().map_err(|_| Malformed::MptcpLength)?;
    whole.get(AT..).and_then(<[u8]>::first_chunk).ok_or(Malformed::MptcpLength)
}

fn capable(nibble: u8, option: &[u8], context: Context) -> Result<Capable, Malformed> {
    let flags = context.flags;
    if flags.rst() {
        return Err(Malformed::MptcpFlags);
    }
    let version = match nibble {
        0 => Version::V0,
        1 => Version::V1,
        // The answer to a SYN of a future version is version 1.
        _ if flags.opens() => Version::V1,
        _ => return Err(Malformed::MptcpFlags),
    };
    let [_, _, _, bits, ..] = *option else {
        return Err(Malformed::MptcpLength);
    };
    let bits = CapableFlags(bits);
    let capable = match (flags.syn(), flags.ack()) {
        (true, false) => {
            let sender = match version {
                Version::V0 => Some(Key(*exact::<12, 4, 8>(option)?)),
                Version::V1 => {
                    exact::<4, 0, 4>(option)?;
                    None
                }
            };
            Capable::Syn { version, flags: bits, sender }
        }
        (true, true) => Capable::SynAck { version, flags: bits, sender: Key(*exact::<12, 4, 8>(option)?) },
        (false, true) => capable_ack(version, bits, option, context.payload)?,
        (false, false) => return Err(Malformed::MptcpFlags),
    };
    if bits.valid(version) { Ok(capable) } else { Err(Malformed::MptcpFlags) }
}

/// The client's keys after the handshake. Version 1 sends them with the first data as well, then with the
/// mapping; version 0 sends them once, and its data has a DSS of its own.
fn capable_ack(
    version: Version,
    flags: CapableFlags,
    option: &[u8],
    payload: bool,
) -> Result<Capable, Malformed> {
    let fits = match (version, payload) {
        (Version::V1, true) => matches!(option.len(), 22 | 24),
        (Version::V1, false) | (Version::V0, _) => option.len() == 20,
    };
    if !fits {
        return Err(Malformed::MptcpLength);
    }
    let mut fields = Fields(option);
    fields.take::<4>()?;
    Ok(Capable::Ack {
        version,
        flags,
        sender: Key(fields.take()?),
        receiver: Key(fields.take()?),
        data_len: fields.take().ok().map(u16::from_be_bytes),
        checksum: fields.take().ok().map(u16::from_be_bytes),
    })
}

fn join(nibble: u8, option: &[u8], context: Context) -> Result<Join, Malformed> {
    let flags = context.flags;
    if flags.rst() {
        return Err(Malformed::MptcpFlags);
    }
    let backup = nibble & 0x01 != 0;
    let mut fields = Fields(option);
    match (flags.syn(), flags.ack(), option.len()) {
        (true, false, 12) => {
            let [_, _, _, address_id] = fields.take()?;
            let token = Token(u32::from_be_bytes(fields.take()?));
            Ok(Join::Syn { token, nonce: u32::from_be_bytes(fields.take()?), address_id, backup })
        }
        (true, true, 16) => {
            let [_, _, _, address_id] = fields.take()?;
            let hmac = fields.take()?;
            Ok(Join::SynAck { hmac, nonce: u32::from_be_bytes(fields.take()?), address_id, backup })
        }
        (false, true, 24) => Ok(Join::Ack { hmac: *exact::<24, 4, 20>(option)? }),
        (false, false, _) => Err(Malformed::MptcpFlags),
        _ => Err(Malformed::MptcpLength),
    }
}

fn dss(option: &[u8]) -> Result<Dss, Malformed> {
    const DATA_ACK: u8 = 0x01;
    const DATA_ACK_LONG: u8 = 0x02;
    const MAPPING: u8 = 0x04;
    const MAPPING_LONG: u8 = 0x08;
    const DATA_FIN: u8 = 0x10;
    let mut fields = Fields(option);
    let [_, _, _, flags] = fields.take()?;
    let data_ack =
        if flags & DATA_ACK != 0 { Some(fields.sequence(flags & DATA_ACK_LONG != 0)?) } else { None };
    let mapping = if flags & MAPPING != 0 {
        let sequence = fields.sequence(flags & MAPPING_LONG != 0)?;
        let subflow_sequence = u32::from_be_bytes(fields.take()?);
        let len = u16::from_be_bytes(fields.take()?);
        let checksum = if fields.0.is_empty() { None } else { Some(u16::from_be_bytes(fields.take()?)) };
        Some(Mapping { sequence, subflow_sequence, len, checksum })
    } else {
        None
    };
    fields.done()?;
    Ok(Dss { data_fin: mapping.is_some() && flags & DATA_FIN != 0, data_ack, mapping })
}

/// Version 0 has 4 or 6 where version 1 has its echo bit, and no HMAC: a version 0 option has the length of a
/// version 1 echo, and only the nibble tells them apart.
fn add_addr(nibble: u8, option: &[u8]) -> Result<AddAddr, Malformed> {
    let (version, echo, family, with_port) = match (nibble, option.len()) {
        (4, len @ (8 | 10)) => (Version::V0, false, Family::V4, len == 10),
        (6, len @ (20 | 22)) => (Version::V0, false, Family::V6, len == 22),
        (bits, len @ (8 | 10)) if bits & 1 == 1 => (Version::V1, true, Family::V4, len == 10),
        (bits, len @ (20 | 22)) if bits & 1 == 1 => (Version::V1, true, Family::V6, len == 22),
        (bits, len @ (16 | 18)) if bits & 1 == 0 => (Version::V1, false, Family::V4, len == 18),
        (bits, len @ (28 | 30)) if bits & 1 == 0 => (Version::V1, false, Family::V6, len == 30),
        _ => return Err(Malformed::MptcpLength),
    };
    let mut fields = Fields(option);
    let [_, _, _, address_id] = fields.take()?;
    let address = match family {
        Family::V4 => Address::from_v4(fields.take()?),
        Family::V6 => Address::from_v6(fields.take()?),
    };
    let port = if with_port { Some(u16::from_be_bytes(fields.take()?)) } else { None };
    let hmac = if version == Version::V1 && !echo { Some(fields.take()?) } else { None };
    fields.done()?;
    Ok(AddAddr { version, echo, address_id, address, family, port, hmac })
}

fn remove_addr(option: &[u8]) -> Result<RemoveAddr, Malformed> {
    option.get(3..).and_then(RemoveAddr::new).ok_or(Malformed::MptcpLength)
}

fn prio(nibble: u8, option: &[u8]) -> Result<MpPrio, Malformed> {
    let address_id = match option {
        [_, _, _] => None,
        [_, _, _, id] => Some(*id),
        _ => return Err(Malformed::MptcpLength),
    };
    Ok(MpPrio { backup: nibble & 0x01 != 0, address_id })
}

fn tcprst(nibble: u8, option: &[u8], context: Context) -> Result<TcpRst, Malformed> {
    let [reason] = *exact::<4, 3, 1>(option)?;
    if !context.flags.rst() {
        return Err(Malformed::MptcpFlags);
    }
    Ok(TcpRst { transient: nibble & 0x01 != 0, reason: ResetReason(reason) })
}

/// What is left of an option while its fields are taken off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed::MptcpLength)?;
        self.0 = rest;
        Ok(*field)
    }

    fn sequence(&mut self, long: bool) -> Result<DataSequence, Malformed> {
        Ok(if long {
            DataSequence::Long(u64::from_be_bytes(self.take()?))
        } else {
            DataSequence::Short(u32::from_be_bytes(self.take()?))
        })
    }

    fn done(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::MptcpLength) }
    }
}

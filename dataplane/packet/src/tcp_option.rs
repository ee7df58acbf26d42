//! The walk over TCP options, stopping exactly where Linux stops.
//!
//! End-of-list stops it; a no-operation is one byte; anything else needs a length of at least 2 that stays within
//! the header, else the walk ends there and what came before still counts. The walk reads at most the 40 bytes
//! that a header can hold, each once.

use crate::mptcp::{self, AddAddr, Capable, Context, Dss, Join, MpPrio, RemoveAddr, TcpRst};
use crate::tcp::{self, Flags};
use crate::token::Key;

const END_OF_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Why MPTCP options, or all that follow, were ignored. The packet goes on as plain TCP; this only counts causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// A length below 2 or past the end: the walk stopped.
    Option,
    /// An MPTCP option whose length does not fit its subtype, version and packet.
    MptcpLength,
    /// An MPTCP option with a version, flags or TCP flags that do not go together.
    MptcpFlags,
    /// MP_CAPABLE and MP_JOIN in one packet: neither counts.
    CapableAndJoin,
}

/// What the options of one packet say. The first of two well-formed options of one kind counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// An option of kind 30 with a subtype was seen, understood or not.
    pub mptcp: bool,
    /// MP_CAPABLE.
    pub capable: Option<Capable>,
    /// MP_JOIN.
    pub join: Option<Join>,
    /// DSS.
    pub dss: Option<Dss>,
    /// MP_FASTCLOSE: the key of the host it goes to.
    pub fastclose: Option<Key>,
    /// ADD_ADDR.
    pub add_addr: Option<AddAddr>,
    /// REMOVE_ADDR.
    pub remove_addr: Option<RemoveAddr>,
    /// MP_PRIO.
    pub mp_prio: Option<MpPrio>,
    /// MP_FAIL: the data sequence number it fails at.
    pub mp_fail: Option<u64>,
    /// MP_TCPRST.
    pub tcprst: Option<TcpRst>,
    /// MP_EXPERIMENTAL was seen; it has no common form.
    pub experimental: bool,
    /// The first thing that was wrong.
    pub malformed: Option<Malformed>,
}

/// Walks the options of a TCP header. What an MPTCP option is depends on the packet's flags and on whether it
/// carries payload.
///
/// The summary is made where it is used and filled out of line: moving it cost as much as the walk.
#[inline]
pub fn options(bytes: &[u8], flags: Flags, payload: bool) -> Options {
    let mut options = Options::default();
    walk(bytes, Context { flags, payload }, &mut options);
    options
}

/// The walk. Kept out of line: only few packets need their options.
#[inline(never)]
fn walk(bytes: &[u8], context: Context, options: &mut Options) {
    for option in each(bytes) {
        match option {
            Ok(option @ [mptcp::KIND, ..]) => mptcp::read(option, context, options),
            Ok(_) => {}
            Err(malformed) => {
                options.malformed.get_or_insert(malformed);
            }
        }
    }
    if options.capable.is_some() && options.join.is_some() {
        options.capable = None;
        options.join = None;
        options.malformed.get_or_insert(Malformed::CapableAndJoin);
    }
}

/// The options of a TCP header, from kind to last byte; no-operations are passed over. What ends the walk before the
/// header's end, end-of-list apart, comes last.
#[inline]
pub(crate) fn each(bytes: &[u8]) -> Each<'_> {
    Each(bytes.get(..tcp::OPTIONS_MAX).unwrap_or(bytes))
}

/// What is left of the options.
pub(crate) struct Each<'a>(&'a [u8]);

impl<'a> Iterator for Each<'a> {
    type Item = Result<&'a [u8], Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // Each turn takes at least one byte off.
        while let [kind, tail @ ..] = self.0 {
            match *kind {
                END_OF_LIST => break,
                NO_OPERATION => self.0 = tail,
                _ => {
                    let option = tail.first().and_then(|len| self.0.split_at_checked(usize::from(*len)));
                    let Some((option @ [_, _, ..], after)) = option else {
                        self.0 = &[];
                        return Some(Err(Malformed::Option));
                    };
                    self.0 = after;
                    return Some(Ok(option));
                }
            }
        }
        self.0 = &[];
        None
    }
}

//! What the two processes say to each other: commands down, events up.
//!
//! Why it exists: the meaning of a message (these enums, which both sides match on) and its form (a slot of
//! [`SLOT`] bytes in a ring) are two things, and the form is decoded in one place, strictly: a byte that no
//! encoder of ours writes is an error, so that a decoded message is always one that could have been sent.
//!
//! Form: a slot is the message's number (one byte), then its fields in the order of their declaration, without
//! padding, integers little-endian, then zeroes to the end. An `Option` is a byte 0 or 1 and, always, the
//! room of its value. `SCHEMA` is the text of all declarations; its hash is part of the segment's layout
//! hash, so that a changed message cannot meet an unchanged peer.
//!
//! Changes come in batches: [`Command::Begin`], any number of `Put…` and `Remove…`, [`Command::Commit`] with
//! the same number. A batch is applied whole or refused whole; the answer is [`Event::Committed`] or
//! [`Event::Refused`]. A `Put` of a known name changes it, of an unknown name adds it.

mod name;
mod steering;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use crate::field::BadMessage;
use crate::field::{Field, Reader, Writer};
use crate::id::{BackendId, VipId};
use crate::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_VIPS};
use crate::names;
use crate::report::Report;
pub(crate) use name::NAME_BYTES;
pub use name::{Name, NameError};
pub use steering::{Handles, Scheme, Schemes, Secret, Steering, TokenMap, WrongEndpoint};

/// Bytes of a slot: room for the longest message, in whole cache lines.
pub const SLOT: usize = 256;

/// Commands in one batch at most, `Begin` and `Commit` not counted: enough to replace everything at its limit.
pub const MAX_BATCH: usize = 2 * (MAX_POOLS + MAX_BACKENDS + MAX_VIPS + MAX_SERVICES);

names! {
    /// What an operator or a health check says about a backend.
    pub enum BackendState {
        /// Takes new connections, by weight.
        Active = "active",
        /// Keeps its connections, joins included; takes no new ones. By operator.
        Draining = "draining",
        /// Keeps its connections, joins included; takes no new ones. By health check.
        Down = "down",
    }
}

names! {
    /// Whether a backend is configured, and what is left of it when it is not.
    pub enum Presence {
        /// Configured.
        Present = "present",
        /// No longer configured: keeps its connections, joins included, until its deadline or its last flow.
        Removed = "removed",
        /// Past its deadline: nothing reaches it, and its id waits until no entry holds it.
        Deleted = "deleted",
    }
}

names! {
    /// How a packet is sent to its backend.
    pub enum Forward {
        /// The destination MAC address is rewritten; the backend is on the same link.
        L2dsr = "l2dsr",
        /// The packet is put into another IP packet, IPv4 or IPv6.
        Ipip = "ipip",
        /// The packet is put into UDP with a GUE header.
        Gue = "gue",
    }
}

names! {
    /// The transport of a VIP.
    pub enum Protocol {
        /// TCP, Multipath TCP included.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

impl Protocol {
    /// Its number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

names! {
    /// What a SYN with MP_JOIN gets whose token is unknown or ambiguous.
    pub enum UnknownToken {
        /// Dropped: TCP sends it again, and by then the token may be known.
        Drop = "drop",
        /// Answered with RST and MP_TCPRST, transient.
        Reset = "reset",
        /// Sent to Maglev's choice.
        Hash = "hash",
    }
}

names! {
    /// How well a token's owner is known. A higher rank wins over a lower one.
    pub enum TokenRank {
        /// Its handshake was seen.
        Provisional = "provisional",
        /// Its connection lived on for some seconds.
        Seen = "seen",
        /// An agent on the backend said so.
        Proven = "proven",
    }
}

names! {
    /// Why a batch was refused. Nothing of a refused batch is applied.
    pub enum Refusal {
        /// The command names a pool that does not exist: put the pool first, in the same batch if need be.
        UnknownPool = "unknown_pool",
        /// The command names a backend that its pool does not have.
        UnknownBackend = "unknown_backend",
        /// The command names a VIP that does not exist: put the VIP first, in the same batch if need be.
        UnknownVip = "unknown_vip",
        /// The command removes a service that its VIP does not have.
        UnknownService = "unknown_service",
        /// The batch says two things about one name.
        Duplicate = "duplicate",
        /// There are as many pools as one data plane can hold.
        TooManyPools = "too_many_pools",
        /// There are as many backends as one data plane can hold, those counted that still hold connections.
        TooManyBackends = "too_many_backends",
        /// There are as many VIPs as one data plane can hold.
        TooManyVips = "too_many_vips",
        /// There are as many services as one data plane can hold.
        TooManyServices = "too_many_services",
        /// Another VIP has this address, port and protocol already.
        ServiceTaken = "service_taken",
        /// The pool cannot be removed while a VIP uses it: remove the VIP first, or give it another pool.
        PoolInUse = "pool_in_use",
        /// The pool cannot be removed while it has backends: remove them first.
        PoolNotEmpty = "pool_not_empty",
        /// The new name of a pool is another's: remove that one first, and wait until it is forgotten.
        PoolExists = "pool_exists",
        /// The VIP cannot be removed while it has services: remove them first.
        VipInUse = "vip_in_use",
        /// The weight is larger than Maglev can honour.
        BadWeight = "bad_weight",
        /// The backend has neither an IPv4 nor an IPv6 address.
        NoAddress = "no_address",
        /// The address cannot belong to a host: unspecified, multicast or broadcast.
        BadAddress = "bad_address",
        /// This data plane does not know this way of forwarding, or not yet.
        ForwardUnsupported = "forward_unsupported",
        /// This data plane does not balance this protocol, or not yet.
        ProtocolUnsupported = "protocol_unsupported",
        /// The batch has more commands than one batch may have: cut it into several.
        BatchTooLarge = "batch_too_large",
    }
}

/// Declares a set of messages: the enum, its strict `encode` and `decode`, and its text for [`SCHEMA`].
macro_rules! messages {
    ($(#[$outer:meta])* pub enum $name:ident { $(
        $(#[$inner:meta])* $variant:ident = $number:literal
            $({ $( $(#[$note:meta])* $field:ident: $type:ty, )+ })?,
    )+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$inner])* $variant $({ $( $(#[$note])* $field: $type, )+ })?, )+ }

        $( const _: () = assert!(0 $($( + <$type as Field>::BYTES )+)? < SLOT, "the message outgrew its slot"); )+

        impl $name {
            /// How many messages there are.
            #[cfg(test)]
            const COUNT: usize = [$( $number ),+].len();

            const SCHEMA: &'static str =
                concat!(stringify!($name), $( " ", stringify!($variant), $number $($(, " ", stringify!($field:$type))+)?, )+ ";");

            /// Its form in a slot.
            pub fn encode(&self) -> [u8; SLOT] {
                let mut slot = [0; SLOT];
                let mut to = Writer(&mut slot);
                match self {
                    $( Self::$variant { $($( $field, )+)? } => {
                        to.put([$number]);
                        $($( $field.put(&mut to); )+)?
                    } )+
                }
                slot
            }

            /// The message of a slot; an error unless [`Self::encode`] could have written exactly these bytes.
            pub fn decode(slot: &[u8; SLOT]) -> Result<Self, BadMessage> {
                let mut from = Reader(slot);
                let message = match from.get()? {
                    $( [$number] => Self::$variant { $($( $field: Field::get(&mut from)?, )+)? }, )+
                    _ => return Err(BadMessage),
                };
                if from.0.iter().all(|&byte| byte == 0) { Ok(message) } else { Err(BadMessage) }
            }
        }
    };
}

messages! {
    /// From the control plane to the data plane.
    pub enum Command {
        /// A batch begins. Whatever an unfinished batch before it held is forgotten.
        Begin = 1 {
            /// The batch's number: the sender's choice, comes back in the answer.
            batch: u64,
        },
        /// The batch is complete: apply it or refuse it, and answer.
        Commit = 2 {
            /// The number given with `Begin`.
            batch: u64,
        },
        /// Forget the batch. There is no answer.
        Abandon = 3 {
            /// The number given with `Begin`.
            batch: u64,
        },
        /// A pool of this name exists.
        PutPool = 4 {
            /// The pool.
            name: Name,
        },
        /// A backend of this name exists in the pool, with these properties.
        PutBackend = 5 {
            /// The pool it belongs to.
            pool: Name,
            /// Its name within the pool.
            name: Name,
            /// Its IPv4 address, if it has one.
            address4: Option<Ipv4Addr>,
            /// Its IPv6 address, if it has one.
            address6: Option<Ipv6Addr>,
            /// Its MAC address, or that of the next hop to it; `None` until resolved.
            mac: Option<[u8; 6]>,
            /// Its share of new connections, relative to the others of the pool.
            weight: u32,
            /// Whether it takes new connections.
            state: BackendState,
            /// By what else it is found.
            handles: Handles,
        },
        /// A VIP of this name exists, with these properties; its addresses are services.
        PutVip = 6 {
            /// The VIP.
            name: Name,
            /// The pool it balances over.
            pool: Name,
            /// Its transport.
            protocol: Protocol,
            /// How packets reach the backends.
            forward: Forward,
            /// How joins find the backend of their connection.
            steering: Steering,
            /// What joins of unknown tokens get.
            unknown_token: UnknownToken,
        },
        /// The VIP has this address and port.
        PutService = 7 {
            /// The VIP.
            vip: Name,
            /// An address of it.
            address: IpAddr,
            /// A port of it; 0 is any port.
            port: u16,
        },
        /// The VIP no longer has this address and port.
        RemoveService = 8 {
            /// The VIP.
            vip: Name,
            /// The address.
            address: IpAddr,
            /// The port; 0 is any port.
            port: u16,
        },
        /// The VIP is no more.
        RemoveVip = 9 {
            /// The VIP.
            name: Name,
        },
        /// The backend is no longer configured; its connections keep it until their end or the deadline.
        RemoveBackend = 10 {
            /// The pool it belongs to.
            pool: Name,
            /// Its name within the pool.
            name: Name,
            /// Seconds from now until nothing reaches it any more; `None` waits for its last flow.
            deadline: Option<u32>,
        },
        /// The pool is no more.
        RemovePool = 11 {
            /// The pool.
            name: Name,
        },
        /// The pool has another name from now on; its backends, tokens and VIPs stay with it.
        RenamePool = 14 {
            /// The pool.
            name: Name,
            /// Its new name, which no pool has, nor one that is removed and not yet forgotten.
            to: Name,
        },
        /// Tell all there is: `Pool`, `Backend`, `Vip` and `Service` events, then `DumpEnd`. Outside of batches.
        Dump = 12,
        /// Tell who owns this token, in every pool: `TokenFound` events, then `TokenEnd`. Outside of batches.
        FindToken = 13 {
            /// The token.
            token: u32,
        },
        /// What the agent on a backend says of it. Outside of batches; there is no answer.
        Report = 15 {
            /// The backend.
            backend: BackendId,
            /// What it says.
            report: Report,
        },
    }
}

messages! {
    /// From the data plane to the control plane.
    pub enum Event {
        /// The batch is applied.
        Committed = 1 {
            /// The number given with `Begin`.
            batch: u64,
            /// The generation of the configuration it made.
            generation: u64,
        },
        /// The batch is refused; nothing of it is applied.
        Refused = 2 {
            /// The number given with `Begin`.
            batch: u64,
            /// The place of the refused command in the batch, from 0.
            command: u32,
            /// Why.
            refusal: Refusal,
            /// The name the refusal is about, if it is about one.
            name: Option<Name>,
        },
        /// A pool that exists.
        Pool = 3 {
            /// The pool.
            name: Name,
        },
        /// A backend that exists.
        Backend = 4 {
            /// Its id: its place among the counters and gauges.
            id: BackendId,
            /// The pool it belongs to.
            pool: Name,
            /// Its name within the pool.
            name: Name,
            /// Its IPv4 address, if it has one.
            address4: Option<Ipv4Addr>,
            /// Its IPv6 address, if it has one.
            address6: Option<Ipv6Addr>,
            /// Its MAC address, or that of the next hop to it.
            mac: Option<[u8; 6]>,
            /// Its share of new connections.
            weight: u32,
            /// Whether it takes new connections.
            state: BackendState,
            /// By what else it is found.
            handles: Handles,
            /// Flow entries that hold it, at the last sweep.
            flows: u64,
            /// Token entries that hold it, at the last sweep.
            tokens: u64,
            /// Whether it is configured; one that is not is told as long as its id is taken.
            presence: Presence,
            /// Seconds until a removed one is deleted, if it has a deadline.
            deadline: Option<u32>,
        },
        /// A VIP that exists.
        Vip = 5 {
            /// Its id: its place among the counters.
            id: VipId,
            /// The VIP.
            name: Name,
            /// The pool it balances over.
            pool: Name,
            /// Its transport.
            protocol: Protocol,
            /// How packets reach the backends.
            forward: Forward,
            /// How joins find the backend of their connection.
            steering: Steering,
            /// What joins of unknown tokens get.
            unknown_token: UnknownToken,
        },
        /// An address and port of a VIP.
        Service = 6 {
            /// The VIP.
            vip: Name,
            /// The address.
            address: IpAddr,
            /// The port; 0 is any port.
            port: u16,
        },
        /// The dump is complete.
        DumpEnd = 7 {
            /// The generation of the configuration it showed.
            generation: u64,
        },
        /// A backend that owns the token.
        TokenFound = 8 {
            /// The token.
            token: u32,
            /// The pool.
            pool: Name,
            /// The owner.
            backend: Name,
            /// How well the owner is known.
            rank: TokenRank,
            /// Whether another backend claims it with equal right.
            ambiguous: bool,
            /// Seconds since it was last seen, to the tick.
            age_seconds: u32,
        },
        /// There are no more owners of the token.
        TokenEnd = 9 {
            /// The token.
            token: u32,
        },
    }
}

/// The text of all messages, for the layout hash. Sizes of enums and names are in it by [`crate::layout`].
pub(crate) const SCHEMA: [&str; 3] = [Command::SCHEMA, Event::SCHEMA, crate::report::SCHEMA];

/// Whether an address can be a VIP's. Others are refused: [`Refusal::BadAddress`].
pub fn is_of_a_host(address: IpAddr) -> bool {
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_multicast() || is_broadcast)
}

impl Command {
    /// Whether it belongs between `Begin` and `Commit`: a `Put…` or a `Remove…`.
    pub const fn is_change(&self) -> bool {
        match self {
            Command::PutPool { .. }
            | Command::PutBackend { .. }
            | Command::PutVip { .. }
            | Command::PutService { .. }
            | Command::RemoveService { .. }
            | Command::RemoveVip { .. }
            | Command::RemoveBackend { .. }
            | Command::RemovePool { .. }
            | Command::RenamePool { .. } => true,
            Command::Begin { .. }
            | Command::Commit { .. }
            | Command::Abandon { .. }
            | Command::Dump
            | Command::FindToken { .. }
            | Command::Report { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Subflow;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Name> {
        "[a-zA-Z0-9._/:\\-äß]{1,31}".prop_map(|text| text.parse().unwrap())
    }

    fn one_of<T: Copy + core::fmt::Debug>(all: &'static [T]) -> impl Strategy<Value = T> {
        prop::sample::select(all)
    }

    fn mac() -> impl Strategy<Value = Option<[u8; 6]>> {
        any::<Option<[u8; 6]>>()
    }

    type Backend =
        (Name, Name, Option<Ipv4Addr>, Option<Ipv6Addr>, Option<[u8; 6]>, u32, BackendState, Handles);

    fn handles() -> impl Strategy<Value = Handles> {
        any::<(Option<u16>, Option<u16>, Option<Ipv4Addr>, Option<Ipv6Addr>)>().prop_map(
            |(number, endpoint_port, endpoint4, endpoint6)| Handles {
                number,
                endpoint_port,
                endpoint4,
                endpoint6,
            },
        )
    }

    fn steering() -> impl Strategy<Value = Steering> {
        (
            prop::collection::vec(one_of(Scheme::ALL), 0..8),
            one_of(TokenMap::ALL),
            any::<(Option<[u8; 8]>, Option<[u8; 8]>, Option<[u8; 16]>)>(),
            any::<(bool, bool)>(),
            one_of(WrongEndpoint::ALL),
        )
            .prop_map(|(schemes, token_map, (even, odd, key), explicit, wrong_endpoint)| Steering {
                schemes: Schemes::new(schemes),
                token_map,
                cipher_keys: [even.map(Secret), odd.map(Secret)],
                key_secret: key.map(Secret),
                application_tokens: explicit.0,
                external_tokens: explicit.1,
                wrong_endpoint,
            })
    }

    fn backend() -> impl Strategy<Value = Backend> {
        (
            name(),
            name(),
            any::<Option<Ipv4Addr>>(),
            any::<Option<Ipv6Addr>>(),
            mac(),
            any::<u32>(),
            one_of(BackendState::ALL),
            handles(),
        )
    }

    type Vip = (Name, Name, Protocol, Forward, Steering, UnknownToken);
    fn vip() -> impl Strategy<Value = Vip> {
        (name(), name(), one_of(Protocol::ALL), one_of(Forward::ALL), steering(), one_of(UnknownToken::ALL))
    }

    fn service() -> impl Strategy<Value = (Name, IpAddr, u16)> {
        (name(), any::<IpAddr>(), any::<u16>())
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            any::<u64>().prop_map(|batch| Command::Begin { batch }),
            any::<u64>().prop_map(|batch| Command::Commit { batch }),
            any::<u64>().prop_map(|batch| Command::Abandon { batch }),
            name().prop_map(|name| Command::PutPool { name }),
            backend().prop_map(|(pool, name, address4, address6, mac, weight, state, handles)| {
                Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles }
            }),
            vip().prop_map(|(name, pool, protocol, forward, steering, unknown_token)| Command::PutVip {
                name,
                pool,
                protocol,
                forward,
                steering,
                unknown_token
            }),
            service().prop_map(|(vip, address, port)| Command::PutService { vip, address, port }),
            service().prop_map(|(vip, address, port)| Command::RemoveService { vip, address, port }),
            name().prop_map(|name| Command::RemoveVip { name }),
            (name(), name(), any::<Option<u32>>())
                .prop_map(|(pool, name, deadline)| Command::RemoveBackend { pool, name, deadline }),
            name().prop_map(|name| Command::RemovePool { name }),
            (name(), name()).prop_map(|(name, to)| Command::RenamePool { name, to }),
            Just(Command::Dump),
            any::<u32>().prop_map(|token| Command::FindToken { token }),
            (1..4096_u16, report())
                .prop_map(|(id, report)| Command::Report { backend: BackendId(id), report }),
        ]
    }

    fn report() -> impl Strategy<Value = Report> {
        type Hosts = [(Ipv4Addr, Ipv6Addr); 2];
        let ends = any::<(bool, Hosts, [u16; 2])>();
        let subflow = ends.prop_filter_map("of two families", |(is_v4, hosts, ports)| {
            let [client, service] =
                hosts.map(|(four, six)| if is_v4 { IpAddr::V4(four) } else { IpAddr::V6(six) });
            Subflow::new((client, ports[0]).into(), (service, ports[1]).into())
        });
        (0..5, any::<(u32, u16, bool)>(), subflow).prop_map(|(kind, (token, seconds, joined), subflow)| {
            match kind {
                0 => Report::Lease { seconds },
                1 => Report::TokenLives { token },
                2 => Report::TokenEnded { token },
                3 => Report::SubflowLives { token, subflow, joined },
                _ => Report::SubflowEnded { subflow },
            }
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<(u64, u64)>().prop_map(|(batch, generation)| Event::Committed { batch, generation }),
            (any::<u64>(), any::<u32>(), one_of(Refusal::ALL), prop::option::of(name()))
                .prop_map(|(batch, command, refusal, name)| Event::Refused { batch, command, refusal, name }),
            name().prop_map(|name| Event::Pool { name }),
            (1..4096_u16, backend(), any::<(u64, u64)>(), one_of(Presence::ALL), any::<Option<u32>>())
                .prop_map(|(id, backend, (flows, tokens), presence, deadline)| {
                    let (pool, name, address4, address6, mac, weight, state, handles) = backend;
                    let id = BackendId(id);
                    Event::Backend {
                        id,
                        pool,
                        name,
                        address4,
                        address6,
                        mac,
                        weight,
                        state,
                        handles,
                        flows,
                        tokens,
                        presence,
                        deadline,
                    }
                }),
            (0..256_u16, vip()).prop_map(|(id, (name, pool, protocol, forward, steering, unknown_token))| {
                Event::Vip { id: VipId(id), name, pool, protocol, forward, steering, unknown_token }
            }),
            service().prop_map(|(vip, address, port)| Event::Service { vip, address, port }),
            any::<u64>().prop_map(|generation| Event::DumpEnd { generation }),
            (any::<(u32, bool, u32)>(), name(), name(), one_of(TokenRank::ALL)).prop_map(
                |((token, ambiguous, age_seconds), pool, backend, rank)| Event::TokenFound {
                    token,
                    pool,
                    backend,
                    rank,
                    ambiguous,
                    age_seconds
                }
            ),
            any::<u32>().prop_map(|token| Event::TokenEnd { token }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn every_command_survives_its_slot(command in command()) {
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }

        #[test]
        fn every_event_survives_its_slot(event in event()) {
            prop_assert_eq!(Event::decode(&event.encode()), Ok(event));
        }

        #[test]
        fn a_changed_slot_is_refused_or_is_another_message_whole(
            command in command(), event in event(), at in 0..SLOT, to in any::<u8>(),
        ) {
            let mut slot = command.encode();
            slot[at] = to;
            if let Ok(decoded) = Command::decode(&slot) {
                prop_assert_eq!(decoded.encode(), slot);
            }
            let mut slot = event.encode();
            slot[at] = to;
            if let Ok(decoded) = Event::decode(&slot) {
                prop_assert_eq!(decoded.encode(), slot);
            }
        }
    }

    /// The strategies above make every message there is: without this, a new one would go untested.
    #[test]
    fn the_properties_cover_every_message() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut seen = ([false; 256], [false; 256]);
        for _ in 0..2000 {
            use proptest::strategy::ValueTree;
            seen.0[usize::from(command().new_tree(&mut runner).unwrap().current().encode()[0])] = true;
            seen.1[usize::from(event().new_tree(&mut runner).unwrap().current().encode()[0])] = true;
        }
        assert_eq!(seen.0.iter().filter(|seen| **seen).count(), Command::COUNT);
        assert_eq!(seen.1.iter().filter(|seen| **seen).count(), Event::COUNT);
    }

    #[test]
    fn no_message_is_all_zeroes_or_all_ones() {
        for slot in [[0; SLOT], [0xff; SLOT]] {
            assert_eq!(Command::decode(&slot), Err(BadMessage));
            assert_eq!(Event::decode(&slot), Err(BadMessage));
        }
    }

    #[test]
    fn an_id_out_of_range_is_no_message() {
        let pool: Name = "p".parse().unwrap();
        for (id, valid) in [(0, false), (1, true), (4095, true), (4096, false), (u16::MAX, false)] {
            let event = Event::Backend {
                id: BackendId(id),
                pool,
                name: pool,
                address4: None,
                address6: None,
                mac: None,
                weight: 1,
                state: BackendState::Active,
                handles: Handles::default(),
                flows: 0,
                tokens: 0,
                presence: Presence::Present,
                deadline: None,
            };
            assert_eq!(Event::decode(&event.encode()).is_ok(), valid, "backend {id}");
        }
        for (id, valid) in [(0, true), (255, true), (256, false)] {
            let event = Event::Vip {
                id: VipId(id),
                name: pool,
                pool,
                protocol: Protocol::Tcp,
                forward: Forward::Ipip,
                steering: Steering::LEARN,
                unknown_token: UnknownToken::Drop,
            };
            assert_eq!(Event::decode(&event.encode()).is_ok(), valid, "VIP {id}");
        }
    }

    #[test]
    fn a_name_with_bytes_after_its_end_is_no_message() {
        let mut slot = Command::PutPool { name: "p".parse().unwrap() }.encode();
        slot[10] = b'x';
        assert_eq!(Command::decode(&slot), Err(BadMessage));
    }
}

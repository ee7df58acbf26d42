//! What the connections of each kind send, in order: opening, running, closing.

use self::Step::*;

/// Which of a connection's subflows: 0 is the first, 1 the joined one.
pub(super) type PathIndex = usize;

/// Subflows a connection may have.
pub(super) const PATHS: usize = 2;

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Flavour {
    Plain,
    /// The client speaks first.
    Capable,
    /// The server speaks first.
    Greeted,
    Bulk,
    Join,
    JoinSyn,
    ThirdAck,
    Unknown,
    /// A third packet without a SYN before it.
    ForgedAlone,
    /// A third packet far behind its SYN's sequence number.
    ForgedPlace,
    /// A third packet of the other version.
    ForgedVersion,
    /// A second third packet, with another key.
    ForgedAgain,
    /// A join with a known token and a wrong HMAC.
    ForgedHmac,
    Collide,
    Overtake,
    Signals,
    Fastclose,
    /// With this case of [`super::malformed::CASES`].
    Malformed(usize),
    Icmp,
    SynFlood,
    CapableFlood,
    JoinFlood,
    Udp,
}

/// One packet of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A SYN without MPTCP.
    Syn,
    /// A SYN with MP_CAPABLE.
    CapableSyn,
    /// The third packet, without MPTCP.
    Ack,
    /// The third packet with both keys.
    CapableAck,
    /// The client's first data.
    Request,
    /// An acknowledgment of what the server sent.
    Reply,
    /// A SYN with MP_JOIN of the connection's token; `early` where it comes before that token.
    JoinSyn { early: bool },
    /// The last packet of a join's handshake.
    JoinAck,
    /// A SYN with MP_JOIN of a token nobody taught.
    UnknownSyn,
    /// A third packet that teaches nothing.
    ForgedAck(Forgery),
    /// A join of the token such a packet claimed.
    ForgedJoin(Forgery),
    /// A join's last packet with a wrong HMAC.
    ForgedHmac,
    /// ADD_ADDR of a further address of the client.
    AddAddr,
    /// The echo of the server's ADD_ADDR.
    AddAddrEcho,
    /// REMOVE_ADDR.
    RemoveAddr,
    /// MP_PRIO: backup from now on.
    Prio,
    /// A DSS with DATA_FIN and no data.
    DataFin,
    /// FIN.
    Fin,
    /// The acknowledgment of the server's FIN.
    LastAck,
    /// MP_FASTCLOSE as Linux sends it, or as version 0 has it.
    Fastclose,
    /// The SYN of a malformed case.
    MalformedSyn,
    /// The ACK of a malformed case.
    MalformedAck,
    /// Data after it.
    MalformedData,
    /// A datagram.
    Datagram,
}

/// What is wrong with a claimed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forgery {
    /// No SYN came before it.
    Alone,
    /// Its sequence number is not the SYN's.
    Place,
    /// Its version is not the SYN's.
    Version,
    /// Another key was claimed before.
    Again,
}

/// What a connection does for as long as it is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Nothing.
    Nothing,
    /// Data and acknowledgments, on its subflows in turn.
    Data,
    /// The same, and every third round ([`Turn::Error`]) an ICMP error about the joined subflow.
    DataAndErrors,
    /// Joins of its token, each from another address and port.
    Joins,
    /// The third packet of its handshake.
    ThirdAck,
    /// A datagram.
    Datagrams,
    /// A SYN from anywhere.
    Syns,
    /// The same, with MP_CAPABLE.
    CapableSyns,
    /// The same, with MP_JOIN of an unknown token.
    UnknownSyns,
}

/// A kind's packets.
#[derive(Debug)]
pub(super) struct Script {
    /// What opens it.
    pub open: &'static [(PathIndex, Step)],
    /// What it does then.
    pub run: Run,
    /// Subflows that take turns in running.
    pub paths: u64,
    /// What ends it.
    pub close: &'static [(PathIndex, Step)],
}

/// What a connection does in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its data, for the so-manieth time, on this subflow.
    Data { path: PathIndex, round: u64 },
    /// An ICMP error about the joined subflow.
    Error { path: PathIndex },
}

/// Of so many rounds of [`Run::DataAndErrors`] the last is an error.
const ERROR_EVERY: u64 = 3;

impl Run {
    /// Rounds of data among the first so many rounds.
    #[inline]
    pub(super) const fn data_before(self, rounds: u64) -> u64 {
        match self {
            Self::DataAndErrors => rounds - rounds / ERROR_EVERY,
            _ => rounds,
        }
    }
}

impl Script {
    pub(super) fn runs(&self) -> bool {
        self.run != Run::Nothing
    }

    /// What a connection of this phase does in this round: half of them begin with the second subflow.
    #[inline]
    pub(super) fn turn(&self, phase: u64, round: u64) -> Turn {
        if self.run == Run::DataAndErrors && round % ERROR_EVERY == ERROR_EVERY - 1 {
            return Turn::Error { path: 1 };
        }
        let round = self.run.data_before(round);
        Turn::Data { path: usize::from((round + phase) % self.paths == 1), round }
    }
}

const JOINED: &[(PathIndex, Step)] =
    &[(0, CapableSyn), (0, CapableAck), (0, Reply), (1, JoinSyn { early: false }), (1, JoinAck)];

const END_OF_TWO: &[(PathIndex, Step)] =
    &[(0, DataFin), (1, DataFin), (0, Fin), (1, Fin), (0, LastAck), (1, LastAck)];

const END_OF_ONE: &[(PathIndex, Step)] = &[(0, DataFin), (0, Fin), (0, LastAck)];

const fn script(
    open: &'static [(PathIndex, Step)],
    run: Run,
    paths: u64,
    close: &'static [(PathIndex, Step)],
) -> Script {
    Script { open, run, paths, close }
}

static PLAIN: Script =
    script(&[(0, Syn), (0, Ack), (0, Request), (0, Reply)], Run::Data, 1, &[(0, Fin), (0, LastAck)]);
static CAPABLE: Script =
    script(&[(0, CapableSyn), (0, CapableAck), (0, Request), (0, Reply)], Run::Data, 1, END_OF_ONE);
static GREETED: Script = script(&[(0, CapableSyn), (0, CapableAck), (0, Reply)], Run::Data, 1, END_OF_ONE);
static BULK: Script = script(&[(0, CapableSyn), (0, CapableAck), (0, Reply)], Run::Data, 1, &[]);
static JOIN: Script = script(JOINED, Run::Data, 2, END_OF_TWO);
static JOIN_SYN: Script = script(&[(0, CapableSyn), (0, CapableAck), (0, Reply)], Run::Joins, 1, &[]);
static THIRD_ACK: Script = script(&[(0, CapableSyn)], Run::ThirdAck, 1, &[]);
static UNKNOWN: Script = script(&[(1, UnknownSyn), (1, UnknownSyn)], Run::Nothing, 1, &[]);
static FORGED_ALONE: Script =
    script(&[(0, ForgedAck(Forgery::Alone)), (1, ForgedJoin(Forgery::Alone))], Run::Nothing, 1, &[]);
static FORGED_PLACE: Script = script(
    &[(0, CapableSyn), (0, ForgedAck(Forgery::Place)), (1, ForgedJoin(Forgery::Place))],
    Run::Nothing,
    1,
    &[],
);
static FORGED_VERSION: Script = script(
    &[(0, CapableSyn), (0, ForgedAck(Forgery::Version)), (1, ForgedJoin(Forgery::Version))],
    Run::Nothing,
    1,
    &[],
);
static FORGED_AGAIN: Script = script(
    &[(0, CapableSyn), (0, CapableAck), (0, ForgedAck(Forgery::Again)), (1, ForgedJoin(Forgery::Again))],
    Run::Nothing,
    1,
    &[],
);
static FORGED_HMAC: Script = script(
    &[(0, CapableSyn), (0, CapableAck), (0, Reply), (1, JoinSyn { early: false }), (1, ForgedHmac)],
    Run::Nothing,
    1,
    &[],
);
static COLLIDE: Script = script(
    &[(0, CapableSyn), (0, CapableAck), (0, Reply), (1, JoinSyn { early: false })],
    Run::Nothing,
    1,
    &[],
);
static OVERTAKE: Script = script(
    &[
        (0, CapableSyn),
        (1, JoinSyn { early: true }),
        (0, CapableAck),
        (0, Reply),
        (1, JoinSyn { early: false }),
        (1, JoinAck),
    ],
    Run::Data,
    2,
    END_OF_TWO,
);
static SIGNALS: Script = script(
    &[
        (0, CapableSyn),
        (0, CapableAck),
        (0, AddAddrEcho),
        (0, Reply),
        (1, JoinSyn { early: false }),
        (1, JoinAck),
        (0, AddAddr),
        (1, Prio),
        (0, RemoveAddr),
    ],
    Run::Data,
    2,
    END_OF_TWO,
);
static FASTCLOSE: Script = script(JOINED, Run::Data, 2, &[(0, Fastclose), (1, Fastclose)]);
static MALFORMED: Script =
    script(&[(0, MalformedSyn), (0, MalformedAck), (0, MalformedData)], Run::Nothing, 1, &[]);
static ICMP: Script = script(JOINED, Run::DataAndErrors, 2, END_OF_TWO);
static SYN_FLOOD: Script = script(&[], Run::Syns, 1, &[]);
static CAPABLE_FLOOD: Script = script(&[], Run::CapableSyns, 1, &[]);
static JOIN_FLOOD: Script = script(&[], Run::UnknownSyns, 1, &[]);
static UDP: Script = script(&[(0, Datagram)], Run::Datagrams, 1, &[]);

impl Flavour {
    /// The kinds of [`super::Profile::Forged`].
    pub(super) const FORGED: [Self; 5] =
        [Self::ForgedAlone, Self::ForgedPlace, Self::ForgedVersion, Self::ForgedAgain, Self::ForgedHmac];

    /// What it sends.
    #[inline]
    pub(super) fn script(self) -> &'static Script {
        match self {
            Self::Plain => &PLAIN,
            Self::Capable => &CAPABLE,
            Self::Greeted => &GREETED,
            Self::Bulk => &BULK,
            Self::Join => &JOIN,
            Self::JoinSyn => &JOIN_SYN,
            Self::ThirdAck => &THIRD_ACK,
            Self::Unknown => &UNKNOWN,
            Self::ForgedAlone => &FORGED_ALONE,
            Self::ForgedPlace => &FORGED_PLACE,
            Self::ForgedVersion => &FORGED_VERSION,
            Self::ForgedAgain => &FORGED_AGAIN,
            Self::ForgedHmac => &FORGED_HMAC,
            Self::Collide => &COLLIDE,
            Self::Overtake => &OVERTAKE,
            Self::Signals => &SIGNALS,
            Self::Fastclose => &FASTCLOSE,
            Self::Malformed(_) => &MALFORMED,
            Self::Icmp => &ICMP,
            Self::SynFlood => &SYN_FLOOD,
            Self::CapableFlood => &CAPABLE_FLOOD,
            Self::JoinFlood => &JOIN_FLOOD,
            Self::Udp => &UDP,
        }
    }

    /// Whether it speaks MPTCP.
    pub(super) const fn is_mptcp(self) -> bool {
        !matches!(self, Self::Plain | Self::SynFlood | Self::Udp)
    }
}

//! What a worker counts besides reasons, VIPs and backends.

use crate::names;

names! {
    /// A counter of one worker. Monotone, 64 bits, written by its worker alone.
    pub enum Counter {
        /// Packets received.
        RxPackets = "rx_packets",
        /// Bytes received, without the frame check sequence.
        RxBytes = "rx_bytes",
        /// Packets handed to a transmit queue.
        TxPackets = "tx_packets",
        /// Bytes handed to a transmit queue.
        TxBytes = "tx_bytes",
        /// Packets a full transmit queue refused; they are dropped.
        TxRefused = "tx_refused",
        /// Packets left to the kernel, which has them already or gets them through the exception path.
        Punted = "punted",
        /// Polls that brought at least one packet.
        BusyPolls = "busy_polls",
        /// Polls that brought none.
        IdlePolls = "idle_polls",
        /// Packets handed to the kernel through the exception path.
        ExceptionTx = "exception_tx",
        /// Packets of the kernel that came through the exception path and left by its port.
        ExceptionRx = "exception_rx",
        /// Packets for or from the kernel that a full queue of the exception path, or of its port, refused.
        ExceptionRefused = "exception_refused",
        /// Snapshots taken over.
        SnapshotSwaps = "snapshot_swaps",

        /// Flow entries made.
        FlowInserted = "flow_inserted",
        /// Flow entries that found no place; the packet was forwarded without one.
        FlowTableFull = "flow_table_full",
        /// SYNs beyond the new flows a second that a worker opens: forwarded without an entry, or `join_rate`.
        FlowOverRate = "flow_over_rate",
        /// SYNs beyond what one source network may open: forwarded without an entry, or `join_rate`.
        FlowOverShare = "flow_over_share",
        /// Flow entries cleared because their idle time had passed.
        FlowExpired = "flow_expired",
        /// Half-open flows that gave way to another because their lines were full.
        FlowEvictedHalfOpen = "flow_evicted_half_open",
        /// Adopted flows that gave way.
        FlowEvictedAdopted = "flow_evicted_adopted",
        /// Closing flows that gave way.
        FlowEvictedClosing = "flow_evicted_closing",
        /// Flows that gave way whose backend is Maglev's own answer: they lose nothing but their token's refresh.
        FlowEvictedOwn = "flow_evicted_own",
        /// Flows of the last class that gave way: joined subflows, and flows whose backend Maglev no longer gives.
        FlowEvictedKept = "flow_evicted_kept",
        /// Flows found to be on a backend that is no longer Maglev's answer: from now on in the last class.
        FlowMoved = "flow_moved",
        /// Non-SYN packets of an unknown 5-tuple, forwarded by Maglev.
        Adopted = "adopted",
        /// SYNs seen again with the same initial sequence number.
        SynRetransmitted = "syn_retransmitted",
        /// SYNs with another initial sequence number on a live, fresh flow: sent to its backend, nothing learned.
        SynOnLiveFlow = "syn_on_live_flow",

        /// SYNs with MP_CAPABLE, those sent again included.
        CapableSyn = "capable_syn",
        /// SYNs with MP_JOIN, whatever became of them.
        JoinSyn = "join_syn",
        /// Tokens learned: a new entry in the token table.
        TokenLearned = "token_learned",
        /// Keys seen again on a flow that had taught the same token.
        KeyRepeated = "key_repeated",
        /// Keys that differ from the first one their flow claimed; ignored.
        KeyConflict = "key_conflict",
        /// Keys refused because their sequence number or version was not that of the SYN.
        KeyRefused = "key_refused",
        /// MPTCP connections whose key was missed, or found no room, before their data went on: their joins are not known.
        KeyMissed = "key_missed",
        /// Claims to a token that an established owner of another backend holds; refused.
        TokenConflict = "token_conflict",
        /// Claims to a token by two backends of equal right; its joins follow the unknown-token policy.
        TokenAmbiguous = "token_ambiguous",
        /// Tokens that found no place.
        TokenTableFull = "token_table_full",
        /// Provisional tokens that gave way to a newer one because their lines were full.
        TokenEvicted = "token_evicted",
        /// SYNs with MP_CAPABLE beyond the keys a second that a worker learns: balanced as plain TCP, joins not known.
        TokenOverRate = "token_over_rate",
        /// SYNs with MP_CAPABLE beyond what one source network may teach: balanced as plain TCP, joins not known.
        TokenOverShare = "token_over_share",
        /// Token entries cleared because no live subflow held them any more.
        TokenExpired = "token_expired",
        /// Token entries whose connection outlived two ticks with DSS traffic: rank seen.
        TokenSeen = "token_seen",
        /// DATA_FIN or a FASTCLOSE with the flow's key: the token's life was shortened.
        TokenClosing = "token_closing",
        /// Joins that reached their last handshake packet.
        JoinEstablished = "join_established",
        /// Joins of an unknown token that the VIP's policy sent to Maglev.
        JoinHashed = "join_hashed",
        /// Joins whose token names no backend: the number in it is nobody's, or the key of its parity is not configured.
        TokenMapMiss = "token_map_miss",
        /// SYNs with MP_CAPABLE for which no chosen key's token named a backend that takes new connections: as plain TCP.
        ChosenKeyUnplaced = "chosen_key_unplaced",
        /// SYNs with MP_CAPABLE or MP_JOIN, to VIPs whose keys are chosen, that have no timestamps: each leaves an entry.
        ChosenKeyUnstamped = "chosen_key_unstamped",
        /// Packets that echo a timestamp with nobody's number, to VIPs whose keys are chosen.
        TimestampUnknown = "timestamp_unknown",
        /// SYNs that offer explicit tokens, to VIPs that understand them, those sent again included.
        ExplicitSyn = "explicit_syn",
        /// Handshakes whose token was read instead of hashed.
        ExplicitToken = "explicit_token",

        /// Joins to a backend's own port or address.
        EndpointJoin = "endpoint_join",
        /// SYNs without MP_JOIN to a backend's own port or address: nobody is to open a connection there.
        EndpointNoJoin = "endpoint_no_join",
        /// Joins to a backend's own port or address whose token an established owner elsewhere holds.
        EndpointTokenElsewhere = "endpoint_token_elsewhere",
        /// Joins to the address that all backends share, of a VIP whose backends announce their own.
        EndpointIgnored = "endpoint_ignored",

        /// Packets too big whose sender was not told, since enough were told in this second.
        IcmpLimited = "icmp_limited",

        /// TCP options cut off: a length below 2 or past the end.
        OptionMalformed = "option_malformed",
        /// MPTCP options whose length fits no form of their subtype and version; the packet counts as plain TCP.
        MptcpBadLength = "mptcp_bad_length",
        /// MP_CAPABLE of a version nobody speaks, or whose flags make it invalid (RFC 8684 section 3.1).
        MptcpBadFlags = "mptcp_bad_flags",
        /// SYNs with both MP_CAPABLE and MP_JOIN: plain TCP.
        MptcpCapableAndJoin = "mptcp_capable_and_join",
    }
}

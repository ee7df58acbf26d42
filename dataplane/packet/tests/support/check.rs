//! What must hold for any bytes whatever. Called by the fuzz targets on what they invent, by property tests on
//! noise, and by an ordinary test on the committed corpus.

#[path = "answers.rs"]
mod answers;

use packet::build::packet;
use packet::{
    Drafts, Explicit, Flags, Flow, Kind, Malformed, Options, ParseError, Parsed, Tcp, TcpRst, arp, icmp,
    icmp6, options, parse, tcp,
};

/// A frame: any bytes.
pub fn frame(bytes: &[u8]) {
    let parsed = parse(bytes, bytes.len());
    frame_offsets(bytes, &parsed);
    frame_elsewhere(bytes, &parsed);
    frame_quoted(bytes, &parsed);
    answers::check(bytes, &parsed);
    let _ = arp::Arp::read(bytes, &parsed);
    let _ = icmp6::Solicitation::read(bytes, &parsed);
    let _ = options(parsed.tcp_options(bytes), parsed.tcp.flags, parsed.payload_len() > 0);
}

/// Offsets are ordered and inside the frame, and fields that the kind does not have are zero.
fn frame_offsets(bytes: &[u8], parsed: &Parsed) {
    assert!(
        parsed.l3 <= parsed.l4 && parsed.l4 <= parsed.payload && parsed.payload <= parsed.end,
        "{parsed:?}"
    );
    assert!(usize::from(parsed.end) <= bytes.len(), "{parsed:?}");
    let (start, end) = parsed.tcp.options;
    let header = end - start;
    match parsed.kind {
        Kind::Tcp => {
            assert_eq!(parsed.flow.protocol, tcp::PROTOCOL);
            assert_eq!((start, end), (parsed.l4 + 20, parsed.payload));
            assert!(header <= 40 && header % 4 == 0);
        }
        Kind::Udp => assert_eq!(parsed.payload, parsed.l4 + 8),
        Kind::Arp => assert_eq!(parsed.flow, Flow::default()),
        Kind::Icmp4 { .. } | Kind::Icmp6 { .. } | Kind::OtherIp | Kind::UdpFragment { .. } => {
            assert_eq!(parsed.payload, parsed.l4);
        }
        Kind::Error(_) => {}
    }
    if parsed.kind != Kind::Tcp {
        assert_eq!(parsed.tcp, Tcp::default());
    }
    if !matches!(parsed.kind, Kind::Tcp | Kind::Udp) {
        assert_eq!((parsed.flow.source_port, parsed.flow.destination_port), (0, 0));
    }
}

/// The answer depends on the packet alone: not on padding behind it, not on whether more than its headers is in
/// the buffer, not on how long the wire was beyond it.
fn frame_elsewhere(bytes: &[u8], parsed: &Parsed) {
    if let Kind::Error(error) = parsed.kind {
        if error != ParseError::Truncated {
            assert_eq!(parse(bytes, bytes.len() + 100), *parsed);
        }
        return;
    }
    let end = usize::from(parsed.end);
    assert_eq!(parse(&bytes[..end], end), *parsed);
    let mut padded = bytes[..end].to_vec();
    padded.extend([0xa5; 7]);
    assert_eq!(parse(&padded, padded.len()), *parsed);
    if matches!(parsed.kind, Kind::Tcp | Kind::Udp) {
        let headers = usize::from(parsed.payload);
        assert_eq!(parse(&bytes[..headers], bytes.len()), *parsed);
        assert_eq!(parse(&bytes[..headers - 1], bytes.len()).kind, Kind::Error(ParseError::Truncated));
    }
}

/// A quoted flow is one that a client of the address the error went to can have.
fn frame_quoted(bytes: &[u8], parsed: &Parsed) {
    let Some(flow) = icmp::quoted(bytes, parsed) else { return };
    assert_eq!(icmp::message(parsed.kind), icmp::Message::Error);
    assert_eq!((flow.destination, flow.family), (parsed.flow.destination, parsed.flow.family));
    assert!([6, 17].contains(&flow.protocol));
    // What follows the packet plays no part.
    let end = usize::from(parsed.end);
    assert_eq!(icmp::quoted(&bytes[..end], parsed), Some(flow));
}

/// TCP options: a byte of flags, a byte that is odd where there is payload, then the options.
pub fn tcp_options(bytes: &[u8]) {
    let [flags, payload, bytes @ ..] = bytes else {
        return;
    };
    let (flags, payload) = (Flags(*flags), payload & 1 == 1);
    let read = options(bytes, flags, payload);
    let bytes = &bytes[..bytes.len().min(40)];
    assert_eq!(options(bytes, flags, payload), read);

    let (found, whole) = walk(bytes);
    let mptcp: Vec<&[u8]> = found.iter().filter(|option| option[0] == 30).copied().collect();
    assert_eq!(read.mptcp, mptcp.iter().any(|option| option.len() > 2));
    assert!(read.capable.is_none() || read.join.is_none());
    if !whole {
        assert!(read.malformed.is_some());
    }
    if read.malformed == Some(Malformed::Option) {
        assert!(!whole);
    }
    if mptcp.is_empty() {
        assert_eq!(Options { malformed: None, ..read }, Options::default());
    }
    // Each option alone says what it says among others, and written again means the same.
    for option in mptcp {
        let alone = options(option, flags, payload);
        let forms = [
            alone.capable.is_some(),
            alone.join.is_some(),
            alone.dss.is_some(),
            alone.fastclose.is_some(),
            alone.add_addr.is_some(),
            alone.remove_addr.is_some(),
            alone.mp_prio.is_some(),
            alone.mp_fail.is_some(),
            alone.tcprst.is_some(),
            alone.experimental,
        ];
        let understood = forms.iter().filter(|is| **is).count();
        let unassigned = option.len() > 2 && (9..15).contains(&(option[2] >> 4));
        assert_eq!(understood, usize::from(alone.malformed.is_none() && !unassigned));
        written_again(&alone, flags, payload);
    }
}

fn written_again(alone: &Options, flags: Flags, payload: bool) {
    let mut again = packet().tcp(1, 2).flags(flags).payload(if payload { b"x" } else { b"" });
    match alone {
        Options { malformed: Some(_), .. } | Options { experimental: true, .. } => return,
        Options { capable: Some(capable), .. } => again = again.mp_capable(capable),
        Options { join: Some(join), .. } => again = again.mp_join(join),
        Options { dss: Some(dss), .. } => again = again.dss(dss),
        Options { fastclose: Some(key), .. } => again = again.fastclose(*key),
        Options { add_addr: Some(add), .. } => again = again.add_addr(add),
        Options { remove_addr: Some(remove), .. } => again = again.remove_addr(remove),
        Options { mp_prio: Some(prio), .. } => again = again.mp_prio(prio),
        Options { mp_fail: Some(sequence), .. } => again = again.mp_fail(*sequence),
        Options { tcprst: Some(TcpRst { transient, reason }), .. } => {
            again = again.tcprst(*transient, *reason)
        }
        _ => return,
    }
    let frame = again.build();
    let parsed = parse(&frame, frame.len());
    assert_eq!(parsed.kind, Kind::Tcp);
    assert_eq!(parsed.tcp.flags, flags);
    assert_eq!(options(parsed.tcp_options(&frame), flags, payload), *alone);
}

/// Handshakes that state tokens: a byte of flags, a byte whose bits are payload, flag G and flag E, then the options.
pub fn explicit(bytes: &[u8]) {
    let [flags, bits, bytes @ ..] = bytes else {
        return;
    };
    let (flags, payload) = (Flags(*flags), bits & 1 == 1);
    let read = |drafts, bytes: &[u8]| packet::explicit(bytes, flags, payload, drafts);
    let both = Drafts::new(true, true);
    let said = read(Drafts::new(bits & 2 != 0, bits & 4 != 0), bytes);
    let bytes = &bytes[..bytes.len().min(40)];
    assert_eq!(read(Drafts::default(), bytes), None, "nobody asked");
    assert_eq!(read(both, bytes), explicit_by_hand(bytes, flags, payload));
    assert!(said.is_none() || said == read(both, bytes), "who understands more reads the same");
    let Some(said) = said else { return };
    assert_eq!(options(bytes, flags, payload).join, None);
    // What was read, written with the flag of either draft, is read again.
    for flag in [0x02, 0x08] {
        let word = |token: packet::Token| token.0.to_be_bytes();
        let (body, mapping): (Vec<u8>, &[u8]) = match said {
            Explicit::Offer => (Vec::new(), &[]),
            Explicit::Answer { token } => (word(token).to_vec(), &[]),
            Explicit::Tokens { sender, receiver } => {
                ([word(sender), word(receiver)].concat(), if payload { &[0, 1] } else { &[] })
            }
        };
        let len = u8::try_from(4 + body.len() + mapping.len()).unwrap();
        let option = [&[30, len, 0x01, flag], &body[..], mapping].concat();
        assert_eq!(read(both, &option), Some(said));
    }
}

/// The same with indices, from the drafts' figures.
fn explicit_by_hand(bytes: &[u8], flags: Flags, payload: bool) -> Option<Explicit> {
    let (found, _) = walk(bytes);
    let of = |subtype| {
        found.iter().find(move |option| option.len() > 2 && option[0] == 30 && option[2] >> 4 == subtype)
    };
    let option = of(0).filter(|_| of(1).is_none())?;
    if flags.rst() || option.len() < 4 || option[2] != 1 || option[3] & 0x40 != 0 {
        return None;
    }
    let token = |at: usize| packet::Token(u32::from_be_bytes(option[at..at + 4].try_into().unwrap()));
    let (g, e) = (option[3] & 2 != 0, option[3] & 8 != 0);
    let (h, others) = (option[3] & 1 != 0, option[3] & 0x14 != 0);
    if others || !(g || e) {
        return None;
    }
    let one = g != e && !h;
    match (flags.syn(), flags.ack(), option.len()) {
        (true, false, 4) => Some(Explicit::Offer),
        (true, true, 8) if one => Some(Explicit::Answer { token: token(4) }),
        (false, true, len) if one && (len == 12 && !payload || [14, 16].contains(&len) && payload) => {
            Some(Explicit::Tokens { sender: token(4), receiver: token(8) })
        }
        _ => None,
    }
}

/// The walk as one would write it with indices: what it finds, and whether it came to the end.
fn walk(bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            0 => return (found, true),
            1 => at += 1,
            _ => {
                if at + 1 >= bytes.len() {
                    return (found, false);
                }
                let len = usize::from(bytes[at + 1]);
                if len < 2 || at + len > bytes.len() {
                    return (found, false);
                }
                found.push(&bytes[at..at + len]);
                at += len;
            }
        }
    }
    (found, true)
}

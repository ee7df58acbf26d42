//! Events of the kernel's path manager: the generic-netlink family `mptcp_pm`, group `mptcp_pm_events` (linux/mptcp.h).

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, McastGrpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{KernelError, attributes, make_room, number, open};
use crate::wire::{Event, Kind, Token};

/// The family and its group of events.
const FAMILY: &str = "mptcp_pm";
const GROUP: &str = "mptcp_pm_events";

/// Room for events that come while nobody takes them: some ten thousands.
const ROOM: usize = 16 << 20;

/// Bytes of the generic-netlink header: command, version, two reserved.
const GENL_HEADER: usize = 4;

/// What the kernel says next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Something happened.
    Event(Event),
    /// More happened than there was room for: what, nobody knows. What follows happened after this.
    Lost,
}

/// A subscription.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    family: u16,
}

impl Events {
    /// Subscribes. What happens from now on is not missed.
    pub fn subscribe() -> Result<Self, KernelError> {
        let socket = open(NETLINK_GENERIC)?;
        let (family, group) = resolve(&socket)?;
        make_room(&socket, ROOM);
        socket.add_membership(group).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                KernelError::NotPermitted { what: "listening to MPTCP events" }
            }
            _ => KernelError::Refused { what: "the subscription to MPTCP events", error },
        })?;
        Ok(Self { socket, family })
    }

    /// Waits for the next datagram and shows `say` what it says.
    pub fn wait(&self, mut say: impl FnMut(Said)) -> Result<(), KernelError> {
        let datagram = match self.socket.recv_from_full() {
            Ok((datagram, _)) => datagram,
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                discard(&self.socket)?;
                say(Said::Lost);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for message in messages(&datagram) {
            if message.message_type() == self.family
                && let Some(event) = parse(message.payload())
            {
                say(Said::Event(event));
            }
        }
        Ok(())
    }
}

/// Empties the queue of a socket that had no room. The kernel says so before it hands out what was queued earlier, and adds
/// nothing to the queue until all of that is taken (`NETLINK_S_CONGESTED`). So a dump is whole only if it begins after this,
/// and what is taken here is older than the dump.
fn discard(socket: &Socket) -> io::Result<()> {
    // The rest of a datagram goes with its beginning.
    let mut beginning = [0_u8; 16];
    loop {
        match rustix::net::recv(socket, &mut beginning, RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The whole messages of a datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        // Aligned to four bytes, as all of netlink; at least a header, so this ends.
        let length = usize::try_from(message.length()).ok()?.next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// The numbers of the family and of its group.
fn resolve(socket: &Socket) -> Result<(u16, u32), KernelError> {
    const WHAT: &str = "the question for MPTCP's netlink family";
    let question =
        GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())] };
    let mut message = NetlinkMessage::from(GenlMessage::from_payload(question));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let unreadable = |detail: String| KernelError::Unreadable { what: WHAT, detail };
    let answer = NetlinkMessage::<GenlMessage<GenlCtrl>>::deserialize(&answer)
        .map_err(|error| unreadable(error.to_string()))?;
    let attributes = match answer.payload {
        NetlinkPayload::InnerMessage(family) => family.payload.nlas,
        NetlinkPayload::Error(error) if error.to_io().kind() == io::ErrorKind::NotFound => {
            return Err(KernelError::NoMptcp);
        }
        NetlinkPayload::Error(error) => {
            return Err(KernelError::Refused { what: WHAT, error: error.to_io() });
        }
        _ => return Err(unreadable("no family in it".to_owned())),
    };
    let (mut family, mut group) = (None, None);
    for attribute in attributes {
        match attribute {
            GenlCtrlAttrs::FamilyId(id) => family = Some(id),
            GenlCtrlAttrs::McastGroups(groups) => group = groups.iter().find_map(|group| group_of(group)),
            _ => {}
        }
    }
    // A kernel before 5.12 has the family and not the events.
    family.zip(group).ok_or(KernelError::NoMptcp)
}

fn group_of(group: &[McastGrpAttrs]) -> Option<u32> {
    let is_it = |attribute: &McastGrpAttrs| matches!(attribute, McastGrpAttrs::Name(name) if name == GROUP);
    group.iter().any(is_it).then(|| {
        group.iter().find_map(|attribute| match attribute {
            McastGrpAttrs::Id(id) => Some(*id),
            McastGrpAttrs::Name(_) => None,
        })
    })?
}

/// `enum mptcp_event_type`: those that are told on.
fn kind(command: u8) -> Option<Kind> {
    match command {
        1 => Some(Kind::Created),
        2 => Some(Kind::Established),
        3 => Some(Kind::Closed),
        10 => Some(Kind::SubEstablished),
        11 => Some(Kind::SubClosed),
        _ => None,
    }
}

/// The event of a generic-netlink message; `None` for one that is not told on, or lacks what an event must have.
fn parse(message: &[u8]) -> Option<Event> {
    let kind = kind(*message.first()?)?;
    let mut token = None;
    let (mut local, mut remote) = (None, None);
    let (mut local_port, mut remote_port) = (None, None);
    // `enum mptcp_event_attr`. Addresses and ports are in network order, the token in the machine's.
    attributes(message.get(GENL_HEADER..)?, |attribute, value| match attribute {
        1 => token = number(value),
        5 | 6 => local = address(value),
        7 | 8 => remote = address(value),
        9 => local_port = port(value),
        10 => remote_port = port(value),
        _ => {}
    });
    let end = |address: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(address?, port?));
    let (local, remote) = (end(local, local_port), end(remote, remote_port));
    let needs_addresses = kind != Kind::Closed;
    if needs_addresses && (local.is_none() || remote.is_none()) {
        return None;
    }
    Some(Event { kind, token: Token(token?), local, remote })
}

/// Four or sixteen octets. IPv4 on an IPv6 socket is IPv4.
fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(octets));
    }
    let octets = <[u8; 16]>::try_from(value).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
}

fn port(value: &[u8]) -> Option<u16> {
    value.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::test_support::attribute;
    use super::*;

    /// An event as Linux 6.18 sends it: `mptcp_event_put_token_and_ssk`, with the loc_id that is not told on.
    fn event(command: u8, with_ports: bool) -> Vec<u8> {
        let mut bytes = vec![command, 1, 0, 0];
        bytes.extend(attribute(1, &0x913e_6c21_u32.to_ne_bytes()));
        bytes.extend(attribute(2, &2_u16.to_ne_bytes()));
        bytes.extend(attribute(3, &[0]));
        bytes.extend(attribute(5, &[10, 9, 9, 9]));
        bytes.extend(attribute(7, &[10, 0, 2, 1]));
        if with_ports {
            bytes.extend(attribute(9, &8000_u16.to_be_bytes()));
            bytes.extend(attribute(10, &40_000_u16.to_be_bytes()));
        }
        bytes
    }

    #[test]
    fn after_a_loss_nothing_from_before_it_is_told_and_all_from_then_on_is() {
        // The kernel's acknowledgements fill the queue as its events do, and need neither connections nor a capability.
        let events = Events { socket: open(NETLINK_GENERIC).unwrap(), family: u16::MAX };
        events.socket.set_rx_buf_sz(4096_u32).unwrap();
        let ask = |number: u32| {
            // `NLMSG_NOOP` with `NLM_F_ACK`.
            let kind = [1_u16.to_ne_bytes(), 5_u16.to_ne_bytes()].concat();
            let whole = [&16_u32.to_ne_bytes()[..], &kind, &number.to_ne_bytes(), &[0; 4]].concat();
            events.socket.send(&whole, 0).unwrap();
        };
        let answered = || {
            let (datagram, _) = events.socket.recv_from_full().unwrap();
            messages(&datagram).next().unwrap().sequence_number()
        };
        ask(1);
        assert_eq!(answered(), 1);
        for _ in 0..1000 {
            ask(1);
        }
        let mut told = Vec::new();
        events.wait(|said| told.push(said)).unwrap();
        assert_eq!(told, [Said::Lost]);
        ask(2);
        assert_eq!(answered(), 2, "nothing older is left, and the queue takes again what comes");
    }

    #[test]
    fn an_event_has_its_token_and_both_ends() {
        let expected = Event {
            kind: Kind::SubEstablished,
            token: Token(0x913e_6c21),
            local: Some("10.9.9.9:8000".parse().unwrap()),
            remote: Some("10.0.2.1:40000".parse().unwrap()),
        };
        assert_eq!(parse(&event(10, true)), Some(expected));
        assert_eq!(parse(&event(10, false)), None, "a subflow without ports is none");
        assert_eq!(parse(&event(3, false)).map(|event| event.kind), Some(Kind::Closed));
        assert_eq!(parse(&event(6, true)), None, "ANNOUNCED is not told on");
    }

    #[test]
    fn an_event_cut_off_anywhere_is_none_or_has_all_it_needs() {
        let whole = event(10, true);
        for length in 0..whole.len() {
            if let Some(event) = parse(&whole[..length]) {
                assert!(event.local.is_some() && event.remote.is_some(), "cut at {length}");
            }
        }
        assert_eq!(messages(&[0; 40]).count(), 0, "a length of zero ends it");
    }
}

//! MAC addresses of next hops to backends that have none in the configuration, from the kernel's neighbour table.
//!
//! The kernel resolves; we make it do so, and listen. It keeps watch only over neighbours it sends to itself, and it
//! sends nothing to backends: Weft does, past it. So a neighbour that took another MAC address would stay in its
//! table as it was. Therefore:
//! - what has no usable entry is resolved by a UDP datagram to the discard port (RFC 863), the smallest thing that
//!   provokes ARP or neighbour discovery, at once when the kernel says that it failed;
//! - what has one is probed every [`PROBE`]: its entry is put into the kernel's state "probe" (RFC 4861 section
//!   7.3.3, and the same for ARP), in which the kernel asks that very MAC address three times, a second apart. Where
//!   nobody answers, the entry fails, and the address is resolved anew.
//!
//! A new MAC address is so followed within about ten seconds without a word from the neighbour, and at once when it
//! announces itself. What was once resolved is kept while the kernel knows nothing better: a stale MAC serves better
//! than none. A backend behind a gateway is reached by the gateway's MAC (`Config::next_hops`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::net::UdpSocket;

use crate::control::Control;

/// Pause between two tries for what is not resolved.
const TRY: Duration = Duration::from_secs(1);
/// Least pause between two probes of what is resolved.
const PROBE: Duration = Duration::from_secs(3);
/// And for each neighbour so much, so that thousands of them are not asked all at once.
const PROBE_EACH: Duration = Duration::from_millis(5);
/// Pause before the netlink socket is opened again after it failed.
const REOPEN: Duration = Duration::from_secs(5);
/// The discard service.
const DISCARD: u16 = 9;

/// What is to be done about an entry of the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// Nothing: it is configured by hand, or the kernel is at it.
    Leave,
    /// Ask whether the MAC is still right.
    Probe,
    /// Resolve.
    Provoke,
}

/// Resolves for as long as the process lives.
pub async fn watch(control: Arc<Control>) {
    loop {
        if let Err(error) = follow(&control).await {
            log::warn!(
                "the kernel's neighbour table cannot be read ({error}); give each backend its mac, or wait"
            );
        }
        tokio::time::sleep(REOPEN).await;
    }
}

async fn follow(control: &Control) -> Result<(), rtnetlink::Error> {
    let (connection, handle, mut messages) = new_multicast_connection(&[MulticastGroup::Neigh])
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let mut probed: Option<Instant> = None;
    let result = loop {
        let wanted = control.wanted_neighbours();
        let pause = PROBE.max(PROBE_EACH * u32::try_from(wanted.len()).unwrap_or(u32::MAX));
        let due = probed.is_none_or(|probed| probed.elapsed() >= pause);
        let needed = due || wanted.values().any(|known| !known);
        if needed && let Err(error) = resolve(control, &handle, &wanted, due).await {
            break Err(error);
        }
        if due {
            probed = Some(Instant::now());
        }
        let next_try = tokio::time::sleep(TRY);
        tokio::pin!(next_try);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some((message, _)) => take_news(control, &wanted, message).await,
                    None => break,
                },
                () = control.changed() => break,
                () = &mut next_try => break,
            }
        }
        if connection.is_finished() {
            break Ok(());
        }
    };
    connection.abort();
    result
}

/// Looks up what is wanted, provokes the kernel into resolving what is not there, and, if `probe`, into asking again
/// about what is.
async fn resolve(
    control: &Control,
    handle: &Handle,
    wanted: &BTreeMap<IpAddr, bool>,
    probe: bool,
) -> Result<(), rtnetlink::Error> {
    let mut entries: BTreeMap<IpAddr, (u32, Care)> = BTreeMap::new();
    let mut table = std::pin::pin!(handle.neighbours().get().execute());
    while let Some(neighbour) = table.try_next().await? {
        learn(control, wanted, &neighbour);
        let Some(address) = destination(&neighbour).filter(|address| wanted.contains_key(address)) else {
            continue;
        };
        let found = (neighbour.header.ifindex, care(&neighbour));
        // Of two interfaces that know the address, the one that resolved it counts.
        let entry = entries.entry(address).or_insert(found);
        if entry.1 == Care::Provoke {
            *entry = found;
        }
    }
    for address in wanted.keys() {
        match entries.get(address) {
            Some((_, Care::Leave)) => {}
            Some((index, Care::Probe)) if probe => ask_again(handle, *index, *address).await,
            Some((_, Care::Probe)) => {}
            Some((_, Care::Provoke)) | None => provoke(*address).await,
        }
    }
    Ok(())
}

/// Puts the kernel's entry into the state in which it asks the neighbour whether it is still there. Without the right
/// to do so (CAP_NET_ADMIN), a datagram makes the kernel ask once its entry is stale: slower, by up to a minute.
async fn ask_again(handle: &Handle, index: u32, address: IpAddr) {
    let request = handle.neighbours().add(index, address).state(NeighbourState::Probe).replace();
    if let Err(error) = request.execute().await {
        log::debug!("the kernel does not probe {address} for us: {error}");
        provoke(address).await;
    }
}

async fn take_news(
    control: &Control,
    wanted: &BTreeMap<IpAddr, bool>,
    message: NetlinkMessage<RouteNetlinkMessage>,
) {
    if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) = message.payload {
        learn(control, wanted, &neighbour);
        let failed = destination(&neighbour).filter(|address| wanted.get(address) == Some(&true));
        // What was there a moment ago is likely back under another MAC: that must not wait for the next try.
        if let Some(address) = failed.filter(|_| neighbour.header.state == NeighbourState::Failed) {
            provoke(address).await;
        }
    }
}

fn learn(control: &Control, wanted: &BTreeMap<IpAddr, bool>, neighbour: &NeighbourMessage) {
    let Some((address, mac)) = resolved(neighbour) else {
        return;
    };
    if wanted.contains_key(&address) && control.learn_neighbour(address, mac) {
        log::info!("next hop {address} is at {}", config::format_mac(mac));
    }
}

fn care(neighbour: &NeighbourMessage) -> Care {
    match neighbour.header.state {
        // Noarp: an interface without MAC addresses.
        NeighbourState::Permanent | NeighbourState::Noarp => Care::Leave,
        NeighbourState::Incomplete | NeighbourState::Probe => Care::Leave,
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay => Care::Probe,
        _ => Care::Provoke,
    }
}

fn destination(neighbour: &NeighbourMessage) -> Option<IpAddr> {
    if neighbour.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// The address and MAC of an entry that the kernel itself would send by.
fn resolved(neighbour: &NeighbourMessage) -> Option<(IpAddr, [u8; 6])> {
    let usable = matches!(
        neighbour.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    let address = destination(neighbour)?;
    let mac: [u8; 6] = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })?;
    (usable && mac != [0; 6] && mac[0] & 1 == 0).then_some((address, mac))
}

/// Makes the kernel resolve an address. That it cannot send is no news: the status shows what is unresolved.
async fn provoke(address: IpAddr) {
    let own: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sent = match UdpSocket::bind((own, 0)).await {
        Ok(socket) => socket.send_to(&[], (address, DISCARD)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        log::debug!("nothing can be sent to {address}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: NeighbourState, mac: &[u8]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 1, 11))),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        message
    }

    #[test]
    fn an_entry_the_kernel_would_send_by_is_taken() {
        let mac = [2, 0, 0, 0, 3, 1];
        for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Permanent] {
            assert_eq!(resolved(&entry(state, &mac)), Some((IpAddr::from([10, 0, 1, 11]), mac)));
        }
    }

    #[test]
    fn an_entry_without_a_station_behind_it_is_not_taken() {
        let mac = [2, 0, 0, 0, 3, 1];
        for state in [NeighbourState::Incomplete, NeighbourState::Failed, NeighbourState::Noarp] {
            assert_eq!(resolved(&entry(state, &mac)), None);
        }
        assert_eq!(resolved(&entry(NeighbourState::Reachable, &[0; 6])), None);
        assert_eq!(resolved(&entry(NeighbourState::Reachable, &[0xff; 6])), None);
        assert_eq!(resolved(&entry(NeighbourState::Reachable, &[2, 0])), None);
    }

    #[test]
    fn each_state_of_an_entry_gets_the_care_it_needs() {
        let care = |state| super::care(&entry(state, &[2, 0, 0, 0, 3, 1]));
        for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Delay] {
            assert_eq!(care(state), Care::Probe, "nobody else watches over it");
        }
        for state in [NeighbourState::Failed, NeighbourState::None] {
            assert_eq!(care(state), Care::Provoke);
        }
        for state in [NeighbourState::Permanent, NeighbourState::Probe, NeighbourState::Incomplete] {
            assert_eq!(care(state), Care::Leave);
        }
    }

    #[test]
    fn an_address_the_kernel_answers_for_is_no_neighbour() {
        let mut proxy = entry(NeighbourState::Permanent, &[2, 0, 0, 0, 3, 1]);
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(resolved(&proxy), None);
    }
}

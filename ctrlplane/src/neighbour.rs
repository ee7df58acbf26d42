//! MAC addresses of backends that have none in the configuration, from the kernel's neighbour table.
//!
//! The kernel resolves and keeps watch; we only make it do so (a UDP datagram to the discard port, RFC 863, is
//! the smallest thing that provokes ARP or neighbour discovery) and listen. What was once resolved is kept when
//! the kernel forgets it: a stale MAC serves better than none, and a new one comes as news.
//!
//! Only neighbours on link are found. A backend behind a router needs its `mac` given: the router's.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::net::UdpSocket;

use crate::control::Control;

/// Pause between two tries for what is not resolved.
const TRY: Duration = Duration::from_secs(1);
/// Pause between two checks of what is resolved: keeps the kernel's entry alive, so that a change is seen.
const REFRESH: Duration = Duration::from_secs(30);
/// Pause before the netlink socket is opened again after it failed.
const REOPEN: Duration = Duration::from_secs(5);
/// The discard service.
const DISCARD: u16 = 9;

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
    let mut refreshed: Option<Instant> = None;
    let result = loop {
        let refresh = refreshed.is_none_or(|refreshed| refreshed.elapsed() >= REFRESH);
        if let Err(error) = resolve(control, &handle, refresh).await {
            break Err(error);
        }
        if refresh {
            refreshed = Some(Instant::now());
        }
        let next_try = tokio::time::sleep(TRY);
        tokio::pin!(next_try);
        let wanted: HashSet<IpAddr> =
            control.wanted_neighbours().into_iter().map(|(address, _)| address).collect();
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some((message, _)) => take_news(control, &wanted, message),
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

/// Looks up what is wanted, and provokes the kernel into resolving what is not there.
async fn resolve(control: &Control, handle: &Handle, refresh: bool) -> Result<(), rtnetlink::Error> {
    let wanted = control.wanted_neighbours();
    if wanted.iter().any(|(_, known)| !known) || (refresh && !wanted.is_empty()) {
        let addresses: HashSet<IpAddr> = wanted.iter().map(|(address, _)| *address).collect();
        let mut table = std::pin::pin!(handle.neighbours().get().execute());
        while let Some(neighbour) = table.try_next().await? {
            learn(control, &addresses, &neighbour);
        }
    }
    for (address, known) in control.wanted_neighbours() {
        if !known || refresh {
            provoke(address).await;
        }
    }
    Ok(())
}

fn take_news(control: &Control, wanted: &HashSet<IpAddr>, message: NetlinkMessage<RouteNetlinkMessage>) {
    if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) = message.payload {
        learn(control, wanted, &neighbour);
    }
}

fn learn(control: &Control, wanted: &HashSet<IpAddr>, neighbour: &NeighbourMessage) {
    let Some((address, mac)) = resolved(neighbour) else {
        return;
    };
    if wanted.contains(&address) && control.learn_neighbour(address, mac) {
        log::info!("backend address {address} is at {}", config::format_mac(mac));
    }
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
    let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
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
        log::debug!("nothing can be sent to backend address {address}: {error}");
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
}

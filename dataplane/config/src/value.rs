//! Values with a form of their own: MAC addresses, IP addresses, prefixes. Each error is half a sentence that
//! fits after the value in quotes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::Prefix;
use crate::problem::{At, Report};

/// Reads `02:00:00:00:02:01`; refuses what no station may have (multicast, all zero).
pub fn parse_mac(text: &str) -> Result<[u8; 6], &'static str> {
    const FORM: &str =
        "is not a MAC address; write six hexadecimal bytes with colons, as in 02:00:00:00:02:01";
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().ok_or(FORM)?;
        if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(FORM);
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| FORM)?;
    }
    if parts.next().is_some() {
        return Err(FORM);
    }
    if mac == [0; 6] {
        return Err("is all zero; give the interface's own MAC address");
    }
    if mac[0] & 1 == 1 {
        return Err("is a multicast MAC address; give the interface's own");
    }
    Ok(mac)
}

/// Reads an address with a port, as sockets have them.
pub(crate) fn read_socket(text: &At<&str>, example: &str, report: &mut Report<'_>) -> Option<SocketAddr> {
    let address = text.value.parse().ok();
    if address.is_none() {
        report.problem(
            &text.span,
            format!("\"{}\" is no address with a port; write it as \"{example}\"", text.value),
        );
    }
    address
}

/// Writes a MAC address as [`parse_mac`] reads it.
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads an address that a host may have. The error is half a sentence that fits after the text in quotes.
pub fn parse_address(text: &str) -> Result<IpAddr, &'static str> {
    let address: IpAddr = text.parse().map_err(|_| {
        if text.contains('/') {
            "has a prefix length where a plain IP address is needed; remove it"
        } else {
            "is not an IP address; write it as in 10.9.9.9 or fd99::9"
        }
    })?;
    check_address(address)?;
    Ok(address)
}

/// Reads `10.0.1.254/24`: a host's address and the length of its network's prefix.
pub(crate) fn parse_prefix(text: &str) -> Result<Prefix, &'static str> {
    const FORM: &str =
        "is not an address with a prefix length; write it as in 10.0.1.254/24 or fd00:1::254/64";
    let (address, length) = text.split_once('/').ok_or(FORM)?;
    let address: IpAddr = address.parse().map_err(|_| FORM)?;
    check_address(address)?;
    if length.is_empty() || !length.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(FORM);
    }
    let length: u8 = length.parse().map_err(|_| FORM)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if length == 0 || length > longest {
        return Err("has a bad prefix length; it goes from 1 to 32 for IPv4 and from 1 to 128 for IPv6");
    }
    Ok(Prefix { address, length })
}

fn check_address(address: IpAddr) -> Result<(), &'static str> {
    if address.is_unspecified() {
        return Err("is the unspecified address; give one that a host has");
    }
    if address.is_multicast() {
        return Err("is a multicast address; Weft carries unicast only");
    }
    if address.is_loopback() {
        return Err("is a loopback address; it never comes in by a port");
    }
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Err("is the broadcast address; Weft carries unicast only"),
        // Inside, an IPv4 address is written as a mapped one, so the two must not both be sayable.
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err("is an IPv4 address mapped into IPv6; write it as IPv4")
        }
        _ => Ok(()),
    }
}

/// Applies a reader to each text; reports those it refuses.
pub(crate) fn read_all<T>(
    texts: Vec<At<&str>>,
    report: &mut Report<'_>,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Vec<At<T>> {
    texts.into_iter().filter_map(|text| read_one(text, report, &read)).collect()
}

/// Applies a reader to a text; reports it if refused.
pub(crate) fn read_one<T>(
    text: At<&str>,
    report: &mut Report<'_>,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Option<At<T>> {
    match read(text.value) {
        Ok(value) => Some(At { value, span: text.span }),
        Err(reason) => {
            report.problem(&text.span, format!("\"{}\" {reason}", text.value));
            None
        }
    }
}

/// At most one address of each family, as backends and tunnel sources have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

/// Splits addresses by family; reports a second one of a family.
pub(crate) fn pair(addresses: &[At<IpAddr>], key: &str, report: &mut Report<'_>) -> Pair {
    let mut pair = Pair::default();
    for address in addresses {
        let second = match address.value {
            IpAddr::V4(v4) => pair.v4.replace(v4).is_some(),
            IpAddr::V6(v6) => pair.v6.replace(v6).is_some(),
        };
        if second {
            let family = if address.value.is_ipv4() { "IPv4" } else { "IPv6" };
            report.problem(
                &address.span,
                format!("a second {family} address in `{key}`; keep one of each family"),
            );
        }
    }
    pair
}

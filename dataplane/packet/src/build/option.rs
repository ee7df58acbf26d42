//! MPTCP options, each from the type the parser gives back.

use alloc::vec::Vec;

use super::PacketBuilder;
use super::write::length;
use crate::checksum;
use crate::flow::Family;
use crate::mptcp::{
    AddAddr, Capable, CapableFlags, DataSequence, Dss, Join, Mapping, MpPrio, RemoveAddr, ResetReason,
    TcpRst, subtype,
};
use crate::token::{Key, Token, Version};

/// MPTCP options, each from the type the parser gives back.
impl PacketBuilder {
    /// MP_CAPABLE in any form. [`Capable::Ack`] is written with what it has: a version 1 form without payload has
    /// no data length.
    pub fn mp_capable(self, capable: &Capable) -> Self {
        match capable {
            Capable::Syn { version, flags, sender: None } => {
                self.mptcp(subtype::CAPABLE, *version as u8, &[&[flags.0]])
            }
            Capable::Syn { version, flags, sender: Some(key) }
            | Capable::SynAck { version, flags, sender: key } => {
                self.mptcp(subtype::CAPABLE, *version as u8, &[&[flags.0], &key.0])
            }
            Capable::Ack { version, flags, sender, receiver, data_len, checksum } => {
                let len = data_len.map(u16::to_be_bytes);
                let checksum = checksum.map(u16::to_be_bytes);
                self.mptcp(
                    subtype::CAPABLE,
                    *version as u8,
                    &[&[flags.0], &sender.0, &receiver.0, part(&len), part(&checksum)],
                )
            }
        }
    }

    /// A version 1 SYN: 4 bytes.
    pub fn mp_capable_syn_v1(self) -> Self {
        let (version, flags) = (Version::V1, CapableFlags::HMAC);
        self.mp_capable(&Capable::Syn { version, flags, sender: None })
    }

    /// A version 0 SYN: 12 bytes.
    pub fn mp_capable_syn_v0(self, sender: Key) -> Self {
        let (version, flags) = (Version::V0, CapableFlags::HMAC);
        self.mp_capable(&Capable::Syn { version, flags, sender: Some(sender) })
    }

    /// A SYN/ACK: 12 bytes.
    pub fn mp_capable_syn_ack(self, version: Version, sender: Key) -> Self {
        self.mp_capable(&Capable::SynAck { version, flags: CapableFlags::HMAC, sender })
    }

    /// The third packet: 20 bytes.
    pub fn mp_capable_ack(self, version: Version, sender: Key, receiver: Key) -> Self {
        let (flags, data_len, checksum) = (CapableFlags::HMAC, None, None);
        self.mp_capable(&Capable::Ack { version, flags, sender, receiver, data_len, checksum })
    }

    /// The first data of version 1 with this payload: 22 bytes.
    pub fn mp_capable_data(self, sender: Key, receiver: Key, payload: &[u8]) -> Self {
        let (version, flags) = (Version::V1, CapableFlags::HMAC);
        let data_len = Some(length(payload.len()));
        self.mp_capable(&Capable::Ack { version, flags, sender, receiver, data_len, checksum: None })
            .payload(payload)
    }

    /// The first data of version 1 with this payload and DSS checksum: 24 bytes.
    pub fn mp_capable_data_checksum(self, sender: Key, receiver: Key, payload: &[u8]) -> Self {
        let (version, flags) = (Version::V1, CapableFlags(CapableFlags::HMAC.0 | CapableFlags::CHECKSUM.0));
        let len = length(payload.len());
        let first = crate::token::initial_data_sequence(version, &sender).wrapping_add(1);
        let (data_len, checksum) = (Some(len), Some(dss_checksum(first, 1, len, payload)));
        self.mp_capable(&Capable::Ack { version, flags, sender, receiver, data_len, checksum })
            .payload(payload)
    }

    /// MP_JOIN in any form.
    pub fn mp_join(self, join: &Join) -> Self {
        match join {
            Join::Syn { token, nonce, address_id, backup } => self.mptcp(
                subtype::JOIN,
                u8::from(*backup),
                &[&[*address_id], &token.0.to_be_bytes(), &nonce.to_be_bytes()],
            ),
            Join::SynAck { hmac, nonce, address_id, backup } => {
                self.mptcp(subtype::JOIN, u8::from(*backup), &[&[*address_id], hmac, &nonce.to_be_bytes()])
            }
            Join::Ack { hmac } => self.mptcp(subtype::JOIN, 0, &[&[0], hmac]),
        }
    }

    /// The SYN of a join: 12 bytes.
    pub fn mp_join_syn(self, token: Token, nonce: u32, address_id: u8) -> Self {
        self.mp_join(&Join::Syn { token, nonce, address_id, backup: false })
    }

    /// The third packet of a join: 24 bytes.
    pub fn mp_join_ack(self, hmac: [u8; 20]) -> Self {
        self.mp_join(&Join::Ack { hmac })
    }

    /// DSS in any form.
    pub fn dss(self, dss: &Dss) -> Self {
        let mut flags = if dss.data_fin { 0x10 } else { 0 };
        let mut body = Vec::new();
        if let Some(ack) = dss.data_ack {
            flags |= 0x01 | if push_sequence(&mut body, ack) { 0x02 } else { 0 };
        }
        if let Some(mapping) = dss.mapping {
            flags |= 0x04 | if push_sequence(&mut body, mapping.sequence) { 0x08 } else { 0 };
            body.extend(mapping.subflow_sequence.to_be_bytes());
            body.extend(mapping.len.to_be_bytes());
            body.extend_from_slice(part(&mapping.checksum.map(u16::to_be_bytes)));
        }
        self.mptcp(subtype::DSS, 0, &[&[flags], &body])
    }

    /// A DSS that only acknowledges: 12 bytes.
    pub fn dss_ack(self, ack: u64) -> Self {
        self.dss(&Dss { data_fin: false, data_ack: Some(DataSequence::Long(ack)), mapping: None })
    }

    /// A DSS that maps this payload: 26 bytes.
    pub fn dss_data(self, ack: u64, sequence: u64, subflow_sequence: u32, payload: &[u8]) -> Self {
        let sequence = DataSequence::Long(sequence);
        let mapping = Mapping { sequence, subflow_sequence, len: length(payload.len()), checksum: None };
        self.dss(&Dss { data_fin: false, data_ack: Some(DataSequence::Long(ack)), mapping: Some(mapping) })
            .payload(payload)
    }

    /// A DATA_FIN alone: 26 bytes.
    pub fn data_fin(self, ack: u64, sequence: u64) -> Self {
        let sequence = DataSequence::Long(sequence);
        let mapping = Mapping { sequence, subflow_sequence: 0, len: 1, checksum: None };
        self.dss(&Dss { data_fin: true, data_ack: Some(DataSequence::Long(ack)), mapping: Some(mapping) })
    }

    /// ADD_ADDR in any form. The longest (IPv6, port, HMAC) leaves no room for timestamps.
    pub fn add_addr(self, add: &AddAddr) -> Self {
        let nibble = match (add.version, add.family) {
            (Version::V0, Family::V4) => 4,
            (Version::V0, Family::V6) => 6,
            (Version::V1, _) => u8::from(add.echo),
        };
        let (v4, v6) = (add.address.v4_octets(), add.address.v6_octets());
        let address: &[u8] = match add.family {
            Family::V4 => &v4,
            Family::V6 => &v6,
        };
        let port = add.port.map(u16::to_be_bytes);
        self.mptcp(subtype::ADD_ADDR, nibble, &[&[add.address_id], address, part(&port), part(&add.hmac)])
    }

    /// REMOVE_ADDR.
    pub fn remove_addr(self, remove: &RemoveAddr) -> Self {
        self.mptcp(subtype::REMOVE_ADDR, 0, &[remove.ids()])
    }

    /// MP_PRIO.
    pub fn mp_prio(self, prio: &MpPrio) -> Self {
        let id = prio.address_id.map(|id| [id]);
        self.mptcp(subtype::PRIO, u8::from(prio.backup), &[part(&id)])
    }

    /// MP_FAIL.
    pub fn mp_fail(self, sequence: u64) -> Self {
        self.mptcp(subtype::FAIL, 0, &[&[0], &sequence.to_be_bytes()])
    }

    /// MP_FASTCLOSE with the key of the host it goes to.
    pub fn fastclose(self, receiver: Key) -> Self {
        self.mptcp(subtype::FASTCLOSE, 0, &[&[0], &receiver.0])
    }

    /// MP_TCPRST.
    pub fn tcprst(self, transient: bool, reason: ResetReason) -> Self {
        self.option(&TcpRst { transient, reason }.to_bytes())
    }
}

/// The checksum of a DSS mapping (RFC 8684 section 3.3.1): over the whole data sequence number, the subflow
/// sequence number, the length, and the data.
pub fn dss_checksum(sequence: u64, subflow_sequence: u32, len: u16, data: &[u8]) -> u16 {
    let header = checksum::sum(&sequence.to_be_bytes()) + checksum::sum(&subflow_sequence.to_be_bytes());
    !checksum::fold(header + u64::from(len) + checksum::sum(data))
}

/// Writes it; whether it took 8 bytes.
fn push_sequence(body: &mut Vec<u8>, sequence: DataSequence) -> bool {
    match sequence {
        DataSequence::Short(number) => body.extend(number.to_be_bytes()),
        DataSequence::Long(number) => body.extend(number.to_be_bytes()),
    }
    matches!(sequence, DataSequence::Long(_))
}

fn part<const N: usize>(bytes: &Option<[u8; N]>) -> &[u8] {
    bytes.as_ref().map_or(&[], |bytes| bytes)
}

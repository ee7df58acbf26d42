//! The HMACs a client sends (RFC 8684 sections 3.2 and 3.4.1, RFC 6824 section 3.2). No balancer can check them, but
//! whoever looks at a file should find them right.

use packet::{Key, Version};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Both hashes' block.
const BLOCK: usize = 64;

/// The HMAC that ends a join's handshake, its first 160 bits: key is both keys, message both nonces, the client's first.
#[inline(never)]
pub(super) fn join(version: Version, keys: (&Key, &Key), nonces: (u32, u32)) -> [u8; 20] {
    let key = both(keys);
    let mut message = [0; 8];
    message[..4].copy_from_slice(&nonces.0.to_be_bytes());
    message[4..].copy_from_slice(&nonces.1.to_be_bytes());
    match version {
        Version::V0 => leftmost(&hmac::<Sha1>(&key, &[&message])),
        Version::V1 => leftmost(&hmac::<Sha256>(&key, &[&message])),
    }
}

/// The HMAC of a version 1 ADD_ADDR without a port: the rightmost 64 bits.
#[inline(never)]
pub(super) fn add_addr(keys: (&Key, &Key), id: u8, address: &[u8]) -> [u8; 8] {
    let digest = hmac::<Sha256>(&both(keys), &[&[id], address, &[0, 0]]);
    let mut out = [0; 8];
    let (_, end) = digest.split_at(digest.len() - out.len());
    out.copy_from_slice(end);
    out
}

fn both((sender, receiver): (&Key, &Key)) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&sender.0);
    key[8..].copy_from_slice(&receiver.0);
    key
}

fn leftmost(digest: &[u8]) -> [u8; 20] {
    digest.first_chunk().copied().unwrap_or_default()
}

/// RFC 2104.
fn hmac<D: Digest>(key: &[u8; 16], message: &[&[u8]]) -> impl core::ops::Deref<Target = [u8]> + use<D> {
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK];
        for (place, key) in block.iter_mut().zip(key) {
            *place ^= key;
        }
        block
    };
    let mut inner = D::new().chain_update(pad(0x36));
    for part in message {
        inner.update(part);
    }
    D::new().chain_update(pad(0x5c)).chain_update(inner.finalize()).finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Key = Key([1, 2, 3, 4, 5, 6, 7, 8]);
    const SERVER: Key = Key([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_joins_hmac_is_that_of_the_vectors_and_of_a_real_session() {
        let nonces = (0xaabb_ccdd, 0x0123_4567);
        let of = |version| hex(&join(version, (&CLIENT, &SERVER), nonces));
        assert_eq!(of(Version::V1), "c03f011e6f17c9142d3491516b819753c6f341a4");
        assert_eq!(of(Version::V0), "f8a9066d1eb8b54a46db083aa868b9fb33870b9c");
        // Linux 6.18.
        let keys =
            (Key(0xb713_e0cc_8e25_56a5_u64.to_be_bytes()), Key(0xd1fc_9be2_b87d_2fa3_u64.to_be_bytes()));
        let real = join(Version::V1, (&keys.0, &keys.1), (0x0e66_42a6, 0xbc2c_ccb5));
        assert_eq!(hex(&real), "e05fb0e763ce8619e136df8a405112c804e3f74d");
    }

    #[test]
    fn an_add_addrs_hmac_is_that_of_the_vectors() {
        assert_eq!(hex(&add_addr((&SERVER, &CLIENT), 5, &[192, 0, 2, 1])), "e8e331891d7ba497");
        let v6 = "2001:db8::1".parse::<core::net::Ipv6Addr>().unwrap().octets();
        assert_eq!(hex(&add_addr((&SERVER, &CLIENT), 6, &v6)), "63f96cbb97a38fa8");
    }
}

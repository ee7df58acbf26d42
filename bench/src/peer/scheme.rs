//! What a scheme of steering asks of the balancer's configuration, of the servers and of the clients.

use std::fmt::Write as _;
use std::sync::Arc;

use config::Config;
use hashbrown::HashMap;
use ipc::id::BackendId;
use ipc::message::{Scheme, TokenMap};
use steering::cipher::Ciphers;
use steering::ranges::Ranges;

use super::connection::Signal;
use super::issuer::Issuer;

/// How joins find their server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Steering {
    /// Not at all: by their 5-tuple.
    None,
    /// By tokens learned from handshakes.
    Learn,
    /// By the range a token lies in; servers search keys that fit.
    Ranges,
    /// By the server's number, encrypted in the token.
    Cipher,
    /// By the range a token lies in; Weft chooses the keys, and knows later packets by their timestamps.
    ChosenKey,
}

impl Steering {
    /// The lines of `[vip.mptcp]`.
    const fn lines(self) -> &'static str {
        match self {
            Self::None => "steering = []\n",
            Self::Learn => "steering = [\"learn\"]\n",
            Self::Ranges => "steering = [\"token-map\"]\ntoken_map = \"ranges\"\n",
            Self::Cipher => {
                "steering = [\"token-map\"]\ntoken_map = \"cipher\"\n\
                 cipher_key_even = \"0011223344556677\"\ncipher_key_odd = \"8899aabbccddeeff\"\n"
            }
            Self::ChosenKey => {
                "steering = [\"chosen-key\"]\nkey_secret = \"00112233445566778899aabbccddeeff\"\n"
            }
        }
    }

    /// The same, and what Weft has to be told of how clients name themselves.
    fn told(self, signal: Option<Signal>) -> String {
        let explicit = match (self, signal) {
            (Self::Learn, Some(Signal::G)) => "explicit_tokens = [\"G\"]\n",
            (Self::Learn, Some(Signal::E)) => "explicit_tokens = [\"E\"]\n",
            _ => "",
        };
        format!("{}{explicit}", self.lines())
    }

    /// A configuration with a VIP of each family that steers so, and understands how clients name themselves.
    ///
    /// # Errors
    /// `backends` is out of range.
    pub fn configuration(self, backends: u16, signal: Option<Signal>) -> anyhow::Result<Config> {
        let mut text = String::from(
            "[dataplane]\nworkers = [0]\nflows = 100000\ntokens = 100000\n\
             [[dataplane.port]]\ndevice = \"net_null0\"\nmac = \"02:00:00:00:02:01\"\n\
             address = [\"10.0.0.1/16\", \"fd00::1/64\"]\nmtu = 1600\n[[pool]]\nname = \"pool\"\n",
        );
        for n in 1..=backends {
            let [high, low] = n.to_be_bytes();
            // Writing to a String does not fail.
            let _ = write!(
                text,
                "[[pool.backend]]\nname = \"backend-{n}\"\naddress = [\"10.0.{}.{low}\", \"fd00::1:{n:x}\"]\n\
                 mac = \"02:00:00:01:{high:02x}:{low:02x}\"\nnumber = {n}\n",
                1 + high
            );
        }
        let _ = write!(
            text,
            "[[vip]]\nname = \"vip\"\naddress = [\"203.0.113.1\", \"2001:db8:ff::1\"]\nport = 443\n\
             protocol = \"tcp\"\npool = \"pool\"\nforward = \"gue\"\n\
             [vip.mptcp]\n{}unknown_token = \"drop\"\n",
            self.told(signal)
        );
        Config::parse(&text, "the simulator's own configuration").map_err(|problems| {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", list.join("\n"))
        })
    }
}

/// How the servers of a configuration come to their keys, by pool and backend: as the first VIP of their pool asks that
/// asks for anything.
pub fn issuers(config: &Config) -> HashMap<(String, String), Issuer> {
    let mut issuers = HashMap::new();
    for pool in &config.pools {
        let names: Vec<String> = pool.backends.iter().map(|backend| backend.name.to_string()).collect();
        let numbered: Vec<(&str, BackendId)> =
            (0_u16..).zip(&names).map(|(id, name)| (name.as_str(), BackendId(id))).collect();
        let ranges = Arc::new(Ranges::new(numbered.iter().copied()));
        let mut asking = config.vips.iter().filter(|vip| vip.pool == pool.name).map(|vip| &vip.steering);
        let asks = asking.find(|steering| steering.has(Scheme::TokenMap) || steering.has(Scheme::ChosenKey));
        for (backend, (name, own)) in pool.backends.iter().zip(&numbered) {
            let number = backend.handles.number.unwrap_or(0);
            let issuer = match asks {
                Some(asks) if asks.has(Scheme::ChosenKey) => Issuer::Given { number },
                Some(asks) if asks.token_map == TokenMap::Cipher => {
                    let ciphers = Ciphers::new(asks.cipher_keys.map(|key| key.map(|key| key.0)));
                    Issuer::Cipher { ciphers, number }
                }
                Some(_) => Issuer::Ranges { ranges: Arc::clone(&ranges), own: *own },
                None => Issuer::Random,
            };
            issuers.insert((pool.name.to_string(), (*name).to_owned()), issuer);
        }
    }
    issuers
}

/// How clients of a configuration name themselves where nobody says how: an encrypted token fits no key.
pub fn usual_signal(config: &Config) -> Signal {
    let cipher =
        |vip: &config::Vip| vip.steering.has(Scheme::TokenMap) && vip.steering.token_map == TokenMap::Cipher;
    if config.vips.iter().any(cipher) { Signal::E } else { Signal::Keys }
}

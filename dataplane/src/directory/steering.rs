//! How joins are steered, written down. Secrets are among it: the mapping is for its owner's eyes only.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipc::message::{Handles, Scheme, Schemes, Secret, Steering, TokenMap, WrongEndpoint};
use serde::{Deserialize, Serialize};

use super::word;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SteeringText {
    schemes: Vec<String>,
    token_map: String,
    cipher_keys: [Option<[u8; 8]>; 2],
    key_secret: Option<[u8; 16]>,
    application_tokens: bool,
    external_tokens: bool,
    wrong_endpoint: String,
}

impl SteeringText {
    pub(super) fn of(steering: &Steering) -> Self {
        Self {
            schemes: steering.schemes.iter().map(|scheme| scheme.to_string()).collect(),
            token_map: steering.token_map.to_string(),
            cipher_keys: steering.cipher_keys.map(|key| key.map(|Secret(bytes)| bytes)),
            key_secret: steering.key_secret.map(|Secret(bytes)| bytes),
            application_tokens: steering.application_tokens,
            external_tokens: steering.external_tokens,
            wrong_endpoint: steering.wrong_endpoint.to_string(),
        }
    }

    pub(super) fn steering(self) -> anyhow::Result<Steering> {
        let schemes = self.schemes.iter().map(|text| word(Scheme::ALL, text));
        Ok(Steering {
            schemes: Schemes::new(schemes.collect::<anyhow::Result<Vec<_>>>()?),
            token_map: word(TokenMap::ALL, &self.token_map)?,
            cipher_keys: self.cipher_keys.map(|key| key.map(Secret)),
            key_secret: self.key_secret.map(Secret),
            application_tokens: self.application_tokens,
            external_tokens: self.external_tokens,
            wrong_endpoint: word(WrongEndpoint::ALL, &self.wrong_endpoint)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HandlesText {
    number: Option<u16>,
    endpoint_port: Option<u16>,
    endpoint4: Option<Ipv4Addr>,
    endpoint6: Option<Ipv6Addr>,
}

impl HandlesText {
    pub(super) fn of(handles: &Handles) -> Self {
        let Handles { number, endpoint_port, endpoint4, endpoint6 } = *handles;
        Self { number, endpoint_port, endpoint4, endpoint6 }
    }

    pub(super) fn handles(self) -> Handles {
        let Self { number, endpoint_port, endpoint4, endpoint6 } = self;
        Handles { number, endpoint_port, endpoint4, endpoint6 }
    }
}

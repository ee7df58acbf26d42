//! What the ids in the tables mean, written down for the next data plane: the model, as JSON.
//!
//! The text has a version of its own, apart from the tables' layout: [`VERSION`]. What is read is not believed: names
//! are parsed, unknown keys and words refused, and [`Model::restore`] checks the whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use engine::model::{Backend, Model, Pool, Vip};
use ipc::id::{BackendId, PoolId, VipId};
use ipc::message::{BackendState, Forward, Name, Presence, Protocol, UnknownToken};
use serde::{Deserialize, Serialize};

use self::steering::{HandlesText, SteeringText};

mod steering;

/// Raise it when a key changes its meaning, or a new one must not be overlooked.
const VERSION: u32 = 2;

/// No data plane lives to see a later one, and there is always a next.
const LAST_GENERATION: u64 = u64::MAX / 2;

/// What every version begins with.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    version: u32,
    generation: u64,
    pools: Vec<PoolText>,
    vips: Vec<VipText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolText {
    id: u16,
    name: String,
    removed: bool,
    backends: Vec<BackendText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendText {
    id: u16,
    name: String,
    address4: Option<Ipv4Addr>,
    address6: Option<Ipv6Addr>,
    mac: Option<[u8; 6]>,
    weight: u32,
    state: String,
    handles: HandlesText,
    presence: String,
    /// In seconds of CLOCK_BOOTTIME.
    deadline: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VipText {
    id: u16,
    name: String,
    pool: String,
    protocol: String,
    forward: String,
    steering: SteeringText,
    unknown_token: String,
    services: Vec<(IpAddr, u16)>,
}

/// The text of a model and its generation.
///
/// # Errors
/// None that is known of: these values can all be written.
pub fn write(model: &Model, generation: u64) -> anyhow::Result<Vec<u8>> {
    let pools = model.pools().iter().map(pool_text).collect();
    let vips = model.vips().iter().map(vip_text).collect();
    serde_json::to_vec(&Directory { version: VERSION, generation, pools, vips })
        .context("the directory cannot be written down")
}

/// The model and generation of a text.
///
/// # Errors
/// A clause that says why it is not believed.
pub fn read(text: &[u8]) -> anyhow::Result<(Model, u64)> {
    let Versioned { version } = serde_json::from_slice(text).context("it is no directory")?;
    if version != VERSION {
        bail!("it has version {version} and this program knows {VERSION}");
    }
    let directory: Directory = serde_json::from_slice(text).context("it is damaged")?;
    if directory.generation > LAST_GENERATION {
        bail!("it is of generation {}, which cannot be", directory.generation);
    }
    let pools = directory.pools.into_iter().map(pool).collect::<anyhow::Result<_>>()?;
    let vips = directory.vips.into_iter().map(vip).collect::<anyhow::Result<_>>()?;
    match Model::restore(pools, vips) {
        Ok(model) => Ok((model, directory.generation)),
        Err(contradiction) => bail!("it contradicts itself ({contradiction})"),
    }
}

fn pool_text(pool: &Pool) -> PoolText {
    let backend_text = |backend: &Backend| BackendText {
        id: backend.id.0,
        name: backend.name.to_string(),
        address4: backend.address4,
        address6: backend.address6,
        mac: backend.mac,
        weight: backend.weight,
        state: backend.state.to_string(),
        handles: HandlesText::of(&backend.handles),
        presence: backend.presence.to_string(),
        deadline: backend.deadline,
    };
    let backends = pool.backends.iter().map(backend_text).collect();
    PoolText { id: pool.id.0, name: pool.name.to_string(), removed: pool.removed, backends }
}

fn vip_text(vip: &Vip) -> VipText {
    VipText {
        id: vip.id.0,
        name: vip.name.to_string(),
        pool: vip.pool.to_string(),
        protocol: vip.protocol.to_string(),
        forward: vip.forward.to_string(),
        steering: SteeringText::of(&vip.steering),
        unknown_token: vip.unknown_token.to_string(),
        services: vip.services.iter().copied().collect(),
    }
}

fn pool(text: PoolText) -> anyhow::Result<Pool> {
    let backend = |text: BackendText| -> anyhow::Result<Backend> {
        Ok(Backend {
            id: BackendId(text.id),
            name: name(&text.name)?,
            address4: text.address4,
            address6: text.address6,
            mac: text.mac,
            weight: text.weight,
            state: word(BackendState::ALL, &text.state)?,
            handles: text.handles.handles(),
            presence: word(Presence::ALL, &text.presence)?,
            deadline: text.deadline,
        })
    };
    let backends = text.backends.into_iter().map(backend).collect::<anyhow::Result<_>>()?;
    Ok(Pool { id: PoolId(text.id), name: name(&text.name)?, backends, removed: text.removed })
}

fn vip(text: VipText) -> anyhow::Result<Vip> {
    Ok(Vip {
        id: VipId(text.id),
        name: name(&text.name)?,
        pool: name(&text.pool)?,
        protocol: word(Protocol::ALL, &text.protocol)?,
        forward: word(Forward::ALL, &text.forward)?,
        steering: text.steering.steering()?,
        unknown_token: word(UnknownToken::ALL, &text.unknown_token)?,
        services: text.services.into_iter().collect(),
    })
}

fn name(text: &str) -> anyhow::Result<Name> {
    text.parse().with_context(|| format!("it has the name {text:?}"))
}

/// The one of `all` that is said so.
fn word<T: Copy + ToString>(all: &[T], text: &str) -> anyhow::Result<T> {
    let found = all.iter().copied().find(|word| word.to_string() == text);
    found.with_context(|| format!("it says {text:?}, which this program does not know"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ipc::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_VIPS, MAX_WEIGHT};
    use ipc::mapping::MAX_DIRECTORY;
    use ipc::message::{Command, Handles, Scheme, Secret, Steering, WrongEndpoint};

    use super::*;

    /// Something of everything: a removed backend with a deadline, a deleted one, a pool that is no more.
    fn model() -> Model {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let put = |pool: &str, text: &str, state| Command::PutBackend {
            pool: name(pool),
            name: name(text),
            address4: Some([10, 0, 1, 1].into()),
            address6: Some("fd00::1".parse().unwrap()),
            mac: Some([2, 0, 0, 0, 3, 255]),
            weight: 9,
            state,
            handles: Handles {
                number: Some(7),
                endpoint_port: Some(8443),
                endpoint4: Some([192, 0, 2, 7].into()),
                endpoint6: None,
            },
        };
        let vip = |text: &str, protocol, forward, unknown_token| Command::PutVip {
            name: name(text),
            pool: name("p"),
            protocol,
            forward,
            steering: Steering {
                cipher_keys: [None, Some(Secret(*b"8 bytes."))],
                key_secret: Some(Secret([0xff; 16])),
                external_tokens: true,
                wrong_endpoint: WrongEndpoint::Forward,
                ..Steering::by([Scheme::Endpoint, Scheme::Learn])
            },
            unknown_token,
        };
        let service = |text: &str, address: &str, port| Command::PutService {
            vip: name(text),
            address: address.parse().unwrap(),
            port,
        };
        let remove = |pool: &str, text: &str, deadline| Command::RemoveBackend {
            pool: name(pool),
            name: name(text),
            deadline,
        };
        let commands = [
            Command::PutPool { name: name("p") },
            Command::PutPool { name: name("q") },
            put("q", "a", BackendState::Active),
            put("p", "a\"\\ü", BackendState::Active),
            put("p", "b", BackendState::Draining),
            put("p", "c", BackendState::Down),
            put("p", "d", BackendState::Active),
            vip("web", Protocol::Tcp, Forward::L2dsr, UnknownToken::Drop),
            vip("dns", Protocol::Udp, Forward::Ipip, UnknownToken::Hash),
            service("web", "10.9.9.9", 80),
            service("web", "fd99::9", 0),
            service("dns", "10.9.9.9", 53),
            remove("p", "c", Some(60)),
            remove("p", "d", Some(0)),
            remove("q", "a", None),
            Command::RemovePool { name: name("q") },
        ];
        Model::default().apply_at(&commands, 1_000_000).unwrap()
    }

    #[test]
    fn a_model_comes_back_from_its_text_with_every_field() {
        let model = model();
        let (again, generation) = read(&write(&model, 77).unwrap()).unwrap();
        assert_eq!(generation, 77);
        assert_eq!((again.pools(), again.vips()), (model.pools(), model.vips()));
        let (empty, _) = read(&write(&Model::default(), 1).unwrap()).unwrap();
        assert!(empty.pools().is_empty());
    }

    #[test]
    fn a_text_that_says_anything_else_is_not_believed() {
        let text = String::from_utf8(write(&model(), 7).unwrap()).unwrap();
        let refused = |from: &str, to: &str| {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from} is in it");
            format!("{:#}", read(changed.as_bytes()).unwrap_err())
        };
        for (from, to, part) in [
            ("\"version\":2", "\"version\":3", "version 3 and this program knows 2"),
            ("\"version\":2,", "", "it is no directory"),
            ("\"generation\"", "\"generations\"", "it is damaged"),
            ("\"generation\":7", "\"generation\":18446744073709551615", "generation 18446744073709551615"),
            ("\"weight\":9", "\"weight\":9,\"height\":9", "it is damaged"),
            ("\"weight\":9", "\"weight\":1001", "a weight that cannot be)"),
            ("\"draining\"", "\"sleeping\"", "it says \"sleeping\""),
            ("\"deleted\"", "\"erased\"", "it says \"erased\""),
            ("\"b\"", "\"b b\"", "it has the name \"b b\""),
            ("\"id\":3", "\"id\":2", "two backends of one id"),
            ("\"id\":2", "\"id\":70000", "it is damaged"),
        ] {
            let said = refused(from, to);
            assert!(said.contains(part), "{from} -> {to}: {said}");
        }
        for length in 0..text.len() {
            assert!(read(&text.as_bytes()[..length]).is_err(), "cut off at {length}");
        }
    }

    #[test]
    fn a_directory_at_every_limit_fits_its_record() {
        // The longest there are: quotation marks are written as two bytes.
        let name = |kind: char, n: usize| -> Name {
            format!("{kind}{n}{}", "\"".repeat(62 - n.to_string().len())).parse().unwrap()
        };
        let longest6: Ipv6Addr = "fd99:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        let backends = (1..MAX_BACKENDS).map(|n| Backend {
            id: BackendId(u16::try_from(n).unwrap()),
            name: name('b', n),
            address4: Some([255, 255, 255, 254].into()),
            address6: Some(longest6),
            mac: Some([255; 6]),
            weight: MAX_WEIGHT,
            state: BackendState::Draining,
            handles: Handles {
                number: Some(4095),
                endpoint_port: Some(65535),
                endpoint4: Some([255, 255, 255, 254].into()),
                endpoint6: Some(longest6),
            },
            presence: Presence::Removed,
            deadline: Some(u64::MAX),
        });
        let pool = |n: usize| Pool {
            id: PoolId(u16::try_from(n).unwrap()),
            name: name('p', n),
            backends: Vec::new(),
            removed: false,
        };
        let mut pools: Vec<Pool> = (0..MAX_POOLS).map(pool).collect();
        pools[0].backends = backends.collect();
        let ports = u16::try_from(u16::MAX as usize - MAX_SERVICES + 1).unwrap()..=u16::MAX;
        let vip = |n: usize| Vip {
            id: VipId(u16::try_from(n).unwrap()),
            name: name('v', n),
            pool: name('p', 0),
            protocol: Protocol::Tcp,
            forward: Forward::L2dsr,
            steering: Steering {
                cipher_keys: [Some(Secret([255; 8])); 2],
                key_secret: Some(Secret([255; 16])),
                ..Steering::by(Scheme::ALL.iter().copied())
            },
            unknown_token: UnknownToken::Reset,
            services: BTreeSet::new(),
        };
        let mut vips: Vec<Vip> = (0..MAX_VIPS).map(vip).collect();
        vips[0].services = ports.map(|port| (IpAddr::V6(longest6), port)).collect();
        let model = Model::restore(pools, vips).unwrap();
        let text = write(&model, LAST_GENERATION).unwrap();
        println!("{} bytes of {MAX_DIRECTORY}", text.len());
        assert!(text.len() <= MAX_DIRECTORY, "{} bytes", text.len());
        assert_eq!(read(&text).unwrap().0.pools(), model.pools());
    }
}

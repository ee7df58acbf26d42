//! Agents on backends: listened to, identified, bounded, and turned into what the data plane is told.
//!
//! ```text
//! agent ── mutual TLS ──▶ connection: lines, at a bounded rate ─▶ ledger: what this backend has ─▶ session ─▶ data plane
//! ```
//!
//! An agent is believed about its own backends and nothing else: the names in its certificate say which
//! ([`identity`]). It can report as many connections as `tokens` allows, as fast as `reports_per_second` allows; the data
//! plane refuses what would take another backend's ([`ipc::report`]). Where the data plane begins anew, every agent is
//! asked for all there is.

mod connection;
mod identity;
mod ledger;
mod strangers;
mod subflows;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent::tls::{Files, Server, TlsError};
use config::Agents as Settings;
use connection::Door;
use ipc::message::Name;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::control::Control;
use crate::session::Session;
use crate::view::AgentRow;
use ledger::Ledger;
use strangers::Strangers;
use targets::Targets;

/// How long a handshake, and the hello after it, may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Pause after an accept that failed: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why agents cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket.
    #[error("cannot listen for agents on {address}: {error}; see `listen` in [agents]")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

/// Everything about agents. Shared by the connections and by whoever asks.
pub struct Agents {
    settings: Settings,
    control: Arc<Control>,
    session: Session,
    /// What handshakes are made with and certificates judged by; `None` where agents need none. Connections watch it.
    tls: watch::Sender<Option<Server>>,
    /// By the name of the backend, in whatever pools it is.
    known: Mutex<BTreeMap<Name, Agent>>,
}

/// One backend's agent.
struct Agent {
    peer: SocketAddr,
    since: Instant,
    /// Which connection it is: a later one takes the earlier one's place.
    connection: u64,
    connected: bool,
    /// Ends that connection.
    ends: Arc<Notify>,
    dumps: u64,
    refused: u64,
    ledger: Arc<tokio::sync::Mutex<Ledger>>,
    tokens: usize,
}

/// A port for agents, with all that can fail for good behind it. Nobody is served yet.
pub struct Port {
    settings: Settings,
    tls: Option<Server>,
    listener: TcpListener,
}

impl Port {
    /// Reads the files of certificates and listens.
    pub async fn open(settings: Settings) -> Result<Self, AgentsError> {
        let tls = read_tls(&settings)?;
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|error| AgentsError::Listen { address, error })?;
        Ok(Self { settings, tls, listener })
    }
}

impl Agents {
    /// Serves agents until the task is aborted.
    pub fn start(
        port: Port,
        control: Arc<Control>,
        session: Session,
    ) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let Port { settings, tls, listener } = port;
        let address = settings.listen;
        let secured = if tls.is_some() { "mutual TLS" } else { "plain, on loopback" };
        log::info!("listening for agents on {address} ({secured})");
        let tls = watch::Sender::new(tls);
        let agents = Arc::new(Self { settings, control, session, tls, known: Mutex::new(BTreeMap::new()) });
        let task = tokio::spawn(serve(listener, agents.clone()));
        (agents, task)
    }

    /// Reads the files of certificates again, as `file` names them now: handshakes from now on go by them, and
    /// connections whose certificate no longer passes are closed. The error changes nothing.
    pub fn reload(&self, file: &Settings) -> Result<(), AgentsError> {
        if self.settings.files.is_some() != file.files.is_some() {
            return Ok(());
        }
        let tls = read_tls(file)?;
        self.tls.send_replace(tls);
        Ok(())
    }

    /// Whether what a reload cannot change has changed.
    pub fn needs_restart(&self, file: Option<&Settings>) -> bool {
        let fixed = |settings: &Settings| {
            let Settings { listen, tokens, reports_per_second, .. } = *settings;
            (listen, tokens, reports_per_second, settings.files.is_some())
        };
        file.map(fixed) != Some(fixed(&self.settings))
    }

    /// Where agents are listened to.
    pub fn address(&self) -> SocketAddr {
        self.settings.listen
    }

    /// A row for each backend whose agent has ever connected.
    pub fn rows(&self) -> Vec<AgentRow> {
        let rows = self.lock();
        let row = |(name, agent): (&Name, &Agent)| AgentRow {
            backend: name.to_string(),
            connected: agent.connected,
            peer: agent.peer.to_string(),
            seconds: agent.since.elapsed().as_secs(),
            tokens: u64::try_from(agent.tokens).unwrap_or(u64::MAX),
            dumps: agent.dumps,
            refused: agent.refused,
        };
        rows.iter().map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Agent>> {
        // A panic under the lock cannot leave a half-made change: every change is one assignment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is to speak for these backends; one that did so before is told to end, and does so before it gives
    /// their ledgers out of its hands. What they had reported is kept: the dump that follows says what is no more.
    fn enter(
        &self,
        names: &[Name],
        peer: SocketAddr,
        connection: u64,
        ends: &Arc<Notify>,
    ) -> Vec<(Name, Arc<tokio::sync::Mutex<Ledger>>)> {
        let mut known = self.lock();
        let mut ledgers = Vec::new();
        for name in names {
            let agent = known.entry(*name).or_insert_with(|| Agent {
                peer,
                since: Instant::now(),
                connection,
                connected: true,
                ends: ends.clone(),
                dumps: 0,
                refused: 0,
                ledger: Arc::new(tokio::sync::Mutex::new(Ledger::new(self.settings.tokens))),
                tokens: 0,
            });
            if agent.connection != connection {
                std::mem::replace(&mut agent.ends, ends.clone()).notify_one();
            }
            (agent.peer, agent.since, agent.connection, agent.connected) =
                (peer, Instant::now(), connection, true);
            ledgers.push((*name, agent.ledger.clone()));
        }
        ledgers
    }

    /// A connection has ended.
    fn leave(&self, names: &[Name], connection: u64) {
        let mut known = self.lock();
        for name in names {
            if let Some(agent) = known.get_mut(name).filter(|agent| agent.connection == connection) {
                (agent.connected, agent.since) = (false, Instant::now());
            }
        }
    }

    /// Notes for people what a backend's agent came to.
    fn note(&self, name: Name, ledger: &Ledger, dumped: bool) {
        if let Some(agent) = self.lock().get_mut(&name) {
            (agent.tokens, agent.refused) = (ledger.tokens(), ledger.refused());
            agent.dumps += u64::from(dumped);
        }
    }
}

/// Whether a VIP's joins follow tokens that handshakes taught, and nothing else.
pub(crate) fn learns_only(vip: &config::Vip) -> bool {
    targets::learns_only(vip)
}

/// The backends an agent is expected on: those of VIPs that agents steer.
pub(crate) fn expected(config: &config::Config) -> BTreeSet<Name> {
    Targets::of(config).backends()
}

/// What handshakes are made with, if certificates are named.
fn read_tls(settings: &Settings) -> Result<Option<Server>, TlsError> {
    let Some(files) = &settings.files else { return Ok(None) };
    let own = Files {
        authority: files.authority.clone(),
        certificate: files.certificate.clone(),
        key: files.key.clone(),
    };
    own.server(files.revoked.as_deref()).map(Some)
}

async fn serve(listener: TcpListener, agents: Arc<Agents>) {
    let strangers = Arc::new(Strangers::default());
    for number in 0.. {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("an agent could not be let in: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        agent::silence::limit(&stream)
            .unwrap_or_else(|error| log::debug!("{peer}: no limit to silence: {error}"));
        let place = strangers.enter(number, peer.ip());
        let (door, agents) = (Door { tls: agents.tls.subscribe(), place }, agents.clone());
        tokio::spawn(async move {
            if let Err(error) = connection::serve(stream, peer, number, door, &agents).await {
                log::warn!("agent {peer}: {error:#}");
            }
        });
    }
}

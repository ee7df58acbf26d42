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
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent::tls::{Files, TlsError};
use config::Agents as Settings;
use connection::Door;
use ipc::message::Name;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::control::Control;
use crate::session::Session;
use crate::view::AgentRow;
use ledger::Ledger;
use targets::Targets;

/// Connections at a time of whom nobody knows yet who they are. Known ones are few by themselves: a later one of a
/// backend takes the earlier one's place.
const MAX_STRANGERS: usize = 256;

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
    dumps: u64,
    refused: u64,
    ledger: Arc<tokio::sync::Mutex<Ledger>>,
    tokens: usize,
}

impl Agents {
    /// Listens, and serves until dropped. Fails before anything is visible.
    pub async fn start(
        settings: Settings,
        control: Arc<Control>,
        session: Session,
    ) -> Result<(Arc<Self>, tokio::task::JoinHandle<()>), AgentsError> {
        let acceptor = match &settings.files {
            Some(files) => {
                let files = Files {
                    authority: files.authority.clone(),
                    certificate: files.certificate.clone(),
                    key: files.key.clone(),
                };
                Some(TlsAcceptor::from(Arc::new(files.server()?)))
            }
            None => None,
        };
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|error| AgentsError::Listen { address, error })?;
        let secured = if acceptor.is_some() { "mutual TLS" } else { "plain, on loopback" };
        log::info!("listening for agents on {address} ({secured})");
        let agents = Arc::new(Self { settings, control, session, known: Mutex::new(BTreeMap::new()) });
        let task = tokio::spawn(serve(listener, acceptor, agents.clone()));
        Ok((agents, task))
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

    /// A connection speaks for these backends from now on; one that did so before is replaced. What they had reported is
    /// kept: the dump that follows says what is no more.
    fn enter(
        &self,
        names: &[Name],
        peer: SocketAddr,
        connection: u64,
    ) -> Vec<(Name, Arc<tokio::sync::Mutex<Ledger>>)> {
        let mut known = self.lock();
        let mut ledgers = Vec::new();
        for name in names {
            let agent = known.entry(*name).or_insert_with(|| Agent {
                peer,
                since: Instant::now(),
                connection,
                connected: true,
                dumps: 0,
                refused: 0,
                ledger: Arc::new(tokio::sync::Mutex::new(Ledger::new(self.settings.tokens))),
                tokens: 0,
            });
            (agent.peer, agent.since, agent.connection, agent.connected) =
                (peer, Instant::now(), connection, true);
            ledgers.push((*name, agent.ledger.clone()));
        }
        ledgers
    }

    /// Whether a connection still is the one that speaks for a backend.
    fn is_current(&self, names: &[Name], connection: u64) -> bool {
        let known = self.lock();
        names.iter().all(|name| known.get(name).is_some_and(|agent| agent.connection == connection))
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

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, agents: Arc<Agents>) {
    let room = Arc::new(Semaphore::new(MAX_STRANGERS));
    for number in 0.. {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("an agent could not be let in: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            log::debug!("{peer} turned away: {MAX_STRANGERS} others have not said yet who they are");
            continue;
        };
        let (door, agents) = (Door { acceptor: acceptor.clone(), permit }, agents.clone());
        tokio::spawn(async move {
            if let Err(error) = connection::serve(stream, peer, number, door, &agents).await {
                log::warn!("agent {peer}: {error:#}");
            }
        });
    }
}

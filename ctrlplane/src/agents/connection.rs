//! One agent's connection: handshake, hello, then lines at a bounded rate until it ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::tls::Server;
use agent::wire::{FromAgent, FromControlPlane, MAX_LINE, Mark, VERSION};
use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use ipc::id::BackendId;
use ipc::message::Name;
use ipc::report::Report;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::{Framed, LinesCodec};

use super::ledger::Ledger;
use super::strangers::Place;
use super::targets::Targets;
use super::{Agents, HANDSHAKE, identity};
use crate::session::Applied;

/// An agent says something at least this often, and is taken for dead after twice so long.
const ALIVE: Duration = Duration::from_secs(10);

/// For so long the data plane keeps what an agent vouched for: a connection may break and come back meanwhile.
const LEASE: Duration = Duration::from_secs(60);

/// Reports handed to the data plane at once.
const AT_ONCE: usize = 512;

/// How far ahead of its rate an agent may be.
const BURST: Duration = Duration::from_secs(1);

/// Why a connection ends that another one replaces.
const REPLACED: &str = "another agent of this backend has connected since";

/// Pause before the data plane is tried again.
const NO_DATAPLANE: Duration = Duration::from_millis(500);

/// What the data plane shall be told: pool, backend, report.
type Told = (Name, Name, Report);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
type Lines = Framed<Box<dyn Stream>, LinesCodec>;

/// What a stranger comes in by.
pub(super) struct Door {
    /// What handshakes are made with and certificates judged by, now and later.
    pub tls: watch::Receiver<Option<Server>>,
    /// One of few: given back when the stranger is one no more.
    pub place: Place,
}

/// Serves one agent until it ends. The error is for the log.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    number: u64,
    mut door: Door,
    agents: &Arc<Agents>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let server = door.tls.borrow_and_update().clone();
    let greeting = greet(stream, server);
    let greeted = tokio::select! {
        biased;
        // Nobody's business alone: strangers are spoken of together.
        () = door.place.gives_way() => return Ok(()),
        greeted = tokio::time::timeout(HANDSHAKE, greeting) => greeted,
    };
    let Greeted { mut lines, mut names, shown } = greeted.context("no hello in time")??;
    let mut applied = agents.session.applied();
    let scope = Scope::of(agents, &applied.borrow_and_update());
    let targets = &scope.targets;
    let expected = targets.backends();
    let claimed = names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    names.retain(|name| expected.contains(name));
    if names.is_empty() {
        let why = format!(
            "none of the names in the certificate ({claimed}) is a backend of a VIP that agents steer: see \
             `steering` and the backends' names"
        );
        say(&mut lines, &FromControlPlane::Refused(why.clone())).await?;
        bail!(why);
    }
    drop(door.place);
    names.sort_unstable();
    names.dedup();
    let ends = Arc::new(Notify::new());
    let held = agents.enter(&names, peer, number, &ends);
    let ended = match turn(held, &ends).await {
        Ok(ledgers) => {
            log::info!("agent {peer} speaks for backend {claimed}");
            let mut connection = Connection {
                agents,
                lines,
                ledgers,
                names: names.clone(),
                scope,
                applied,
                tls: door.tls,
                shown,
                told: Vec::new(),
                pace: Pace::new(agents.settings.reports_per_second),
            };
            let ended = connection.run_until(&ends).await;
            log::info!(
                "agent {peer} of backend {claimed} is gone; what it vouched for is kept for {} s",
                LEASE.as_secs()
            );
            ended
        }
        Err(error) => Err(error),
    };
    agents.leave(&names, number);
    ended
}

/// Waits until the connections before this one have ended: whoever speaks for a backend holds its ledger, and has said its
/// last word when the next one has it. All take them in the same order.
async fn turn(
    held: Vec<(Name, Arc<Mutex<Ledger>>)>,
    ends: &Notify,
) -> anyhow::Result<Vec<(Name, OwnedMutexGuard<Ledger>)>> {
    let turn = async {
        let mut ledgers = Vec::new();
        for (name, ledger) in held {
            ledgers.push((name, ledger.lock_owned().await));
        }
        ledgers
    };
    tokio::select! {
        biased;
        () = ends.notified() => bail!(REPLACED),
        turn = tokio::time::timeout(HANDSHAKE, turn) => turn.context("the connection before it does not end"),
    }
}

/// An agent after its hello.
struct Greeted {
    lines: Lines,
    /// Whom it may speak for.
    names: Vec<Name>,
    /// The certificates it showed; none where it needs none.
    shown: Vec<CertificateDer<'static>>,
}

/// The handshake and the hello.
async fn greet(stream: TcpStream, server: Option<Server>) -> anyhow::Result<Greeted> {
    let codec = LinesCodec::new_with_max_length(MAX_LINE);
    let (mut lines, certified, shown): (Lines, _, _) = match server {
        Some(server) => {
            let stream = TlsAcceptor::from(server.config).accept(stream).await?;
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
            let shown: Vec<_> = shown.into_iter().map(CertificateDer::into_owned).collect();
            let names = shown.first().map(identity::names).unwrap_or_default();
            (Framed::new(Box::new(stream) as Box<dyn Stream>, codec), Some(names), shown)
        }
        None => (Framed::new(Box::new(stream) as Box<dyn Stream>, codec), None, Vec::new()),
    };
    let FromAgent::Hello { version, backend } = hear(&mut lines).await? else { bail!("no hello") };
    if version != VERSION {
        let why =
            format!("it speaks version {version}, this weft-ctrlplane {VERSION}: update the older of both");
        say(&mut lines, &FromControlPlane::Refused(why.clone())).await?;
        bail!(why);
    }
    let names = match certified {
        Some(names) => names,
        None => vec![backend.context("it did not say which backend it is")?.parse()?],
    };
    Ok(Greeted { lines, names, shown })
}

struct Connection<'a> {
    agents: &'a Arc<Agents>,
    lines: Lines,
    ledgers: Vec<(Name, OwnedMutexGuard<Ledger>)>,
    names: Vec<Name>,
    scope: Scope,
    applied: watch::Receiver<Applied>,
    tls: watch::Receiver<Option<Server>>,
    /// The certificates it showed.
    shown: Vec<CertificateDer<'static>>,
    /// What waits for the data plane.
    told: Vec<Told>,
    pace: Pace,
}

/// What an agent's events are about.
struct Scope {
    targets: Targets,
    applied: Applied,
    /// Whether the configuration was ahead of the data plane: what is reported meanwhile may be lost.
    is_ahead: bool,
}

impl Scope {
    fn of(agents: &Agents, applied: &Applied) -> Self {
        let is_ahead = agents.control.revision() != applied.revision;
        let targets = Targets::among(&agents.control.effective(), applied.backends.keys());
        Self { targets, applied: applied.clone(), is_ahead }
    }

    /// Whether what these backends' agent has said before is to be said again.
    fn differs(&self, before: &Self, names: &[Name]) -> bool {
        let ids = |scope: &Self| -> BTreeMap<(Name, Name), BackendId> {
            let own = scope.applied.backends.iter().filter(|((_, name), _)| names.contains(name));
            own.map(|(backend, id)| (*backend, *id)).collect()
        };
        before.is_ahead || self.targets != before.targets || ids(self) != ids(before)
    }
}

impl Connection<'_> {
    /// Serves until it ends, or until another connection takes its place: then it hears no line more.
    async fn run_until(&mut self, ends: &Notify) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = ends.notified() => {}
            ended = self.run() => return ended,
        }
        // The ledgers have what is still to be told. It goes into the queue before what the next connection tells;
        // neither the answer nor an agent that takes no line is waited for.
        let _asked = tokio::time::timeout(Duration::ZERO, self.tell()).await;
        let refused = FromControlPlane::Refused(REPLACED.to_owned());
        let _said = tokio::time::timeout(Duration::ZERO, say(&mut self.lines, &refused)).await;
        bail!(REPLACED);
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let backends = self.names.iter().map(ToString::to_string).collect();
        let welcome =
            FromControlPlane::Welcome { version: VERSION, backends, alive_seconds: ALIVE.as_secs() };
        say(&mut self.lines, &welcome).await?;
        let mut attached = self.agents.session.attachments();
        attached.mark_unchanged();
        let mut lease = tokio::time::interval(ALIVE);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                line = hear(&mut self.lines) => {
                    self.take(line?).await?;
                    self.take_what_is_there().await?;
                    self.tell().await;
                    // Afterwards: what took us long is not the agent's silence.
                    heard = Instant::now();
                }
                _ = lease.tick() => {
                    if heard.elapsed() > 2 * ALIVE {
                        bail!("it said nothing for {} s", heard.elapsed().as_secs());
                    }
                    self.renew_lease().await;
                }
                changed = self.tls.changed() => {
                    changed.context("weft-ctrlplane is stopping")?;
                    self.judge_again().await?;
                }
                changed = attached.changed() => {
                    changed.context("weft-ctrlplane is stopping")?;
                    // The tables may be empty, or of a data plane that never heard of this agent.
                    self.renew_lease().await;
                    say(&mut self.lines, &FromControlPlane::DumpAgain).await?;
                }
                changed = self.applied.changed() => {
                    changed.context("weft-ctrlplane is stopping")?;
                    let scope = Scope::of(self.agents, &self.applied.borrow_and_update());
                    let differs = scope.differs(&self.scope, &self.names);
                    self.scope = scope;
                    if differs {
                        self.renew_lease().await;
                        say(&mut self.lines, &FromControlPlane::DumpAgain).await?;
                    }
                }
            }
        }
    }

    /// Ends the connection if its certificate would not be taken any more.
    async fn judge_again(&mut self) -> anyhow::Result<()> {
        let server = self.tls.borrow_and_update().clone();
        if let Some(Err(error)) = server.map(|server| server.accepts(&self.shown)) {
            let why = format!("its certificate is not accepted any more: {error}");
            say(&mut self.lines, &FromControlPlane::Refused(why.clone())).await?;
            bail!(why);
        }
        Ok(())
    }

    /// Lines that came along with one, without waiting for more, nor for their turn: an agent that says more than it
    /// may holds up neither its own lease nor what it has reported. So few that all they tell goes at once.
    async fn take_what_is_there(&mut self) -> anyhow::Result<()> {
        for _ in 0..AT_ONCE {
            if self.told.len() >= AT_ONCE || !self.pace.has_room() {
                return Ok(());
            }
            let next = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(match self.lines.poll_next_unpin(cx) {
                    std::task::Poll::Ready(line) => Some(line),
                    std::task::Poll::Pending => None,
                })
            });
            match next.await {
                Some(line) => self.take(parse(line)?).await?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn take(&mut self, said: FromAgent) -> anyhow::Result<()> {
        self.pace.wait().await;
        for (name, ledger) in &mut self.ledgers {
            let told = &mut self.told;
            let mut tell = |pool: Name, report: Report| told.push((pool, *name, report));
            match &said {
                FromAgent::Hello { .. } => bail!("a second hello"),
                FromAgent::Alive => continue,
                FromAgent::Event(event) => ledger.event(event, *name, &self.scope.targets, &mut tell),
                FromAgent::Dump(mark) => {
                    ledger.mark(*mark, &mut tell);
                    let report = match mark {
                        Mark::Begin => Report::DumpBegins,
                        Mark::End => Report::DumpEnds,
                    };
                    self.scope.targets.pools_of(*name).for_each(|pool| tell(pool, report));
                }
            }
            let dumped = matches!(said, FromAgent::Dump(agent::wire::Mark::End));
            self.agents.note(*name, ledger, dumped);
        }
        Ok(())
    }

    /// Hands on what was reported. Where there is no data plane it is lost, and asked for again when there is one.
    async fn tell(&mut self) {
        let told = std::mem::take(&mut self.told);
        if !told.is_empty() && self.agents.session.report(told).await.is_err() {
            tokio::time::sleep(NO_DATAPLANE).await;
        }
    }

    async fn renew_lease(&mut self) {
        let seconds = u16::try_from(LEASE.as_secs()).unwrap_or(u16::MAX);
        for name in &self.names {
            let pools = self.scope.targets.pools_of(*name);
            self.told.extend(pools.map(|pool| (pool, *name, Report::Lease { seconds })));
        }
        self.tell().await;
    }
}

async fn hear(lines: &mut Lines) -> anyhow::Result<FromAgent> {
    parse(lines.next().await)
}

fn parse(line: Option<Result<String, tokio_util::codec::LinesCodecError>>) -> anyhow::Result<FromAgent> {
    let Some(line) = line else { bail!("it closed the connection") };
    serde_json::from_str(&line?).context("a line that no agent says")
}

/// Says a line. An agent that takes none is no agent.
async fn say(lines: &mut Lines, said: &FromControlPlane) -> anyhow::Result<()> {
    let line = serde_json::to_string(said)?;
    Ok(tokio::time::timeout(HANDSHAKE, lines.send(line)).await.context("it takes no lines")??)
}

/// So many lines a second, and [`BURST`] of them at once. Who is faster waits, by TCP's own means.
struct Pace {
    each: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
    }

    /// Whether the next line need not wait.
    fn has_room(&self) -> bool {
        let now = Instant::now();
        self.next.max(now) + self.each <= now + BURST
    }

    async fn wait(&mut self) {
        self.next = self.next.max(Instant::now()) + self.each;
        if let Some(allowed) = self.next.checked_sub(BURST) {
            tokio::time::sleep_until(allowed).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_gets_a_burst_and_then_its_rate() {
        let mut pace = Pace::new(1000);
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(pace.has_room());
            pace.wait().await;
        }
        assert!(!pace.has_room());
        assert_eq!(began.elapsed(), Duration::ZERO, "a burst of a second's worth");
        for _ in 0..3000 {
            pace.wait().await;
        }
        assert_eq!(began.elapsed().as_secs(), 3);
    }
}

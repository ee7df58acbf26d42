//! Reporting to control planes: one connection each, kept up for ever.
//!
//! ```text
//! kernel ─▶ thread ─▶ ring of the last events ─┬─▶ connection: dump, then events ─▶ control plane 1
//!                                              └─▶ connection: dump, then events ─▶ control plane 2
//! ```
//!
//! The ring is all that is kept, for all connections together. A connection that is slower than it, or that begins anew,
//! dumps: it first takes its place in the ring, then asks the kernel what is there, then goes on with the events from that
//! place. So nothing falls between the two; what is said twice does no harm.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio_rustls::TlsConnector;
use tokio_util::codec::{Framed, LinesCodec};

use crate::cli::RunArgs;
use crate::kernel::KernelError;
use crate::kernel::dump::dump;
use crate::kernel::events::{Events, Said};
use crate::silence;
use crate::tls::Files;
use crate::wire::{Event, FromAgent, FromControlPlane, MAX_LINE, Mark, PORT, VERSION};

/// Events kept for connections that are behind: 6 MB.
const KEPT: usize = 1 << 16;

/// Records of a dump on their way from the kernel to a connection.
const DUMPED: usize = 1024;

/// How long connecting may take, the handshake and the welcome too.
const CONNECT: Duration = Duration::from_secs(10);

/// Pauses between two tries: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Lines written before they are sent at the latest.
const LINES_AT_ONCE: usize = 256;

/// Reports until told to end.
pub async fn run(args: &RunArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let identity = Identity::of(args)?;
    let events = Events::subscribe()?;
    let (ring, _) = broadcast::channel(KEPT);
    let (failed, mut failure) = mpsc::channel(1);
    let to_ring = ring.clone();
    std::thread::Builder::new().name("kernel".to_owned()).spawn(move || {
        loop {
            // Nobody connected: nothing to keep, a new connection dumps.
            let waited = events.wait(|said| drop(to_ring.send(said)));
            if let Err(error) = waited {
                return failed.blocking_send(error);
            }
        }
    })?;
    for target in &args.connect {
        let (target, identity, ring) = (Target::of(target)?, identity.clone(), ring.clone());
        tokio::spawn(async move { keep_up(&target, &identity, &ring).await });
    }
    log::info!("reporting to {}", args.connect.join(", "));
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = failure.recv() => match error {
            Some(error) => Err(error).context("the kernel's MPTCP events ended"),
            None => bail!("the kernel's MPTCP events ended"),
        },
    }
}

/// How all that is there is read: shows each connection and subflow to the closure, until that says `false`.
type Dump = fn(&mut dyn FnMut(Event) -> bool) -> Result<(), KernelError>;

/// The kernel's.
fn dump_kernel(say: &mut dyn FnMut(Event) -> bool) -> Result<(), KernelError> {
    dump(say)
}

/// As whom to report.
#[derive(Clone)]
enum Identity {
    Certificate(Arc<ClientConfig>),
    Plain(String),
}

impl Identity {
    fn of(args: &RunArgs) -> anyhow::Result<Self> {
        match (&args.authority, &args.certificate, &args.key, &args.plain) {
            (Some(authority), Some(certificate), Some(key), None) => {
                let files = Files {
                    authority: authority.clone(),
                    certificate: certificate.clone(),
                    key: key.clone(),
                };
                Ok(Self::Certificate(Arc::new(files.client()?)))
            }
            (None, None, None, Some(backend)) => Ok(Self::Plain(backend.clone())),
            _ => bail!("give --authority, --certificate and --key, or --plain BACKEND"),
        }
    }

    fn hello(&self) -> FromAgent {
        let backend = match self {
            Self::Certificate(_) => None,
            Self::Plain(backend) => Some(backend.clone()),
        };
        FromAgent::Hello { version: VERSION, backend }
    }
}

/// A control plane's address.
struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`.
    fn of(text: &str) -> anyhow::Result<Self> {
        let unbracketed = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_bare_v6 = !text.starts_with('[') && text.matches(':').count() > 1;
        match text.rsplit_once(':') {
            Some((host, port)) if !is_bare_v6 && !text.ends_with(']') => {
                let port = port.parse().with_context(|| format!("`{port}` in `{text}` is no port number"))?;
                Ok(Self { host: unbracketed(host), port })
            }
            _ => Ok(Self { host: unbracketed(text), port: PORT }),
        }
    }
}

/// Connects, reports, and again.
async fn keep_up(target: &Target, identity: &Identity, ring: &broadcast::Sender<Said>) {
    let name = format!("{}:{}", target.host, target.port);
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let began = tokio::time::Instant::now();
        let ended = match connect(target, identity).await {
            Ok(stream) => serve(stream, identity, ring, dump_kernel, &name).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            // Once, however often it is tried again.
            let sentence = format!("{name}: {error:#}");
            if sentence != said {
                log::warn!("{sentence}; trying again");
                said = sentence;
            }
        }
        if began.elapsed() > LONGEST_PAUSE {
            (pause, said) = (FIRST_PAUSE, String::new());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(target: &Target, identity: &Identity) -> anyhow::Result<Box<dyn Stream>> {
    let connecting = async {
        let stream = open(target).await?;
        match identity {
            Identity::Plain(_) => {
                if !stream.peer_addr()?.ip().is_loopback() {
                    bail!("--plain is for a control plane on this host: give certificates");
                }
                Ok(Box::new(stream) as Box<dyn Stream>)
            }
            Identity::Certificate(config) => {
                let name = ServerName::try_from(target.host.clone())?;
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }
        }
    };
    tokio::time::timeout(CONNECT, connecting).await.context("no connection in time")?
}

/// A connection that sends at once, and ends when the other end is gone.
async fn open(target: &Target) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    silence::limit(&stream)?;
    Ok(stream)
}

type Lines = Framed<Box<dyn Stream>, LinesCodec>;

/// Reports over one connection until it ends.
async fn serve(
    stream: Box<dyn Stream>,
    identity: &Identity,
    ring: &broadcast::Sender<Said>,
    dump: Dump,
    name: &str,
) -> anyhow::Result<()> {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE));
    say(&mut lines, &identity.hello()).await?;
    flush(&mut lines).await?;
    let welcome = tokio::time::timeout(CONNECT, hear(&mut lines)).await.context("no welcome in time")??;
    let FromControlPlane::Welcome { backends, alive_seconds, .. } = welcome else {
        bail!("another answer than a welcome");
    };
    log::info!("{name}: reporting for backend {}", backends.join(", "));
    let mut alive = tokio::time::interval(Duration::from_secs(alive_seconds.clamp(1, 3600)) / 2);
    // The place in the ring comes before the dump.
    let mut events = ring.subscribe();
    report_all(&mut lines, dump, name).await?;
    loop {
        let mut dump_again = false;
        tokio::select! {
            said = events.recv() => match said {
                Ok(Said::Event(event)) => {
                    say(&mut lines, &FromAgent::Event(event)).await?;
                    // What else is there goes along.
                    for _ in 0..LINES_AT_ONCE {
                        match events.try_recv() {
                            Ok(Said::Event(event)) => say(&mut lines, &FromAgent::Event(event)).await?,
                            Ok(Said::Lost) | Err(broadcast::error::TryRecvError::Lagged(_)) => {
                                dump_again = true;
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    flush(&mut lines).await?;
                }
                Ok(Said::Lost) | Err(broadcast::error::RecvError::Lagged(_)) => dump_again = true,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            heard = hear(&mut lines) => match heard? {
                FromControlPlane::DumpAgain => dump_again = true,
                FromControlPlane::Refused(why) => bail!("refused: {why}"),
                FromControlPlane::Welcome { .. } => bail!("a second welcome"),
            },
            _ = alive.tick() => {
                say(&mut lines, &FromAgent::Alive).await?;
                flush(&mut lines).await?;
            }
        }
        if dump_again {
            events = ring.subscribe();
            report_all(&mut lines, dump, name).await?;
        }
    }
}

/// Reports all that is there. The kernel is read on a thread of its own, no faster than the other end takes it.
async fn report_all(lines: &mut Lines, dump: Dump, name: &str) -> anyhow::Result<()> {
    say(lines, &FromAgent::Dump(Mark::Begin)).await?;
    let (to, mut from) = mpsc::channel(DUMPED);
    let reading = tokio::task::spawn_blocking(move || dump(&mut |event| to.blocking_send(event).is_ok()));
    let mut records: u64 = 0;
    while let Some(event) = from.recv().await {
        say(lines, &FromAgent::Event(event)).await?;
        records += 1;
    }
    reading.await.context("the thread that reads the kernel ended")??;
    say(lines, &FromAgent::Dump(Mark::End)).await?;
    flush(lines).await?;
    log::info!("{name}: all there is reported, {records} connections and subflows");
    Ok(())
}

/// Writes a line; it is sent with others, or by the next flush.
async fn say(lines: &mut Lines, said: &FromAgent) -> anyhow::Result<()> {
    Ok(lines.feed(serde_json::to_string(said)?).await?)
}

/// Sends what was written.
async fn flush(lines: &mut Lines) -> anyhow::Result<()> {
    Ok(SinkExt::<String>::flush(lines).await?)
}

/// The next line of the control plane; an error where it ends the connection.
async fn hear(lines: &mut Lines) -> anyhow::Result<FromControlPlane> {
    let Some(line) = lines.next().await else { bail!("the control plane closed the connection") };
    match serde_json::from_str(&line?).context("a line that no control plane says")? {
        FromControlPlane::Refused(why) => bail!("refused: {why}"),
        said => Ok(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One connection is there, whenever it is asked.
    fn one(say: &mut dyn FnMut(Event) -> bool) -> Result<(), KernelError> {
        say(event(7));
        Ok(())
    }

    fn event(token: u32) -> Event {
        Event { kind: crate::wire::Kind::Closed, token: crate::wire::Token(token), local: None, remote: None }
    }

    /// The control plane's end.
    struct Peer(Framed<tokio::io::DuplexStream, LinesCodec>);

    impl Peer {
        /// The next line that says more than that the agent is there, which it may say at any time.
        async fn hear(&mut self) -> FromAgent {
            loop {
                let said = serde_json::from_str(&self.0.next().await.unwrap().unwrap()).unwrap();
                if said != FromAgent::Alive {
                    return said;
                }
            }
        }

        async fn say(&mut self, line: &str) {
            self.0.send(line).await.unwrap();
        }

        /// The next lines that are events, up to another one.
        async fn events(&mut self) -> (Vec<Event>, FromAgent) {
            let mut events = Vec::new();
            loop {
                match self.hear().await {
                    FromAgent::Event(event) => events.push(event),
                    other => return (events, other),
                }
            }
        }

        async fn hears_a_dump(&mut self) {
            assert_eq!(self.hear().await, FromAgent::Event(event(7)));
            assert_eq!(self.hear().await, FromAgent::Dump(Mark::End));
        }
    }

    /// An agent that was welcomed and has dumped, over a connection that holds little.
    async fn welcomed(ring: &broadcast::Sender<Said>) -> Peer {
        let (own, other) = tokio::io::duplex(256);
        let ring = ring.clone();
        tokio::spawn(async move {
            let identity = Identity::Plain("b1".to_owned());
            serve(Box::new(own), &identity, &ring, one, "test").await
        });
        let mut peer = Peer(Framed::new(other, LinesCodec::new()));
        assert_eq!(peer.hear().await, FromAgent::Hello { version: VERSION, backend: Some("b1".to_owned()) });
        peer.say(r#"{"welcome":{"version":1,"backends":["b1"],"alive_seconds":10}}"#).await;
        assert_eq!(peer.hear().await, FromAgent::Dump(Mark::Begin));
        peer.hears_a_dump().await;
        peer
    }

    #[tokio::test]
    async fn what_happens_after_the_dump_is_told_in_order() {
        let (ring, _) = broadcast::channel(64);
        let mut peer = welcomed(&ring).await;
        for token in 0..5 {
            ring.send(Said::Event(event(token))).unwrap();
        }
        for token in 0..5 {
            assert_eq!(peer.hear().await, FromAgent::Event(event(token)));
        }
    }

    #[tokio::test]
    async fn whoever_falls_behind_the_ring_is_told_all_again_in_place_of_what_it_missed() {
        let (ring, _) = broadcast::channel(8);
        let mut peer = welcomed(&ring).await;
        for token in 0..10_000 {
            ring.send(Said::Event(event(token))).unwrap();
            // Now and then the agent gets its turn; nobody reads at the other end.
            if token % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let (events, then) = peer.events().await;
        assert!(events.len() < 1000, "what is kept is bounded: {}", events.len());
        assert_eq!(then, FromAgent::Dump(Mark::Begin));
        peer.hears_a_dump().await;
    }

    #[tokio::test]
    async fn events_that_the_kernel_lost_and_a_control_plane_that_asks_are_answered_by_a_dump() {
        let (ring, _) = broadcast::channel(8);
        let mut peer = welcomed(&ring).await;
        ring.send(Said::Lost).unwrap();
        assert_eq!(peer.events().await, (Vec::new(), FromAgent::Dump(Mark::Begin)));
        peer.hears_a_dump().await;
        peer.say("\"dump_again\"").await;
        assert_eq!(peer.events().await, (Vec::new(), FromAgent::Dump(Mark::Begin)));
        peer.hears_a_dump().await;
    }

    #[tokio::test]
    async fn a_connection_to_an_appliance_that_is_gone_does_not_last() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = open(&Target::of(&listener.local_addr().unwrap().to_string()).unwrap()).await.unwrap();
        assert_eq!(socket2::SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(silence::LIMIT));
    }

    #[test]
    fn a_control_plane_is_a_host_and_perhaps_a_port() {
        let of = |text| {
            let target = Target::of(text).unwrap();
            (target.host, target.port)
        };
        assert_eq!(of("10.0.1.254"), ("10.0.1.254".to_owned(), PORT));
        assert_eq!(of("weft-1.example:8443"), ("weft-1.example".to_owned(), 8443));
        assert_eq!(of("fd00:1::254"), ("fd00:1::254".to_owned(), PORT));
        assert_eq!(of("[fd00:1::254]"), ("fd00:1::254".to_owned(), PORT));
        assert_eq!(of("[fd00:1::254]:8443"), ("fd00:1::254".to_owned(), 8443));
        assert!(Target::of("host:port").is_err());
    }
}

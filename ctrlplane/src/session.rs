//! The link to the data plane, on a thread of its own: attaches, compares, pushes, asks.
//!
//! Why a thread: the link's calls wait (shared memory has no file descriptor to poll). It owns the link whole,
//! everybody else sends it requests, so exchanges never overlap.
//!
//! Every look at the data plane starts from a dump of what it has, never from what we believe we told it: after
//! a death on either side, or a batch whose answer was lost, the difference is right again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipc::control_link::{Answer, ControlLink, ControlLinkError, Dump, Peer};
use ipc::counters::{CounterReader, Gauge, GaugeReader};
use ipc::id::BackendId;
use ipc::liveness::Lock;
use ipc::message::{Command, Event, Name, Presence};
use ipc::report::Report;
use tokio::sync::{oneshot, watch};

use crate::control::{Control, LinkStatus};
use crate::reconcile::{keep_resolved, re_deadline, reconcile, renames};
use crate::sample::{Sample, Samples};
use crate::state::State;

/// Pause between two looks at the data plane and at the latest revision.
const LOOK: Duration = Duration::from_millis(100);
/// Pause between two comparisons of what the data plane has with what it should have.
const VERIFY: Duration = Duration::from_secs(10);
/// How long a data plane may take to grant a link.
const ATTACH: Duration = Duration::from_secs(2);
/// How long a data plane may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What became of the latest revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The data plane has it.
    Applied {
        /// Generation of its configuration.
        generation: u64,
    },
    /// The data plane refused it; the sentence says why.
    Refused(String),
    /// There is no data plane at the moment; the sentence says why. It gets the revision when it comes.
    Waiting(String),
}

/// What the data plane has and counts.
pub struct LinkView {
    /// Its pools, backends, VIPs and services.
    pub dump: Dump,
    /// Its counters.
    pub counters: CounterReader,
    /// Its gauges.
    pub gauges: Option<GaugeReader>,
    /// What it counted a while ago, if it was there.
    pub before: Option<Sample>,
    /// How long ago it took over from one that had died, with empty tables; `None` if it did not.
    pub emptied: Option<Duration>,
}

enum Request {
    Sync(oneshot::Sender<Outcome>),
    View(oneshot::Sender<Result<LinkView, String>>),
    FindToken(u32, oneshot::Sender<Result<Vec<Event>, String>>),
    Report(Vec<(Name, Name, Report)>, oneshot::Sender<Result<(), String>>),
    Stop,
}

/// What the data plane goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The revision that it took.
    pub revision: u64,
    /// Its backends by pool and name, also those that are removed and still have connections.
    pub backends: Arc<HashMap<(Name, Name), BackendId>>,
}

/// A handle on the session, to ask it things.
#[derive(Clone)]
pub struct Session {
    requests: Sender<Request>,
    attachments: watch::Receiver<u64>,
    applied: watch::Receiver<Applied>,
}

const ENDED: &str = "weft-ctrlplane is stopping";

impl Session {
    /// Starts the thread. It holds the lock of the control plane's role until it ends.
    pub fn start(lock: Arc<Lock>, control: Arc<Control>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (requests, receiver) = channel();
        let (attached, attachments) = watch::channel(0);
        let (taken, applied) = watch::channel(Applied::default());
        let worker = Worker {
            lock,
            control,
            link: None,
            verified: None,
            samples: Samples::default(),
            ended: false,
            emptied: None,
            ids: Arc::default(),
            attached,
            taken,
        };
        let thread =
            std::thread::Builder::new().name("weft-link".to_owned()).spawn(move || worker.run(&receiver))?;
        Ok((Self { requests, attachments, applied }, thread))
    }

    /// Pushes the latest revision now and says what became of it.
    pub async fn sync(&self) -> Outcome {
        self.ask(Request::Sync).await.unwrap_or_else(|| Outcome::Waiting(ENDED.to_owned()))
    }

    /// Asks what the data plane has and counts. The error is a sentence.
    pub async fn view(&self) -> Result<LinkView, String> {
        self.ask(Request::View).await.unwrap_or_else(|| Err(ENDED.to_owned()))
    }

    /// Asks who owns a token. The error is a sentence.
    pub async fn find_token(&self, token: u32) -> Result<Vec<Event>, String> {
        let request = |reply| Request::FindToken(token, reply);
        self.ask(request).await.unwrap_or_else(|| Err(ENDED.to_owned()))
    }

    /// Tells what agents say of backends, by pool and name. Returns when the data plane has it, or the sentence why not.
    pub async fn report(&self, reports: Vec<(Name, Name, Report)>) -> Result<(), String> {
        let request = |reply| Request::Report(reports, reply);
        self.ask(request).await.unwrap_or_else(|| Err(ENDED.to_owned()))
    }

    /// How often a data plane was attached, and word of the next time: what agents had reported may be lost then.
    pub fn attachments(&self) -> watch::Receiver<u64> {
        self.attachments.clone()
    }

    /// What the data plane goes by, and word of every change of it.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }

    /// Ends the thread after what it is doing.
    pub fn stop(&self) {
        // A thread that has ended needs no telling.
        let _ended = self.requests.send(Request::Stop);
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).ok()?;
        answer.await.ok()
    }
}

struct Worker {
    lock: Arc<Lock>,
    control: Arc<Control>,
    link: Option<ControlLink>,
    /// When the data plane was last found, or made, as it should be.
    verified: Option<Instant>,
    /// What it counted of late.
    samples: Samples,
    /// Whether the data plane that was attached has ended since.
    ended: bool,
    /// When a data plane took over from another with empty tables.
    emptied: Option<Instant>,
    /// Backends that exist, or that still have connections, and their ids. Empty where they are to be asked for.
    ids: Arc<HashMap<(Name, Name), BackendId>>,
    /// How often a data plane was attached.
    attached: watch::Sender<u64>,
    /// What the data plane goes by.
    taken: watch::Sender<Applied>,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            self.look();
            match requests.recv_timeout(LOOK) {
                // Who asked may have gone away meanwhile; then nobody misses the answer.
                Ok(Request::Sync(reply)) => drop(reply.send(self.sync())),
                Ok(Request::View(reply)) => drop(reply.send(self.view())),
                Ok(Request::FindToken(token, reply)) => {
                    drop(reply.send(self.ask(|link| link.find_token(token, ANSWER))));
                }
                Ok(Request::Report(reports, reply)) => drop(reply.send(self.report(&reports))),
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Attaches if need be, and pushes what is new.
    fn look(&mut self) {
        let behind = self.control.link().revision != self.control.revision();
        let due = self.verified.is_none_or(|verified| verified.elapsed() >= VERIFY);
        if !self.is_up() || behind || due {
            self.sync();
        }
        if let Some(link) = self.link.as_ref().filter(|link| link.is_attached()) {
            self.samples.take(link.counters(), link.gauges());
        }
    }

    fn is_up(&mut self) -> bool {
        let Some(link) = &self.link else { return false };
        if !link.is_attached() {
            return false;
        }
        if link.peer() == Peer::Alive {
            return true;
        }
        self.ended = true;
        self.lost("weft-dataplane ended; waiting for it to come back".to_owned());
        false
    }

    /// Makes the data plane what it should be, attaching first if need be.
    fn sync(&mut self) -> Outcome {
        match self.attach().and_then(|()| self.push()) {
            Ok(outcome) => outcome,
            Err(error) => {
                let message = error.to_string();
                self.lost(message.clone());
                Outcome::Waiting(message)
            }
        }
    }

    fn attach(&mut self) -> Result<(), ControlLinkError> {
        if self.is_up() {
            return Ok(());
        }
        let link = match &mut self.link {
            Some(link) => link,
            None => self.link.insert(ControlLink::with_lock(self.lock.clone())?),
        };
        link.attach(ATTACH)?;
        let kept = link.gauges().is_some_and(|gauges| gauges.get(Gauge::TablesKept) != 0);
        if std::mem::take(&mut self.ended) {
            self.emptied = (!kept).then(Instant::now);
        }
        self.ids = Arc::default();
        self.attached.send_modify(|count| *count += 1);
        log::info!("attached to weft-dataplane in {}", self.lock.dir().display());
        Ok(())
    }

    fn push(&mut self) -> Result<Outcome, ControlLinkError> {
        let link = self.link.as_mut().ok_or(ControlLinkError::NotAttached)?;
        let (revision, desired, deadlines) = self.control.desired();
        let desired = match desired {
            Ok(desired) => desired,
            // Nothing is pushed: an empty state in its place would remove every VIP.
            Err(refusal) => {
                return Ok(Outcome::Refused(format!("the configuration contradicts itself ({refusal})")));
            }
        };
        let dump = link.dump(ANSWER)?;
        self.ids = Arc::new(ids(&dump));
        let mut actual = State::default();
        dump.records.iter().for_each(|record| actual.observe(record));
        let mut commands = renames(&desired, &actual, &dump.records);
        // Names that are free in a state can be given in it.
        let actual = actual.apply(&commands).unwrap_or(actual);
        let desired = keep_resolved(desired, &actual);
        commands.extend(reconcile(&desired, &actual, &deadlines));
        commands.extend(re_deadline(&desired, &deadlines, &dump.records));
        // Generation 0 is "no configuration yet", and drops everything as such: an empty one is still one.
        let (generation, refused) = if commands.is_empty() && dump.generation > 0 {
            (dump.generation, None)
        } else {
            match link.apply(&commands, ANSWER)? {
                Answer::Committed { generation } => {
                    // New backends have ids that the dump did not show.
                    self.ids = Arc::new(ids(&link.dump(ANSWER)?));
                    log::info!("generation {generation}: {} changes applied", commands.len());
                    (generation, None)
                }
                Answer::Refused { command, refusal, name } => {
                    let place = usize::try_from(command).unwrap_or(usize::MAX);
                    let about = name.map(|name| format!(" about `{name}`")).unwrap_or_default();
                    let what = commands.get(place).map(kind).unwrap_or("the change");
                    let sentence = format!(
                        "weft-dataplane refused {what}{about} ({refusal}): {}",
                        refusal.meaning().trim_end_matches('.')
                    );
                    if self.control.link().refused.as_ref() != Some(&sentence) {
                        log::error!("{sentence}");
                    }
                    (dump.generation, Some(sentence))
                }
            }
        };
        if refused.is_none() {
            let applied = Applied { revision, backends: self.ids.clone() };
            self.taken.send_if_modified(|taken| std::mem::replace(taken, applied.clone()) != applied);
        }
        self.verified = Some(Instant::now());
        let status = LinkStatus {
            attached: true,
            message: String::new(),
            generation,
            revision,
            refused: refused.clone(),
        };
        self.control.set_link(status);
        Ok(refused.map_or(Outcome::Applied { generation }, Outcome::Refused))
    }

    /// Answers a question about the data plane; an error detaches, as after any error of the link.
    fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut ControlLink) -> Result<T, ControlLinkError>,
    ) -> Result<T, String> {
        let answer = self
            .attach()
            .and_then(|()| self.link.as_mut().ok_or(ControlLinkError::NotAttached).and_then(question));
        answer.map_err(|error| {
            let message = error.to_string();
            self.lost(message.clone());
            message
        })
    }

    /// Hands reports on. Those about backends that the data plane does not have are nobody's.
    fn report(&mut self, reports: &[(Name, Name, Report)]) -> Result<(), String> {
        if self.ids.is_empty() {
            self.ids = Arc::new(ids(&self.ask(|link| link.dump(ANSWER))?));
        }
        let known: Vec<(BackendId, Report)> = reports
            .iter()
            .filter_map(|(pool, backend, report)| Some((*self.ids.get(&(*pool, *backend))?, *report)))
            .collect();
        self.ask(|link| link.report(known, ANSWER))
    }

    fn view(&mut self) -> Result<LinkView, String> {
        let (dump, counters, gauges) =
            self.ask(|link| Ok((link.dump(ANSWER)?, link.counters(), link.gauges())))?;
        let before = self.samples.oldest();
        Ok(LinkView { dump, counters, gauges, before, emptied: self.emptied.map(|when| when.elapsed()) })
    }

    /// Notes that there is no link. Said once, however often it is tried again.
    fn lost(&mut self, message: String) {
        let before = self.control.link();
        if before.attached || before.message != message {
            log::warn!("{message}");
        }
        self.verified = None;
        self.samples.clear();
        self.control.set_link(LinkStatus { attached: false, message, revision: 0, ..before });
    }
}

/// The ids of backends by pool and name; those that are left of removed ones too.
fn ids(dump: &Dump) -> HashMap<(Name, Name), BackendId> {
    let id = |record: &Event| match record {
        Event::Backend { id, pool, name, presence, .. } if *presence != Presence::Deleted => {
            Some(((*pool, *name), *id))
        }
        _ => None,
    };
    dump.records.iter().filter_map(id).collect()
}

fn kind(command: &Command) -> &'static str {
    match command {
        Command::PutPool { .. } => "to add a pool",
        Command::PutBackend { .. } => "to add or change a backend",
        Command::PutVip { .. } => "to add or change a VIP",
        Command::PutService { .. } => "to add an address of a VIP",
        Command::RemoveService { .. } => "to remove an address of a VIP",
        Command::RemoveVip { .. } => "to remove a VIP",
        Command::RemoveBackend { .. } => "to remove a backend",
        Command::RemovePool { .. } => "to remove a pool",
        Command::RenamePool { .. } => "to rename a pool",
        _ => "a command",
    }
}

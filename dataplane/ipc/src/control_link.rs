//! The control plane's end of the link.
//!
//! Why it exists: the control plane says what it wants with one call and gets an answer, a refusal or an error
//! within its deadline, whatever the data plane does meanwhile: be slow, die, be replaced, be corrupt. Every
//! wait looks at the data plane's lock, so that a death is noticed at once and not at the deadline.
//!
//! After any error but a refusal the end is detached: call [`ControlLink::attach`] again, then dump, and
//! reconcile from what the dump shows.
//!
//! Calls block the thread (they sleep between looks): call them from a thread that may.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::counters::{CounterReader, GaugeReader};
use crate::id::BackendId;
use crate::layout::{ATTACH_GRANT, ATTACH_REQUEST, CLOSED, COMMANDS, CONTROL_PID, EVENTS, SLOT_WORDS};
use crate::limits::{MAX_BACKENDS, MAX_CLAIMS, MAX_POOLS, MAX_SERVICES, MAX_VIPS};
use crate::lines::Lines;
use crate::link::{Violation, from_words, to_words};
use crate::liveness::{Lock, LockError, Role, Watch};
use crate::message::{Command, Event, Name, Refusal};
use crate::report::Report;
use crate::ring::{Consumer, Producer, PushError};
use crate::segment::{Segment, SegmentError};
use crate::sync::Ordering;

/// Pause between two looks at the rings while waiting.
const PAUSE: Duration = Duration::from_micros(200);
/// Looks at the rings for each look at the data plane's lock.
const LOOKS: u32 = 64;

/// Records of a dump at most, `DumpEnd` not counted.
const MAX_DUMP: usize = MAX_POOLS + MAX_BACKENDS + MAX_VIPS + MAX_SERVICES;
/// Owners of one token at most.
const MAX_OWNERS: usize = MAX_CLAIMS * MAX_POOLS;

/// Why a call did not get its answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlLinkError {
    /// Another control plane runs, or the runtime directory cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The segment cannot be opened.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// No data plane runs.
    #[error("weft-dataplane is not running in {dir}: start it, with the same runtime_dir", dir = dir.display())]
    NotRunning {
        /// The runtime directory.
        dir: PathBuf,
    },
    /// It died, or was replaced, while we waited.
    #[error("weft-dataplane ended meanwhile: attach again once it runs")]
    Gone,
    /// No answer in time.
    #[error("weft-dataplane did not answer within {0:?}: attach again; if this stays, look at its log")]
    Deadline(Duration),
    /// It says that we broke the rules.
    #[error("weft-dataplane closed the link ({0}): attach again, and report this as a bug")]
    Closed(Violation),
    /// It broke the rules.
    #[error("weft-dataplane broke the rules of the link ({0}): restart it, and report this as a bug")]
    BadPeer(Violation),
    /// There is no link at the moment.
    #[error("not attached to weft-dataplane: attach first")]
    NotAttached,
    /// The caller put a command into a batch that cannot be in one.
    #[error("command {0} of the batch is no change: only Put and Remove commands belong into one")]
    NotAChange(usize),
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is applied.
    Committed {
        /// The generation of the configuration it made.
        generation: u64,
    },
    /// Nothing of it is applied.
    Refused {
        /// The place of the refused command in the batch, from 0.
        command: u32,
        /// Why.
        refusal: Refusal,
        /// The name the refusal is about, if it is about one.
        name: Option<Name>,
    },
}

/// Everything the data plane has, as events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The generation of the configuration it shows.
    pub generation: u64,
    /// [`Event::Pool`], [`Event::Backend`], [`Event::Vip`] and [`Event::Service`], as they came.
    pub records: Vec<Event>,
}

/// How the data plane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It runs, and it is the one whose segment is open.
    Alive,
    /// None runs.
    Gone,
    /// Another one runs than the one whose segment is open.
    Replaced,
}

/// The control plane's end: its lock for the life of the process, and a segment that may be replaced.
#[derive(Debug)]
pub struct ControlLink {
    dir: PathBuf,
    segment: Segment,
    end: Option<ControlEnd>,
    peer: Watch,
    /// The last batch's number.
    batch: u64,
    _lock: Arc<Lock>,
}

impl ControlLink {
    /// Becomes the control plane of a runtime directory and opens its segment; attach is the next call.
    pub fn open(runtime_dir: &Path) -> Result<ControlLink, ControlLinkError> {
        ControlLink::with_lock(Arc::new(Lock::acquire(runtime_dir, Role::ControlPlane)?))
    }

    /// The same for a process that is the control plane already: it may wait for a data plane, as often as it
    /// takes, without giving up its role in between. The lock must be that of [`Role::ControlPlane`].
    pub fn with_lock(lock: Arc<Lock>) -> Result<ControlLink, ControlLinkError> {
        let runtime_dir = lock.dir();
        let peer = Watch::new(runtime_dir, Role::DataPlane)?;
        if !peer.is_held() {
            return Err(ControlLinkError::NotRunning { dir: runtime_dir.to_owned() });
        }
        let segment = Segment::open(runtime_dir)?;
        Ok(ControlLink { dir: runtime_dir.to_owned(), segment, end: None, peer, batch: 0, _lock: lock })
    }

    /// How the data plane is. Cheap enough to ask every second.
    pub fn peer(&self) -> Peer {
        match (self.peer.is_held(), self.segment.is_replaced()) {
            (false, _) => Peer::Gone,
            (true, true) => Peer::Replaced,
            (true, false) => Peer::Alive,
        }
    }

    /// Whether the link is up, as far as the last call has seen.
    pub fn is_attached(&self) -> bool {
        self.end.is_some()
    }

    /// Gets fresh rings from the data plane that runs now. What was under way is forgotten by both sides.
    pub fn attach(&mut self, within: Duration) -> Result<(), ControlLinkError> {
        self.end = None;
        match self.peer() {
            Peer::Gone => {
                return Err(ControlLinkError::NotRunning { dir: self.dir.clone() });
            }
            Peer::Replaced => self.segment = Segment::open(&self.dir)?,
            Peer::Alive => {}
        }
        let lines = self.segment.lines().clone();
        let request = ControlEnd::request(&lines);
        let mut wait = Wait::new(within);
        loop {
            if let Some(end) = ControlEnd::granted(&lines, request) {
                self.end = Some(end);
                return Ok(());
            }
            wait.pause(&self.peer, &self.segment)?;
        }
    }

    /// Sends a batch of changes and waits for its answer. It may be longer than the ring, not longer than
    /// [`crate::message::MAX_BATCH`].
    pub fn apply(&mut self, changes: &[Command], within: Duration) -> Result<Answer, ControlLinkError> {
        if let Some(place) = changes.iter().position(|command| !command.is_change()) {
            return Err(ControlLinkError::NotAChange(place));
        }
        self.batch = self.batch.wrapping_add(1);
        let batch = self.batch;
        self.attached(within, |end, wait| {
            end.send_all(wait, Command::Begin { batch }, changes, Command::Commit { batch })?;
            match end.event(wait)? {
                Event::Committed { batch: of, generation } if of == batch => {
                    Ok(Answer::Committed { generation })
                }
                Event::Refused { batch: of, command, refusal, name } if of == batch => {
                    Ok(Answer::Refused { command, refusal, name })
                }
                _ => Err(ControlLinkError::BadPeer(Violation::OutOfOrder)),
            }
        })
    }

    /// Asks for everything there is.
    pub fn dump(&mut self, within: Duration) -> Result<Dump, ControlLinkError> {
        self.attached(within, |end, wait| {
            end.send(wait, &Command::Dump)?;
            let mut dump = Dump::default();
            loop {
                match end.event(wait)? {
                    Event::DumpEnd { generation } => return Ok(Dump { generation, ..dump }),
                    record @ (Event::Pool { .. }
                    | Event::Backend { .. }
                    | Event::Vip { .. }
                    | Event::Service { .. })
                        if dump.records.len() < MAX_DUMP =>
                    {
                        dump.records.push(record);
                    }
                    _ => return Err(ControlLinkError::BadPeer(Violation::OutOfOrder)),
                }
            }
        })
    }

    /// Asks who owns a token: [`Event::TokenFound`] events, none when it is unknown.
    pub fn find_token(&mut self, token: u32, within: Duration) -> Result<Vec<Event>, ControlLinkError> {
        self.attached(within, |end, wait| {
            end.send(wait, &Command::FindToken { token })?;
            let mut owners = Vec::new();
            loop {
                match end.event(wait)? {
                    Event::TokenEnd { token: of } if of == token => return Ok(owners),
                    owner @ Event::TokenFound { .. } if owners.len() < MAX_OWNERS => owners.push(owner),
                    _ => return Err(ControlLinkError::BadPeer(Violation::OutOfOrder)),
                }
            }
        })
    }

    /// Sends reports of agents, in order. There is no answer: what becomes of them is counted.
    pub fn report(
        &mut self,
        reports: impl IntoIterator<Item = (BackendId, Report)>,
        within: Duration,
    ) -> Result<(), ControlLinkError> {
        self.attached(within, |end, wait| {
            for (backend, report) in reports {
                end.push(wait, &Command::Report { backend, report })?;
            }
            end.publish();
            end.check_open()
        })
    }

    /// Reads the counters of the data plane whose segment is open.
    pub fn counters(&self) -> CounterReader {
        CounterReader::of(self.segment.lines())
    }

    /// Reads the gauges of the data plane whose segment is open.
    pub fn gauges(&self) -> Option<GaugeReader> {
        GaugeReader::of(self.segment.lines())
    }

    /// Sends one command as it is and returns: for tests that die at the wrong moment.
    #[doc(hidden)]
    pub fn send_raw(&mut self, command: &Command, within: Duration) -> Result<(), ControlLinkError> {
        self.attached(within, |end, wait| end.send(wait, command))
    }

    /// Takes one event as it is: for tests that die at the wrong moment.
    #[doc(hidden)]
    pub fn event_raw(&mut self, within: Duration) -> Result<Event, ControlLinkError> {
        self.attached(within, |end, wait| end.event(wait))
    }

    /// Runs an exchange over the attached end; an error detaches it.
    fn attached<T>(
        &mut self,
        within: Duration,
        exchange: impl FnOnce(&mut ControlEnd, &mut Patience<'_>) -> Result<T, ControlLinkError>,
    ) -> Result<T, ControlLinkError> {
        let mut end = self.end.take().ok_or(ControlLinkError::NotAttached)?;
        let mut patience = Patience { wait: Wait::new(within), peer: &self.peer, segment: &self.segment };
        let result = exchange(&mut end, &mut patience)?;
        self.end = Some(end);
        Ok(result)
    }
}

/// A deadline, and the looks taken on the way to it.
struct Wait {
    since: Instant,
    within: Duration,
    looks: u32,
}

impl Wait {
    fn new(within: Duration) -> Wait {
        Wait { since: Instant::now(), within, looks: 0 }
    }

    /// Sleeps a little; an error once the deadline has passed or the data plane is no more.
    fn pause(&mut self, peer: &Watch, segment: &Segment) -> Result<(), ControlLinkError> {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS) && (!peer.is_held() || segment.is_replaced()) {
            return Err(ControlLinkError::Gone);
        }
        if self.since.elapsed() >= self.within {
            return Err(ControlLinkError::Deadline(self.within));
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// A wait with the peer it waits for.
struct Patience<'a> {
    wait: Wait,
    peer: &'a Watch,
    segment: &'a Segment,
}

impl Patience<'_> {
    fn pause(&mut self) -> Result<(), ControlLinkError> {
        self.wait.pause(self.peer, self.segment)
    }
}

/// The end without lock, file and clock: the protocol alone, over any lines.
#[derive(Debug)]
pub(crate) struct ControlEnd {
    lines: Lines,
    commands: Producer<SLOT_WORDS>,
    events: Consumer<SLOT_WORDS>,
}

impl ControlEnd {
    /// Asks for fresh rings; returns the request's number.
    pub(crate) fn request(lines: &Lines) -> u64 {
        let grant = lines.word(ATTACH_GRANT).map_or(0, |word| word.load(Ordering::Acquire));
        let pending = lines.word(ATTACH_REQUEST).map_or(0, |word| word.load(Ordering::Acquire));
        // Neither zero, nor granted already, nor pending: a predecessor's request may be granted any moment.
        let mut request = pending.wrapping_add(1);
        while request == 0 || request == grant {
            request = request.wrapping_add(1);
        }
        if let (Some(pid), Some(word)) = (lines.word(CONTROL_PID), lines.word(ATTACH_REQUEST)) {
            pid.store(u64::from(std::process::id()), Ordering::Relaxed);
            // REQUEST: pairs with the load of the data plane.
            word.store(request, Ordering::Release);
        }
        request
    }

    /// The end, once the request is granted.
    pub(crate) fn granted(lines: &Lines, request: u64) -> Option<ControlEnd> {
        // GRANT: the reset cursors are visible from here on.
        if lines.word(ATTACH_GRANT)?.load(Ordering::Acquire) != request {
            return None;
        }
        Some(ControlEnd {
            commands: Producer::new(lines.part(COMMANDS)?)?,
            events: Consumer::new(lines.part(EVENTS)?)?,
            lines: lines.clone(),
        })
    }

    /// Pushes a command without publishing it; false when there is no room.
    pub(crate) fn try_push(&mut self, command: &Command) -> Result<bool, ControlLinkError> {
        match self.commands.push(&to_words(&command.encode())) {
            Ok(()) => Ok(true),
            Err(PushError::Full) => Ok(false),
            Err(PushError::Peer(bad)) => Err(ControlLinkError::BadPeer(bad.into())),
        }
    }

    /// Makes pushed commands visible.
    pub(crate) fn publish(&mut self) {
        self.commands.publish();
    }

    /// The next event, if there is one.
    pub(crate) fn try_event(&mut self) -> Result<Option<Event>, ControlLinkError> {
        self.check_open()?;
        let bad = |violation: Violation| ControlLinkError::BadPeer(violation);
        let Some(record) = self.events.pop().map_err(|error| bad(error.into()))? else {
            return Ok(None);
        };
        self.events.release();
        Event::decode(&from_words(&record)).map(Some).map_err(|error| bad(error.into()))
    }

    /// An error when the data plane has closed the link.
    fn check_open(&self) -> Result<(), ControlLinkError> {
        let closed = self.lines.word(CLOSED).map_or(0, |word| word.load(Ordering::Acquire));
        let Some(index) = closed.checked_sub(1) else {
            return Ok(());
        };
        let violation = usize::try_from(index).ok().and_then(Violation::from_index);
        // A number that stands for no violation is one itself.
        Err(violation.map_or(ControlLinkError::BadPeer(Violation::BadMessage), ControlLinkError::Closed))
    }

    /// Pushes and publishes one command.
    fn send(&mut self, wait: &mut Patience<'_>, command: &Command) -> Result<(), ControlLinkError> {
        self.push(wait, command)?;
        self.publish();
        Ok(())
    }

    /// Pushes and publishes a batch; the last command makes the rest count.
    fn send_all(
        &mut self,
        wait: &mut Patience<'_>,
        first: Command,
        changes: &[Command],
        last: Command,
    ) -> Result<(), ControlLinkError> {
        self.push(wait, &first)?;
        for command in changes {
            self.push(wait, command)?;
        }
        self.send(wait, &last)
    }

    /// Pushes one command; while the ring is full, what is in it is published and waited for.
    fn push(&mut self, wait: &mut Patience<'_>, command: &Command) -> Result<(), ControlLinkError> {
        while !self.try_push(command)? {
            self.publish();
            self.check_open()?;
            wait.pause()?;
        }
        Ok(())
    }

    /// Waits for the next event.
    fn event(&mut self, wait: &mut Patience<'_>) -> Result<Event, ControlLinkError> {
        loop {
            if let Some(event) = self.try_event()? {
                return Ok(event);
            }
            wait.pause()?;
        }
    }
}

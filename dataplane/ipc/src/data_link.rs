//! The data plane's end of the link, for its manager thread.
//!
//! Why it exists: the manager wants whole, valid batches and nothing else. This end copies every record out of
//! the ring once, decodes it strictly, stages batches until their `Commit`, and answers a peer that breaks the
//! rules by closing the link. It never waits for the peer: events that find the ring full are kept here, and
//! while any are kept no further request is taken, so that one request's answers bound the queue.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::counters::{CounterReader, GaugeReader, GaugeWriter, LinkCounter, WorkerCounters};
use crate::id::{BackendId, VipId, WorkerId};
use crate::layout::{
    ATTACH_GRANT, ATTACH_REQUEST, CLOSED, COMMAND_SLOTS, COMMANDS, CONTROL_PID, EVENTS, SLOT_WORDS,
};
use crate::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_VIPS, MAX_WORKERS};
use crate::lines::Lines;
use crate::link::{Violation, from_words, to_words};
use crate::liveness::{Lock, LockError, Pid, Role, Watch};
use crate::message::{Command, Event, MAX_BATCH, Refusal};
use crate::report::Report;
use crate::ring::{self, Consumer, Producer, PushError};
use crate::segment::{Segment, SegmentError};
use crate::sync::Ordering;

/// Events kept at most: a whole dump, and some.
const MAX_KEPT: usize = MAX_POOLS + MAX_BACKENDS + MAX_VIPS + MAX_SERVICES + 1024;

/// Pause between two looks at the peer's lock.
const LOOK: Duration = Duration::from_millis(50);

/// What the control plane wants, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A control plane attached; it begins with fresh rings. For the log.
    Attached {
        /// Its pid, as it says.
        pid: Pid,
    },
    /// The control plane died or left. For the log.
    Detached,
    /// The control plane broke the rules and is not listened to until it attaches anew. For the log.
    Closed(Violation),
    /// Apply it whole or refuse it whole, and send [`Event::Committed`] or [`Event::Refused`].
    Batch(Batch),
    /// Send all there is, then [`Event::DumpEnd`].
    Dump,
    /// Send the token's owners, then [`Event::TokenEnd`].
    FindToken {
        /// The token.
        token: u32,
    },
    /// Go by it, and count what became of it. There is no answer.
    Report {
        /// The backend it is about, as the control plane says: it need not be known.
        backend: BackendId,
        /// What its agent says.
        report: Report,
    },
}

/// A complete batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its number, to be given back with the answer.
    pub number: u64,
    /// Its commands, in order: `Put…` and `Remove…` only, at most [`MAX_BATCH`].
    pub commands: Vec<Command>,
}

/// Why the data plane cannot open its end.
#[derive(Debug, thiserror::Error)]
pub enum DataLinkError {
    /// Another data plane runs, or the runtime directory cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The segment cannot be made.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// The data plane's end: lock, segment, and the state of the link. One per process, used by one thread.
#[derive(Debug)]
pub struct DataLink {
    end: DataEnd,
    taken: [bool; MAX_WORKERS],
    segment: Segment,
    peer: Watch,
    looked: Instant,
    lock: Lock,
}

impl DataLink {
    /// Becomes the data plane of a runtime directory and makes a fresh segment in it.
    pub fn create(runtime_dir: &Path) -> Result<DataLink, DataLinkError> {
        let lock = Lock::acquire(runtime_dir, Role::DataPlane)?;
        let peer = Watch::new(runtime_dir, Role::ControlPlane)?;
        let segment = Segment::create(runtime_dir)?;
        let end = DataEnd::new(segment.lines().clone())
            .ok_or_else(|| SegmentError::NotInitialised { path: runtime_dir.to_owned() })?;
        Ok(DataLink { end, taken: [false; MAX_WORKERS], segment, peer, looked: Instant::now(), lock })
    }

    /// The proof that this process is the data plane of its runtime directory, for [`crate::mapping`].
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// What the control plane wants next, if anything. Never waits; call it again soon, a few hundred times a
    /// second, and at once after it returned something. Sends what `send` had to keep.
    pub fn poll(&mut self) -> Option<Request> {
        let request = self.end.poll();
        // Only an idle peer is looked at: what it published before its death counts.
        if request.is_some() || self.looked.elapsed() < LOOK {
            return request;
        }
        self.looked = Instant::now();
        if self.end.is_detached() || self.peer.is_held() { None } else { self.end.detach() }
    }

    /// Counts what became of a report.
    pub fn count(&self, counter: LinkCounter) {
        self.end.gauges.count(counter);
    }

    /// Counts what became of several.
    pub fn count_more(&self, counter: LinkCounter, reports: u64) {
        self.end.gauges.count_more(counter, reports);
    }

    /// Sends an event, now or as soon as there is room. Without a peer it is dropped.
    pub fn send(&mut self, event: Event) {
        self.end.send(event);
    }

    /// The counters of a worker, once each; `None` when there is no such worker or it has them.
    pub fn worker(&mut self, id: WorkerId) -> Option<WorkerCounters> {
        let taken = self.taken.get_mut(usize::from(id.0))?;
        if std::mem::replace(taken, true) { None } else { WorkerCounters::of(self.segment.lines(), id) }
    }

    /// A VIP has this id from now on: what was counted under it before is not its own.
    pub fn begin_vip(&self, id: VipId) {
        let before = CounterReader::of(self.segment.lines()).with_former_owners().vip(id);
        self.end.gauges.set_vip_base(id, before);
    }

    /// A backend has this id from now on: what was counted under it before is not its own.
    pub fn begin_backend(&self, id: BackendId) {
        let before = CounterReader::of(self.segment.lines()).with_former_owners().backend(id);
        self.end.gauges.set_backend_base(id, before);
    }

    /// The gauges, to be set by the manager.
    pub fn gauges(&self) -> &GaugeWriter {
        &self.end.gauges
    }

    /// The gauges, to be read.
    pub fn gauge_reader(&self) -> GaugeReader {
        self.end.gauges.reader()
    }
}

impl Drop for DataLink {
    fn drop(&mut self) {
        self.segment.unlink();
    }
}

/// What the peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Detached,
    Attached,
    Closed,
}

/// A batch under way.
#[derive(Debug)]
struct Staging {
    batch: u64,
    commands: Vec<Command>,
    too_large: bool,
}

/// The end without lock and file: the protocol alone, over any lines. What tests and fuzzing drive.
#[derive(Debug)]
pub(crate) struct DataEnd {
    lines: Lines,
    gauges: GaugeWriter,
    commands: Consumer<SLOT_WORDS>,
    events: Producer<SLOT_WORDS>,
    state: State,
    grant: u64,
    staging: Option<Staging>,
    kept: VecDeque<Event>,
}

impl DataEnd {
    /// The end of a fresh segment; `None` when the lines are no segment.
    pub(crate) fn new(lines: Lines) -> Option<DataEnd> {
        Some(DataEnd {
            gauges: GaugeWriter::of(&lines)?,
            commands: Consumer::new(lines.part(COMMANDS)?)?,
            events: Producer::new(lines.part(EVENTS)?)?,
            lines,
            state: State::Detached,
            grant: 0,
            staging: None,
            kept: VecDeque::new(),
        })
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.state == State::Detached
    }

    /// One step: an attach, or the next request. Bounded by the size of the command ring.
    pub(crate) fn poll(&mut self) -> Option<Request> {
        if let Some(attached) = self.attach() {
            return Some(attached);
        }
        if self.state != State::Attached {
            return None;
        }
        match self.exchange() {
            Ok(request) => request,
            Err(violation) => Some(self.close(violation)),
        }
    }

    /// Sends or keeps an event.
    pub(crate) fn send(&mut self, event: Event) {
        match event {
            Event::Committed { .. } => self.gauges.count(LinkCounter::Committed),
            Event::Refused { .. } => self.gauges.count(LinkCounter::Refused),
            _ => {}
        }
        // A closed or detached peer gets nothing; the next one reads the state anew. The queue stays bounded
        // also when the caller sends much without polling: `exchange` closes such a link.
        if self.state == State::Attached && self.kept.len() <= MAX_KEPT {
            self.kept.push_back(event);
        }
    }

    /// The peer is gone.
    pub(crate) fn detach(&mut self) -> Option<Request> {
        self.forget();
        self.state = State::Detached;
        self.gauges.count(LinkCounter::Detached);
        Some(Request::Detached)
    }

    /// Grants a request that is new: forgets the last peer, resets both rings, then says so.
    fn attach(&mut self) -> Option<Request> {
        // REQUEST: pairs with the store of the control plane; nothing but the number depends on it.
        let request = self.lines.word(ATTACH_REQUEST)?.load(Ordering::Acquire);
        if request == 0 || request == self.grant {
            return None;
        }
        self.forget();
        let (commands, events) = (self.lines.part(COMMANDS)?, self.lines.part(EVENTS)?);
        ring::reset(&commands);
        ring::reset(&events);
        self.commands = Consumer::new(commands)?;
        self.events = Producer::new(events)?;
        self.grant = request;
        self.state = State::Attached;
        self.gauges.count(LinkCounter::Attached);
        self.lines.word(CLOSED)?.store(0, Ordering::Relaxed);
        let pid = self.lines.word(CONTROL_PID)?.load(Ordering::Relaxed);
        // GRANT: the reset cursors and the open state are visible to the control plane that sees the grant.
        self.lines.word(ATTACH_GRANT)?.store(request, Ordering::Release);
        Some(Request::Attached { pid: Pid(u32::try_from(pid).ok()) })
    }

    /// Drops what the last peer left unfinished.
    fn forget(&mut self) {
        self.abandon();
        self.kept.clear();
    }

    fn abandon(&mut self) {
        if self.staging.take().is_some() {
            self.gauges.count(LinkCounter::Abandoned);
        }
    }

    fn close(&mut self, violation: Violation) -> Request {
        self.forget();
        self.state = State::Closed;
        self.gauges.count(match violation {
            Violation::BadCursor => LinkCounter::BadCursor,
            Violation::BadMessage => LinkCounter::BadMessage,
            Violation::OutOfOrder => LinkCounter::OutOfOrder,
            Violation::NotReading => LinkCounter::NotReading,
        });
        if let (Some(word), Ok(index)) = (self.lines.word(CLOSED), u64::try_from(violation.index())) {
            word.store(index + 1, Ordering::Release);
        }
        Request::Closed(violation)
    }

    /// Kept events out, then commands in, until one makes a request.
    fn exchange(&mut self) -> Result<Option<Request>, Violation> {
        self.flush()?;
        if !self.kept.is_empty() {
            return Ok(None);
        }
        let mut request = None;
        for _ in 0..COMMAND_SLOTS {
            let Some(record) = self.commands.pop()? else { break };
            request = self.take(Command::decode(&from_words(&record))?)?;
            if request.is_some() || !self.kept.is_empty() {
                break;
            }
        }
        self.commands.release();
        self.flush()?;
        Ok(request)
    }

    /// Moves kept events into the ring as far as there is room.
    fn flush(&mut self) -> Result<(), Violation> {
        if self.kept.len() > MAX_KEPT {
            return Err(Violation::NotReading);
        }
        while let Some(event) = self.kept.front() {
            match self.events.push(&to_words(&event.encode())) {
                Ok(()) => drop(self.kept.pop_front()),
                Err(PushError::Full) => break,
                Err(PushError::Peer(bad)) => return Err(bad.into()),
            }
        }
        self.events.publish();
        Ok(())
    }

    /// One command: stages it, or makes a request of it.
    fn take(&mut self, command: Command) -> Result<Option<Request>, Violation> {
        match (command, &mut self.staging) {
            (Command::Begin { batch }, _) => {
                self.abandon();
                self.staging = Some(Staging { batch, commands: Vec::new(), too_large: false });
                Ok(None)
            }
            (Command::Abandon { batch }, Some(staging)) if staging.batch == batch => {
                self.abandon();
                Ok(None)
            }
            (Command::Commit { batch }, Some(staging)) if staging.batch == batch => Ok(self.commit()),
            (Command::Dump, None) => Ok(Some(Request::Dump)),
            (Command::FindToken { token }, None) => Ok(Some(Request::FindToken { token })),
            (Command::Report { backend, report }, None) => Ok(Some(Request::Report { backend, report })),
            (command, Some(staging)) if command.is_change() => {
                if staging.commands.len() < MAX_BATCH {
                    staging.commands.push(command);
                } else {
                    staging.too_large = true;
                }
                Ok(None)
            }
            _ => Err(Violation::OutOfOrder),
        }
    }

    /// The staged batch as a request; one that was too large is refused here.
    fn commit(&mut self) -> Option<Request> {
        let staging = self.staging.take()?;
        if !staging.too_large {
            return Some(Request::Batch(Batch { number: staging.batch, commands: staging.commands }));
        }
        self.send(Event::Refused {
            batch: staging.batch,
            command: u32::try_from(MAX_BATCH).unwrap_or(u32::MAX),
            refusal: Refusal::BatchTooLarge,
            name: None,
        });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_link::{ControlEnd, ControlLinkError};
    use crate::layout::{EVENT_SLOTS, SEGMENT_LINES};
    use crate::lines::WORDS;
    use crate::message::Name;
    use crate::sync::AtomicU64;

    struct Pair {
        lines: Lines,
        data: DataEnd,
        control: ControlEnd,
    }

    fn pair() -> Pair {
        let lines = Lines::heap(SEGMENT_LINES);
        let mut data = DataEnd::new(lines.clone()).unwrap();
        let request = ControlEnd::request(&lines);
        assert!(ControlEnd::granted(&lines, request).is_none(), "not before the data plane says so");
        assert!(matches!(data.poll(), Some(Request::Attached { .. })));
        let control = ControlEnd::granted(&lines, request).unwrap();
        Pair { lines, data, control }
    }

    impl Pair {
        fn push(&mut self, command: Command) {
            assert!(self.control.try_push(&command).unwrap());
            self.control.publish();
        }

        fn word(&self, index: usize) -> &AtomicU64 {
            self.lines.word(index).unwrap()
        }

        fn counted(&self, counter: LinkCounter) -> u64 {
            self.data.gauges.reader().link(counter)
        }

        /// The link is closed for this reason, counted once, the peer is told, and a new attach opens it again.
        fn assert_closes(mut self, violation: Violation, counter: LinkCounter) {
            assert_eq!(self.data.poll(), Some(Request::Closed(violation)));
            assert_eq!(self.data.poll(), None, "closed once");
            assert_eq!(self.counted(counter), 1);
            match self.control.try_event() {
                Err(ControlLinkError::Closed(told)) => assert_eq!(told, violation),
                other => panic!("{other:?}"),
            }
            let request = ControlEnd::request(&self.lines);
            assert!(matches!(self.data.poll(), Some(Request::Attached { .. })));
            self.control = ControlEnd::granted(&self.lines, request).unwrap();
            self.push(Command::Dump);
            assert_eq!(self.data.poll(), Some(Request::Dump));
        }
    }

    fn pool(n: usize) -> Command {
        Command::PutPool { name: format!("p{n}").parse::<Name>().unwrap() }
    }

    #[test]
    fn a_batch_is_seen_whole_and_only_after_its_commit() {
        let mut pair = pair();
        for command in [Command::Begin { batch: 4 }, pool(1), pool(2)] {
            pair.push(command);
            assert_eq!(pair.data.poll(), None);
        }
        pair.push(Command::Commit { batch: 4 });
        assert_eq!(
            pair.data.poll(),
            Some(Request::Batch(Batch { number: 4, commands: vec![pool(1), pool(2)] }))
        );
        pair.data.send(Event::Committed { batch: 4, generation: 9 });
        assert_eq!(pair.data.poll(), None);
        assert_eq!(pair.control.try_event().unwrap(), Some(Event::Committed { batch: 4, generation: 9 }));
        assert_eq!(pair.counted(LinkCounter::Committed), 1);
    }

    #[test]
    fn an_abandoned_batch_is_forgotten_and_counted() {
        let mut pair = pair();
        for command in [Command::Begin { batch: 1 }, pool(1), Command::Abandon { batch: 1 }] {
            pair.push(command);
        }
        for command in [Command::Begin { batch: 2 }, pool(2), Command::Begin { batch: 3 }, pool(3)] {
            pair.push(command);
        }
        pair.push(Command::Commit { batch: 3 });
        assert_eq!(pair.data.poll(), Some(Request::Batch(Batch { number: 3, commands: vec![pool(3)] })));
        assert_eq!(pair.counted(LinkCounter::Abandoned), 2);
    }

    #[test]
    fn a_commit_of_another_batch_closes_the_link() {
        let mut pair = pair();
        pair.push(Command::Begin { batch: 1 });
        pair.push(Command::Commit { batch: 2 });
        pair.assert_closes(Violation::OutOfOrder, LinkCounter::OutOfOrder);
    }

    #[test]
    fn a_change_outside_a_batch_closes_the_link() {
        let mut pair = pair();
        pair.push(pool(1));
        pair.assert_closes(Violation::OutOfOrder, LinkCounter::OutOfOrder);
    }

    #[test]
    fn a_dump_within_a_batch_closes_the_link() {
        let mut pair = pair();
        pair.push(Command::Begin { batch: 1 });
        pair.push(Command::Dump);
        pair.assert_closes(Violation::OutOfOrder, LinkCounter::OutOfOrder);
    }

    #[test]
    fn reports_come_one_by_one_in_order_and_not_within_a_batch() {
        let mut pair = pair();
        let (backend, token) = (BackendId(7), 9);
        let reports =
            [Report::Lease { seconds: 60 }, Report::TokenLives { token }, Report::TokenEnded { token }];
        for report in reports {
            pair.push(Command::Report { backend, report });
        }
        for report in reports {
            assert_eq!(pair.data.poll(), Some(Request::Report { backend, report }));
        }
        assert_eq!(pair.data.poll(), None);
        pair.push(Command::Begin { batch: 1 });
        pair.push(Command::Report { backend, report: Report::Lease { seconds: 60 } });
        pair.assert_closes(Violation::OutOfOrder, LinkCounter::OutOfOrder);
    }

    #[test]
    fn a_slot_of_garbage_closes_the_link() {
        let mut pair = pair();
        pair.push(Command::Dump);
        pair.word((COMMANDS.start + ring::HEAD_LINES) * WORDS).store(u64::MAX, Ordering::Relaxed);
        pair.assert_closes(Violation::BadMessage, LinkCounter::BadMessage);
    }

    #[test]
    fn an_impossible_command_cursor_closes_the_link() {
        let pair = pair();
        pair.word(COMMANDS.start * WORDS).store(u64::MAX, Ordering::Relaxed);
        pair.assert_closes(Violation::BadCursor, LinkCounter::BadCursor);
    }

    #[test]
    fn an_impossible_event_cursor_closes_the_link() {
        let mut pair = pair();
        pair.word(EVENTS.start * WORDS + WORDS).store(u64::MAX, Ordering::Relaxed);
        for generation in 0..=u64::try_from(EVENT_SLOTS).unwrap() {
            pair.data.send(Event::DumpEnd { generation });
        }
        pair.assert_closes(Violation::BadCursor, LinkCounter::BadCursor);
    }

    #[test]
    fn a_peer_that_takes_no_events_is_asked_for_nothing_more_and_then_closed() {
        let mut pair = pair();
        for generation in 0..=u64::try_from(EVENT_SLOTS).unwrap() {
            pair.data.send(Event::DumpEnd { generation });
        }
        pair.push(Command::Dump);
        assert_eq!(pair.data.poll(), None, "the answers of the last request come first");
        for generation in 0..2 * u64::try_from(MAX_KEPT).unwrap() {
            pair.data.send(Event::DumpEnd { generation });
        }
        assert!(pair.data.kept.len() <= MAX_KEPT + 1, "bounded");
        pair.assert_closes(Violation::NotReading, LinkCounter::NotReading);
    }

    #[test]
    fn kept_events_follow_in_order_as_the_peer_takes_them() {
        let mut pair = pair();
        let count = u64::try_from(EVENT_SLOTS * 2).unwrap();
        for generation in 0..count {
            pair.data.send(Event::DumpEnd { generation });
        }
        for generation in 0..count {
            assert_eq!(pair.data.poll(), None);
            assert_eq!(pair.control.try_event().unwrap(), Some(Event::DumpEnd { generation }));
        }
    }

    #[test]
    fn nothing_is_said_to_nobody() {
        let mut data = DataEnd::new(Lines::heap(SEGMENT_LINES)).unwrap();
        data.send(Event::DumpEnd { generation: 1 });
        assert!(data.kept.is_empty());
        assert_eq!(data.poll(), None);
    }

    #[test]
    fn a_request_is_never_zero_nor_the_grant_nor_a_pending_one() {
        for (grant, pending) in [(0, 0), (1, u64::MAX), (u64::MAX, u64::MAX), (5, 4), (5, 9)] {
            let lines = Lines::heap(SEGMENT_LINES);
            lines.word(ATTACH_GRANT).unwrap().store(grant, Ordering::Relaxed);
            lines.word(ATTACH_REQUEST).unwrap().store(pending, Ordering::Relaxed);
            let request = ControlEnd::request(&lines);
            assert!(request != 0 && request != grant && request != pending, "{grant} {pending}");
        }
    }

    #[test]
    fn a_worker_block_is_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut link = DataLink::create(dir.path()).unwrap();
        assert!(link.worker(WorkerId(0)).is_some());
        assert!(link.worker(WorkerId(0)).is_none());
        assert!(link.worker(WorkerId(u16::MAX)).is_none());
    }

    #[test]
    fn a_new_owner_of_an_id_inherits_no_totals() {
        let dir = tempfile::tempdir().unwrap();
        let mut link = DataLink::create(dir.path()).unwrap();
        let reader = CounterReader::of(link.segment.lines());
        let workers = [0, 1].map(|id| link.worker(WorkerId(id)).unwrap());
        let count = || {
            for (packets, worker) in (1..).zip(&workers) {
                worker.vip(VipId(3), packets, 60 * packets);
                worker.backend(BackendId(4095), packets, 70 * packets);
            }
        };
        let is = |packets, bytes| crate::counters::Traffic { packets, bytes };
        count();
        assert_eq!((reader.vip(VipId(3)), reader.backend(BackendId(4095))), (is(3, 180), is(3, 210)));
        link.begin_vip(VipId(3));
        assert_eq!((reader.vip(VipId(3)), reader.backend(BackendId(4095))), (is(0, 0), is(3, 210)));
        count();
        link.begin_backend(BackendId(4095));
        assert_eq!((reader.vip(VipId(3)), reader.backend(BackendId(4095))), (is(3, 180), is(0, 0)));
        count();
        link.begin_vip(VipId(3));
        count();
        assert_eq!((reader.vip(VipId(3)), reader.backend(BackendId(4095))), (is(3, 180), is(6, 420)));
        assert_eq!(
            reader.worker(WorkerId(1)).unwrap().vip(VipId(3)),
            is(8, 480),
            "one worker's are all there were"
        );
        link.begin_vip(VipId(256));
        link.begin_backend(BackendId(4096));
        assert_eq!(reader.vip(VipId(0)), is(0, 0), "an id that cannot be runs into no other");
    }

    #[test]
    fn a_link_that_ends_takes_its_segment_along() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataLink::create(dir.path()).unwrap());
        assert!(!dir.path().join("segment").exists());
    }

    /// Threads in place of a hostile process: real races, where the fuzz target has none.
    #[test]
    fn a_peer_that_scribbles_all_the_while_breaks_nothing() {
        let mut pair = pair();
        let lines = pair.lines.clone();
        let words = lines.len() * WORDS;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut state = 0x9e37_79b9_7f4a_7c15_u64;
                for round in 0..200_000_u64 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let anywhere = usize::try_from(state).unwrap() % words;
                    let near = [ATTACH_REQUEST, COMMANDS.start * WORDS, EVENTS.start * WORDS + WORDS];
                    let target = if round % 4 == 0 { near[anywhere % 3] } else { anywhere };
                    lines.word(target).unwrap().store(state % 300, Ordering::Relaxed);
                }
            });
            for _ in 0..20_000 {
                if let Some(Request::Batch(batch)) = pair.data.poll() {
                    assert!(batch.commands.iter().all(Command::is_change));
                }
                pair.data.send(Event::DumpEnd { generation: 1 });
            }
        });
    }
}

//! The manager: a thread of the data plane that turns commands into snapshots.
//!
//! It alone changes the model, builds snapshots and frees them. A batch is applied to a copy of the model; the
//! copy is written down for a successor, published in two phases (see [`engine::snapshot`]) and only then
//! acknowledged, so `Committed` means: every worker goes by it, and a restart does not lose it. Written down first,
//! because an id must have its meaning before the first entry holds it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::model::Model;
use engine::reported::Reports;
use engine::snapshot::{Site, Snapshot};
use engine::tables::Tables;
use ipc::counters::{Gauge, LinkCounter};
use ipc::data_link::{Batch, DataLink, Request};
use ipc::id::BackendId;
use ipc::message::Event;
use ipc::report::Report;

use crate::agents::Agents;
use crate::census::Census;
use crate::clock::Clock;
use crate::dump;
use crate::kept::Kept;
use crate::port_watch::PortWatch;
use site::publish::Publisher;

/// Pause between two turns when nothing is asked: commands wait this long at most.
const IDLE_PAUSE: Duration = Duration::from_millis(2);

/// Pause between two looks at workers that have not taken over a snapshot yet.
const ADOPTION_PAUSE: Duration = Duration::from_micros(50);

/// Turns between two readings of the ports' statistics: about twice a second.
const PORT_EVERY: u32 = 250;

/// Reports of agents taken in one turn: whatever comes in, the heartbeat and what is due are not late for it.
const REPORTS_PER_TURN: usize = 512;

/// See the module's header.
pub struct Manager {
    /// The link to the control plane.
    pub link: DataLink,
    /// The link to the workers.
    pub publisher: Publisher,
    /// What is configured.
    pub model: Model,
    /// What the workers go by, or will.
    pub snapshot: Arc<Snapshot>,
    /// Ports and seeds.
    pub site: Site,
    /// The tables, to count what they hold.
    pub tables: Arc<Tables>,
    /// The time, which the manager writes.
    pub clock: Arc<Clock>,
    /// The ports, to read their statistics.
    pub ports: PortWatch,
    /// The count of entries under way.
    pub census: Census,
    /// What agents vouch for.
    pub agents: Agents,
    /// What a successor finds.
    pub kept: Kept,
}

impl Manager {
    /// Serves the control plane until told to stop.
    pub fn run(&mut self, stop: &AtomicBool) {
        let mut turns: u32 = 0;
        let mut second = 0;
        while !stop.load(Ordering::Relaxed) {
            self.clock.update();
            self.each_second(&mut second, stop);
            self.publisher.reclaim();
            let worked = self.listen(stop);
            let withdrawn =
                self.agents.renew(&self.tables, self.clock.now().seconds(), self.clock.now().tick());
            self.link.count_more(LinkCounter::AgentClosed, withdrawn);
            self.take_census(stop);
            if turns.is_multiple_of(PORT_EVERY) {
                self.ports.show(self.link.gauges());
            }
            turns = turns.wrapping_add(1);
            if !worked {
                std::thread::sleep(IDLE_PAUSE);
            }
        }
    }

    /// Serves the next request; of reports, several. Says whether there may be more at once.
    fn listen(&mut self, stop: &AtomicBool) -> bool {
        for _ in 0..REPORTS_PER_TURN {
            match self.link.poll() {
                Some(Request::Report { backend, report }) => self.go_by(backend, &report),
                Some(request) => {
                    // Only questions and changes are followed at once: a peer that attaches for ever must not spin us.
                    let is_work =
                        matches!(request, Request::Batch(_) | Request::Dump | Request::FindToken { .. });
                    self.serve(request, stop);
                    return is_work;
                }
                None => return false,
            }
        }
        true
    }

    /// Applies what an agent reports, and counts what became of it.
    fn go_by(&mut self, backend: BackendId, report: &Report) {
        let now = self.clock.now();
        let (tick, millis) = (now.tick(), now.millis());
        let reports =
            Reports { tables: &self.tables, snapshot: &self.snapshot, now: tick, millis, round: false };
        self.agents.apply(backend, report, &reports, now.seconds(), |counter| self.link.count(counter));
    }

    /// What is due once a second: the heartbeat, and backends whose deadline has come.
    fn each_second(&mut self, second: &mut u64, stop: &AtomicBool) {
        let now = self.clock.now().seconds();
        if now == *second {
            return;
        }
        *second = now;
        self.kept.beat(now);
        if self.model.has_due(now) {
            let mut next = self.model.clone();
            let deleted = next.expire(now);
            log::info!("{deleted} removed backend(s) deleted: their deadline has come");
            self.replace(next, stop);
        }
    }

    /// Goes by a model that knows no backend the present one does not know.
    fn replace(&mut self, next: Model, stop: &AtomicBool) {
        self.kept.save(&next, self.snapshot.generation + 1);
        self.publish(self.following(&next), stop);
        self.model = next;
        self.census.restart();
        self.show_model();
    }

    fn serve(&mut self, request: Request, stop: &AtomicBool) {
        match request {
            Request::Attached { pid } => log::info!("the control plane ({pid}) attached"),
            Request::Detached => {
                log::warn!("the control plane is gone: forwarding goes on as last configured");
            }
            Request::Closed(violation) => log::error!(
                "the control plane broke the rules ({violation}): not listened to until it attaches again"
            ),
            Request::Batch(batch) => self.apply(&batch, stop),
            Request::Dump => {
                let generation = self.snapshot.generation;
                let now = self.clock.now().seconds();
                for event in dump::events(&self.model, self.link.gauges(), now) {
                    self.link.send(event);
                }
                self.link.send(Event::DumpEnd { generation });
            }
            Request::FindToken { token } => {
                for event in dump::owners(&self.model, &self.tables, token, self.clock.now().tick()) {
                    self.link.send(event);
                }
                self.link.send(Event::TokenEnd { token });
            }
            Request::Report { backend, report } => self.go_by(backend, &report),
        }
    }

    /// Applies a batch whole, or refuses it whole.
    fn apply(&mut self, batch: &Batch, stop: &AtomicBool) {
        match self.model.apply_at(&batch.commands, self.clock.now().seconds()) {
            Ok(next) => {
                let is_new = next.has_new_backends(&self.model);
                let last = self.snapshot.generation + if is_new { 2 } else { 1 };
                self.kept.save(&next, last);
                self.begin_counts(&next);
                if is_new {
                    let knowing = self.snapshot.knowing(&next, &self.site, last - 1);
                    self.publish(knowing, stop);
                }
                let selecting = self.following(&next);
                self.publish(selecting, stop);
                self.model = next;
                self.census.restart();
                self.show_model();
                let generation = self.snapshot.generation;
                log::info!("generation {generation}: {} command(s) applied", batch.commands.len());
                self.link.send(Event::Committed { batch: batch.number, generation });
            }
            Err(refused) => {
                log::warn!(
                    "batch {} refused at {}: {}",
                    batch.number,
                    refused.name,
                    refused.refusal.meaning()
                );
                self.link.send(Event::Refused {
                    batch: batch.number,
                    command: refused.command,
                    refusal: refused.refusal,
                    name: Some(refused.name),
                });
            }
        }
    }

    /// The snapshot of a model, after the one there is.
    fn following(&self, model: &Model) -> Snapshot {
        self.snapshot.following(model, &self.site, self.snapshot.generation + 1, self.clock.now().millis())
    }

    /// Whoever has an id that was another's counts from zero.
    fn begin_counts(&mut self, next: &Model) {
        let known: BTreeSet<_> = backend_ids(&self.model).collect();
        for id in backend_ids(next).filter(|id| !known.contains(id)) {
            self.link.begin_backend(id);
            self.agents.begin_backend(id);
        }
        let known: BTreeSet<_> = self.model.vips().iter().map(|vip| (vip.id, vip.name)).collect();
        for vip in next.vips().iter().filter(|vip| !known.contains(&(vip.id, vip.name))) {
            self.link.begin_vip(vip.id);
        }
    }

    /// Hands a snapshot to every worker and waits until all go by it: microseconds, since workers poll.
    fn publish(&mut self, snapshot: Snapshot, stop: &AtomicBool) {
        let snapshot = Arc::new(snapshot);
        let mut offered = false;
        while !stop.load(Ordering::Relaxed) {
            offered = offered || self.publisher.publish(&snapshot);
            if offered && self.publisher.is_adopted(snapshot.generation) {
                break;
            }
            std::thread::sleep(ADOPTION_PAUSE);
            self.clock.update();
            self.kept.beat(self.clock.now().seconds());
        }
        self.publisher.reclaim();
        self.snapshot = snapshot;
    }

    /// Counts on through the tables; after a whole count, tells it and forgets backends that hold nothing.
    fn take_census(&mut self, stop: &AtomicBool) {
        let Some(count) = self.census.advance(&self.tables) else { return };
        let gauges = self.link.gauges();
        gauges.set(Gauge::Flows, count.flows());
        gauges.set(Gauge::Tokens, count.tokens());
        for pool in self.model.pools() {
            for backend in &pool.backends {
                let (flows, tokens) = count.of(backend.id);
                gauges.set_backend(backend.id, flows, tokens);
            }
        }
        if self.model.has_removed() {
            // Both counts began after the last change was adopted: of a backend that workers did not know by then
            // nobody makes an entry any more.
            let mut next = self.model.clone();
            next.forget(|id| count.is_unused(id));
            if next != self.model {
                self.replace(next, stop);
            }
        }
    }

    /// Tells what is configured.
    pub fn show_model(&self) {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let gauges = self.link.gauges();
        let pools = self.model.pools().iter().filter(|pool| !pool.removed);
        let backends = pools.clone().flat_map(|pool| &pool.backends).filter(|backend| backend.is_present());
        let services = self.model.vips().iter().map(|vip| vip.services.len()).sum();
        gauges.set(Gauge::Generation, self.snapshot.generation);
        gauges.set(Gauge::Pools, count(pools.count()));
        gauges.set(Gauge::Backends, count(backends.count()));
        gauges.set(Gauge::Vips, count(self.model.vips().len()));
        gauges.set(Gauge::Services, count(services));
    }
}

/// Every id that stands for a backend, deleted ones included.
fn backend_ids(model: &Model) -> impl Iterator<Item = BackendId> {
    model.pools().iter().flat_map(|pool| pool.backends.iter().map(|backend| backend.id))
}

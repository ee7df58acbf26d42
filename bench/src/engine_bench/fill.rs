//! Tables that are filled without packets: as many entries as a figure wants, in the time that a figure has.
//!
//! The entries are those that handshakes would have left, entered through the tables' own functions.

use engine::flow_entry::{FlowEntry, FlowState};
use engine::flow_table::{Inserted, Keep};
use engine::tick::Tick;
use engine::token_table::Learn;
use ipc::id::BackendId;
use packet::Token;

use super::bench::progress;
use crate::traffic::{Clients, mix, token};
use crate::world::World;

/// Entries whose lines are asked for together.
const TOGETHER: usize = 64;

/// Enters the established flows of clients 0 to `count`; says how many found no place.
pub fn flows(world: &World, clients: &Clients, count: u32) -> u64 {
    let room = world.tables.lifetimes.room(world.now);
    let progress = progress(u64::from(count), "flows entered");
    let mut homeless = 0;
    let mut some: Vec<(u64, FlowEntry)> = Vec::with_capacity(TOGETHER);
    for number in 0..u64::from(count) {
        let client = clients.get(number);
        let flow = clients.flow(&client);
        let backend = backend(world, world.snapshot.public_key().flow(&flow));
        let opened = FlowEntry::opened(FlowState::Mptcp, world.now, backend, client.isn, client.isn);
        let hash = world.tables.flow_hash(&flow);
        world.tables.flows.prefetch(hash);
        some.push((hash, FlowEntry { lasting: true, ..opened }));
        if some.len() == TOGETHER || number + 1 == u64::from(count) {
            for (hash, entry) in some.drain(..) {
                let full = matches!(world.tables.flows.insert(hash, entry, &room), Inserted::Full);
                homeless += u64::from(full);
            }
            progress.set_position(number);
        }
    }
    progress.finish_and_clear();
    homeless
}

/// Enters tokens 0 to `count` of a seed as last seen at `tick`; says how many found no place.
pub fn tokens(world: &World, count: u32, seed: u64, tick: Tick) -> u64 {
    let progress = progress(u64::from(count), "tokens entered");
    let pool = world.pool();
    let mut homeless = 0;
    let mut some: Vec<(u64, Token)> = Vec::with_capacity(TOGETHER);
    for number in 0..count {
        let token = token(number, seed);
        let hash = world.tables.token_hash(token, pool);
        world.tables.tokens.prefetch(hash);
        some.push((hash, token));
        if some.len() == TOGETHER || number + 1 == count {
            for (hash, token) in some.drain(..) {
                let backend = backend(world, mix(u64::from(token.0)));
                let learned = world.tables.tokens.learn(hash, token, backend, tick, |_| true);
                homeless += u64::from(learned == Learn::Full);
            }
            if number % (1 << 16) == 0 {
                progress.set_position(u64::from(number));
            }
        }
    }
    progress.finish_and_clear();
    homeless
}

fn backend(world: &World, hash: u64) -> BackendId {
    world.snapshot.choose(world.pool(), hash).unwrap_or(BackendId(1))
}

/// Takes out every flow that was opened since the table was filled.
pub fn forget_opened(world: &World) {
    let keep = |entry: &FlowEntry| {
        if entry.state == FlowState::Mptcp && entry.lasting { Keep::Yes } else { Keep::No }
    };
    world.tables.flows.sweep(0, world.tables.flows.lines(), keep);
}

/// How far after `now` the tokens a table is filled with were seen, in ticks, where others are to be taken out again:
/// near enough to count as seen now, far enough to be told apart.
const APART: u16 = 31;

/// When tokens are entered that [`forget_learned`] shall leave.
pub fn tick_of_kept(world: &World) -> Tick {
    world.now.after(APART)
}

/// Takes out every token that was learned at `world.now`, and leaves those of [`tick_of_kept`].
pub fn forget_learned(world: &World) {
    world.tables.tokens.sweep(0, world.tables.tokens.lines(), tick_of_kept(world), APART - 1);
}

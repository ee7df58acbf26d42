//! Desired minus actual, as commands of one batch. A pure function.
//!
//! Order, so that every prefix of the batch is valid: services leave before others take them, VIPs leave after
//! their services, pools come before their backends and VIPs, and pools leave last, when no VIP names them and
//! no backend is in them. Backends leave before others come, so that a full directory can change.

use std::collections::BTreeMap;

use ipc::message::{BackendState, Command, Event, Name, Presence};

use crate::state::{Backend, State, Vip};

/// Removals made at run time, by pool and backend: seconds until the connections end, `None` for their own end.
pub type Deadlines = BTreeMap<(Name, Name), Option<u32>>;

/// How far a deadline may be from the one wanted: both are told in whole seconds, at two moments.
const SLACK: u32 = 5;

/// The desired state, with the MAC addresses the data plane goes by where none is known here (any more): a control
/// plane that was just started has resolved nothing yet, and a stale MAC serves better than none.
pub fn keep_resolved(mut desired: State, actual: &State) -> State {
    for (pool, backends) in &mut desired.pools {
        let Some(known) = actual.pools.get(pool) else { continue };
        for (name, backend) in backends {
            let same = known.get(name).filter(|known| known.is_where(backend));
            backend.mac = backend.mac.or_else(|| same.and_then(|known| known.mac));
        }
    }
    desired
}

/// The commands that give removed backends, as a dump tells them, the deadlines they should have. A deadline is part
/// of a removal, so such a backend comes back and goes again within one batch: nothing is chosen in between.
pub fn re_deadline(desired: &State, deadlines: &Deadlines, dump: &[Event]) -> Vec<Command> {
    let mut commands = Vec::new();
    for event in dump {
        let Event::Backend {
            pool, name, address4, address6, mac, weight, handles, presence, deadline, ..
        } = *event
        else {
            continue;
        };
        let Some(wanted) = deadlines.get(&(pool, name)) else { continue };
        let is_near = match (wanted, deadline) {
            (Some(wanted), Some(told)) => wanted.abs_diff(told) <= SLACK,
            // One made without a deadline takes none back.
            (None, _) => true,
            (Some(_), None) => false,
        };
        if presence == Presence::Removed && !is_near && desired.pools.contains_key(&pool) {
            let state = BackendState::Draining;
            commands.push(Command::PutBackend {
                pool,
                name,
                address4,
                address6,
                mac,
                weight,
                state,
                handles,
            });
            commands.push(Command::RemoveBackend { pool, name, deadline: *wanted });
        }
    }
    commands
}

/// The pools that have another name in `desired`: a pool that is gone and a new one with backends of the same names and
/// addresses, some added or some taken away, each the other's best match and no third as good. To remove the one and
/// add the other would part its tokens from their connections. A name that a removed pool of the `dump` still holds
/// cannot be given.
pub fn renames(desired: &State, actual: &State, dump: &[Event]) -> Vec<Command> {
    let is_held = |wanted: &Name| {
        dump.iter().any(|event| matches!(event, Event::Backend { pool, .. } if pool == wanted))
    };
    let gone: Vec<_> = actual.pools.iter().filter(|(name, _)| !desired.pools.contains_key(name)).collect();
    let new: Vec<_> = desired.pools.iter().filter(|(name, _)| !actual.pools.contains_key(name)).collect();
    let mut commands = Vec::new();
    for (to, backends) in &new {
        let before = best_match(backends, &gone).filter(|name| {
            let match_of_it = actual.pools.get(name).and_then(|backends| best_match(backends, &new));
            match_of_it == Some(**to)
        });
        if let Some(name) = before.filter(|_| !is_held(to)) {
            commands.push(Command::RenamePool { name, to: **to });
        }
    }
    commands
}

/// The one pool that has most backends in common with these, if one has.
fn best_match(
    backends: &BTreeMap<Name, Backend>,
    pools: &[(&Name, &BTreeMap<Name, Backend>)],
) -> Option<Name> {
    let scores = pools.iter().map(|(name, others)| (in_common(backends, others), **name));
    let (best, name) = scores.clone().max()?;
    let is_alone = scores.filter(|(score, _)| *score == best).count() == 1;
    (best > 0 && is_alone).then_some(name)
}

/// How many backends two pools have in common, by name and addresses; none, unless one pool has all of the other's.
fn in_common(one: &BTreeMap<Name, Backend>, other: &BTreeMap<Name, Backend>) -> usize {
    let is_in_other =
        |(name, backend): &(&Name, &Backend)| other.get(name).is_some_and(|own| own.is_where(backend));
    let common = one.iter().filter(is_in_other).count();
    if common == one.len().min(other.len()) { common } else { 0 }
}

/// The commands that make `actual` into `desired`; none if it is so already.
pub fn reconcile(desired: &State, actual: &State, deadlines: &Deadlines) -> Vec<Command> {
    let mut commands = Vec::new();
    remove_services(desired, actual, &mut commands);
    for name in actual.vips.keys().filter(|name| !desired.vips.contains_key(name)) {
        commands.push(Command::RemoveVip { name: *name });
    }
    for (pool, backends) in &actual.pools {
        let wanted = desired.pools.get(pool);
        for name in backends.keys().filter(|name| !wanted.is_some_and(|wanted| wanted.contains_key(name))) {
            let deadline = deadlines.get(&(*pool, *name)).copied().flatten();
            commands.push(Command::RemoveBackend { pool: *pool, name: *name, deadline });
        }
    }
    for (pool, backends) in &desired.pools {
        let existing = actual.pools.get(pool);
        if existing.is_none() {
            commands.push(Command::PutPool { name: *pool });
        }
        for (name, backend) in backends {
            if existing.and_then(|existing| existing.get(name)) != Some(backend) {
                commands.push(put_backend(*pool, *name, backend));
            }
        }
    }
    put_vips(desired, actual, &mut commands);
    for name in actual.pools.keys().filter(|name| !desired.pools.contains_key(name)) {
        commands.push(Command::RemovePool { name: *name });
    }
    commands
}

/// Whether the services of a VIP may stay while the VIP changes: another protocol makes them other services.
fn keeps_services(desired: Option<&Vip>, actual: &Vip) -> bool {
    desired.is_some_and(|desired| desired.protocol == actual.protocol)
}

fn remove_services(desired: &State, actual: &State, commands: &mut Vec<Command>) {
    for (name, vip) in &actual.vips {
        let wanted = desired.vips.get(name);
        let keeps = keeps_services(wanted, vip);
        for service in &vip.services {
            if !keeps || !wanted.is_some_and(|wanted| wanted.services.contains(service)) {
                commands.push(Command::RemoveService { vip: *name, address: service.0, port: service.1 });
            }
        }
    }
}

fn put_vips(desired: &State, actual: &State, commands: &mut Vec<Command>) {
    for (name, vip) in &desired.vips {
        if actual.vips.get(name).is_none_or(|existing| properties(existing) != properties(vip)) {
            commands.push(put_vip(*name, vip));
        }
    }
    for (name, vip) in &desired.vips {
        let existing = actual.vips.get(name).filter(|existing| keeps_services(Some(vip), existing));
        for service in &vip.services {
            if !existing.is_some_and(|existing| existing.services.contains(service)) {
                commands.push(Command::PutService { vip: *name, address: service.0, port: service.1 });
            }
        }
    }
}

fn properties(vip: &Vip) -> impl PartialEq + use<> {
    (vip.pool, vip.protocol, vip.forward, vip.steering, vip.unknown_token)
}

fn put_vip(name: Name, vip: &Vip) -> Command {
    Command::PutVip {
        name,
        pool: vip.pool,
        protocol: vip.protocol,
        forward: vip.forward,
        steering: vip.steering,
        unknown_token: vip.unknown_token,
    }
}

fn put_backend(pool: Name, name: Name, backend: &Backend) -> Command {
    Command::PutBackend {
        pool,
        name,
        address4: backend.address4,
        address6: backend.address6,
        mac: backend.mac,
        weight: backend.weight,
        state: backend.state,
        handles: backend.handles,
    }
}

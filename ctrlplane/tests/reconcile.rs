//! Properties of the difference between two states.

#![cfg(test)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ctrlplane::reconcile::{Deadlines, keep_resolved, re_deadline, reconcile, renames};
use ctrlplane::state::{Backend, State, Vip};
use ipc::id::BackendId;
use ipc::limits::{MAX_BACKENDS, MAX_SERVICES};
use ipc::message::{
    BackendState, Command, Event, Forward, Handles, MAX_BATCH, Name, Presence, Protocol, Steering,
    UnknownToken,
};
use proptest::prelude::*;

fn name(prefix: &str, number: u8) -> Name {
    format!("{prefix}{number}").parse().unwrap()
}

/// No deadlines.
fn none() -> Deadlines {
    Deadlines::new()
}

prop_compose! {
    fn backend()(last in 1_u8..4, weight in 0_u32..3, mac in proptest::option::of(0_u8..2)) -> Backend {
        Backend {
            address4: Some([10, 0, 0, last].into()),
            address6: None,
            mac: mac.map(|mac| [2, 0, 0, 0, 0, mac]),
            weight,
            state: BackendState::Active,
            handles: Handles::default(),
        }
    }
}

prop_compose! {
    // What a VIP says: its pool, protocol and forwarding, and which of the services it would like to have.
    fn vip()(pool in 0_u8..3, udp: bool, ipip: bool, learn: bool, services in proptest::collection::btree_set((0_u8..3, 0_u16..2), 0..4))
        -> (u8, Vip)
    {
        let services = services.into_iter().map(|(last, port)| (IpAddr::from([10, 9, 9, last]), port)).collect();
        (pool, Vip {
            pool: name("p", pool),
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            forward: if ipip { Forward::Ipip } else { Forward::L2dsr },
            steering: Steering::learning(learn),
            unknown_token: UnknownToken::Drop,
            services,
        })
    }
}

prop_compose! {
    /// Any valid state over few names, so that two of them have much in common and much that collides.
    fn state()(
        pools in proptest::collection::btree_map(0_u8..3, proptest::collection::btree_map(0_u8..3, backend(), 0..3), 0..3),
        vips in proptest::collection::btree_map(0_u8..3, vip(), 0..3),
    ) -> State {
        let mut state = State::default();
        for (pool, backends) in pools {
            let backends = backends.into_iter().map(|(number, backend)| (name("b", number), backend)).collect();
            state.pools.insert(name("p", pool), backends);
        }
        let mut taken = BTreeSet::new();
        for (number, (pool, mut vip)) in vips {
            state.pools.entry(name("p", pool)).or_default();
            vip.services.retain(|service| taken.insert((*service, vip.protocol == Protocol::Tcp)));
            state.vips.insert(name("v", number), vip);
        }
        state
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn applied_to_the_actual_state_the_commands_make_the_desired_one(desired in state(), actual in state()) {
        let commands = reconcile(&desired, &actual, &none());
        let state = actual.apply(&commands);
        prop_assert_eq!(state.as_ref(), Ok(&desired), "{:?}", commands);
        prop_assert_eq!(reconcile(&desired, &desired, &none()), vec![]);
    }

    #[test]
    fn what_did_not_change_is_not_said_again(state in state()) {
        prop_assert_eq!(reconcile(&state, &state.clone(), &none()), vec![]);
    }

    #[test]
    fn from_nothing_only_puts_and_to_nothing_only_removals(state in state()) {
        let is_put = |command: &Command| matches!(command,
            Command::PutPool { .. } | Command::PutBackend { .. } | Command::PutVip { .. } | Command::PutService { .. });
        prop_assert!(reconcile(&state, &State::default(), &none()).iter().all(is_put));
        prop_assert!(!reconcile(&State::default(), &state, &none()).iter().any(is_put));
    }

    #[test]
    fn one_changed_weight_is_one_command(state in state(), weight in 500_u32..1000) {
        let mut desired = state.clone();
        let Some(backend) = desired.pools.values_mut().flat_map(|pool| pool.values_mut()).next() else {
            return Ok(());
        };
        backend.weight = weight;
        prop_assert_eq!(reconcile(&desired, &state, &none()).len(), 1);
    }
}

#[test]
fn a_vip_that_moves_to_a_new_pool_leaves_the_old_one_last() {
    let make = |pool: &str| {
        State::of([
            Command::PutPool { name: pool.parse().unwrap() },
            Command::PutVip {
                name: name("v", 0),
                pool: pool.parse().unwrap(),
                protocol: Protocol::Tcp,
                forward: Forward::L2dsr,
                steering: Steering::LEARN,
                unknown_token: UnknownToken::Drop,
            },
        ])
        .unwrap()
    };
    let commands = reconcile(&make("new"), &make("old"), &none());
    assert!(matches!(
        commands[..],
        [Command::PutPool { .. }, Command::PutVip { .. }, Command::RemovePool { .. }]
    ));
}

#[test]
fn a_control_plane_that_has_resolved_nothing_yet_takes_no_mac_away() {
    let backend = |last, mac| Backend {
        address4: Some([10, 0, 0, last].into()),
        address6: None,
        mac,
        weight: 1,
        state: BackendState::Active,
        handles: Handles::default(),
    };
    let state = |backend| {
        let mut state = State::default();
        state.pools.entry(name("p", 0)).or_default().insert(name("b", 0), backend);
        state
    };
    let known = Some([2, 0, 0, 0, 0, 1]);
    let actual = state(backend(1, known));
    let kept = keep_resolved(state(backend(1, None)), &actual);
    assert_eq!(reconcile(&kept, &actual, &none()), [], "what was resolved before the restart stays");

    let newer = Some([2, 0, 0, 0, 0, 2]);
    assert_eq!(keep_resolved(state(backend(1, newer)), &actual), state(backend(1, newer)));
    let moved = keep_resolved(state(backend(2, None)), &actual);
    assert_eq!(moved, state(backend(2, None)), "another address is another neighbour");
}

/// A pool `p0` with a backend `b0`.
fn one_backend() -> State {
    let mut state = State::default();
    let backend = Backend {
        address4: Some([10, 0, 0, 1].into()),
        address6: None,
        mac: None,
        weight: 1,
        state: BackendState::Active,
        handles: Handles::default(),
    };
    state.pools.entry(name("p", 0)).or_default().insert(name("b", 0), backend);
    state
}

/// Pools of these names, each with one backend `b0` of this last byte of its address.
fn pools_of(all: &[(&str, u8)]) -> State {
    let mut state = State::default();
    for (pool, last) in all {
        let mut backends = one_backend().pools.remove(&name("p", 0)).unwrap();
        backends.get_mut(&name("b", 0)).unwrap().address4 = Some([10, 0, 0, *last].into());
        state.pools.insert(pool.parse().unwrap(), backends);
    }
    state
}

#[test]
fn a_pool_is_renamed_only_where_no_other_could_be_meant() {
    let rename =
        |name: &str, to: &str| Command::RenamePool { name: name.parse().unwrap(), to: to.parse().unwrap() };
    type Pools = &'static [(&'static str, u8)];
    let cases: [(Pools, Pools, Vec<Command>); 7] = [
        (&[("a", 1), ("b", 2)], &[("c", 1), ("b", 2)], vec![rename("a", "c")]),
        (&[("a", 1), ("b", 2)], &[("c", 2), ("d", 1)], vec![rename("b", "c"), rename("a", "d")]),
        (&[("a", 1)], &[("c", 2)], vec![]),
        (&[("a", 1)], &[("a", 1), ("c", 1)], vec![]),
        (&[("a", 1), ("b", 1)], &[("c", 1)], vec![]),
        (&[("a", 1)], &[("c", 1), ("d", 1)], vec![]),
        (&[("a", 1), ("b", 2)], &[("a", 2), ("b", 1)], vec![]),
    ];
    for (before, after, expected) in cases {
        let (actual, desired) = (pools_of(before), pools_of(after));
        assert_eq!(renames(&desired, &actual, &[]), expected, "{before:?} to {after:?}");
        let renamed = actual.apply(&expected).unwrap();
        let all = reconcile(&desired, &renamed, &none());
        assert_eq!(renamed.apply(&all).unwrap(), desired, "{before:?} to {after:?}");
    }
}

#[test]
fn a_renamed_pool_may_gain_or_lose_backends_but_not_both() {
    let three = |pool: &str, lasts: [u8; 3]| {
        let mut state = State::default();
        for last in lasts {
            let backend =
                pools_of(&[(pool, last)]).pools.into_values().next().unwrap().into_values().next().unwrap();
            state.pools.entry(pool.parse().unwrap()).or_default().insert(name("b", last), backend);
        }
        state
    };
    let [one, other] = [[1, 2, 3], [2, 3, 4]];
    let mut more = three("c", one);
    more.pools.extend(three("x", other).pools);
    let mut grown = three("c", one);
    let added = three("c", other).pools.into_values().next().unwrap();
    grown.pools.values_mut().for_each(|backends| backends.extend(added.clone()));
    let rename = Command::RenamePool { name: "a".parse().unwrap(), to: "c".parse().unwrap() };
    assert_eq!(renames(&grown, &three("a", one), &[]), std::slice::from_ref(&rename));
    let mut shrunk = grown.clone();
    let backends = shrunk.pools.remove(&"c".parse::<Name>().unwrap()).unwrap();
    shrunk.pools.insert("a".parse().unwrap(), backends);
    assert_eq!(renames(&three("c", one), &shrunk, &[]), std::slice::from_ref(&rename));
    assert_eq!(renames(&three("c", other), &three("a", one), &[]), []);
    assert_eq!(renames(&more, &shrunk, &[]), [], "two could be meant");
    let mut part = grown.clone();
    part.pools.extend(three("x", [1, 2, 2]).pools);
    assert_eq!(renames(&part, &three("a", one), &[]), [rename], "the other is a part of it only");
}

#[test]
fn a_name_that_a_removed_pool_still_holds_is_not_given() {
    let (actual, desired) = (pools_of(&[("a", 1)]), pools_of(&[("c", 1)]));
    let left = Event::Backend {
        id: BackendId(7),
        pool: "c".parse().unwrap(),
        name: name("b", 9),
        address4: Some([10, 0, 0, 9].into()),
        address6: None,
        mac: None,
        weight: 1,
        state: BackendState::Active,
        handles: Handles::default(),
        flows: 1,
        tokens: 0,
        presence: Presence::Removed,
        deadline: None,
    };
    assert_eq!(renames(&desired, &actual, &[left]), []);
}

#[test]
fn a_removal_carries_the_deadline_it_was_made_with() {
    let actual = one_backend();
    let mut desired = actual.clone();
    desired.pools.insert(name("p", 0), Default::default());
    let key = (name("p", 0), name("b", 0));
    for wanted in [None, Some(0), Some(600)] {
        let removal = Command::RemoveBackend { pool: key.0, name: key.1, deadline: wanted };
        assert_eq!(reconcile(&desired, &actual, &Deadlines::from([(key, wanted)])), [removal]);
    }
    assert_eq!(reconcile(&actual, &actual, &Deadlines::from([(key, Some(0))])), [], "it is wanted again");
}

#[test]
fn a_removed_backend_gets_another_deadline_by_coming_and_going_in_one_batch() {
    let (pool, backend) = (name("p", 0), name("b", 0));
    let told = |presence, deadline| {
        [Event::Backend {
            id: BackendId(1),
            pool,
            name: backend,
            address4: Some([10, 0, 0, 1].into()),
            address6: None,
            mac: None,
            weight: 1,
            state: BackendState::Active,
            handles: Handles::default(),
            flows: 3,
            tokens: 2,
            presence,
            deadline,
        }]
    };
    let desired = State::of([Command::PutPool { name: pool }]).unwrap();
    let commands = |wanted: Option<u32>, presence, deadline| {
        re_deadline(&desired, &Deadlines::from([((pool, backend), wanted)]), &told(presence, deadline))
    };
    let moved = commands(Some(0), Presence::Removed, None);
    let [Command::PutBackend { state: BackendState::Draining, .. }, removal] = moved[..] else {
        panic!("{moved:?}")
    };
    assert_eq!(removal, Command::RemoveBackend { pool, name: backend, deadline: Some(0) });
    assert!(desired.apply(&moved).is_ok(), "as one batch");
    assert_eq!(commands(Some(60), Presence::Removed, Some(600)).len(), 2, "sooner");
    for (wanted, presence, deadline) in [
        (Some(600), Presence::Removed, Some(597)),
        (None, Presence::Removed, None),
        (None, Presence::Removed, Some(600)),
        (Some(0), Presence::Deleted, None),
        (Some(0), Presence::Present, None),
    ] {
        assert_eq!(commands(wanted, presence, deadline), [], "{wanted:?} {presence} {deadline:?}");
    }
    assert_eq!(re_deadline(&desired, &none(), &told(Presence::Removed, None)), [], "nobody asked");
    let gone = Deadlines::from([((pool, backend), Some(0))]);
    assert_eq!(re_deadline(&State::default(), &gone, &told(Presence::Removed, None)), [], "nor is its pool");
}

/// Everything at its limit, twice over by names that differ: nothing stays.
fn full(prefix: &str) -> State {
    let mut state = State::default();
    let name = |number: usize| -> Name { format!("{prefix}{number}").parse().unwrap() };
    for number in 0..MAX_BACKENDS - 1 {
        let backend = Backend {
            address4: Some(u32::try_from(0x0a00_0001 + number).unwrap().into()),
            address6: None,
            mac: None,
            weight: 1,
            state: BackendState::Active,
            handles: Handles::default(),
        };
        state.pools.entry(name(number % 256)).or_default().insert(name(number), backend);
    }
    for number in 0..256 {
        let services = (0..MAX_SERVICES / 256)
            .map(|port| {
                (IpAddr::from([10, 9, 0, u8::try_from(number).unwrap()]), u16::try_from(port + 1).unwrap())
            })
            .collect();
        let vip = Vip {
            pool: name(number),
            protocol: Protocol::Tcp,
            forward: Forward::L2dsr,
            steering: Steering::LEARN,
            unknown_token: UnknownToken::Drop,
            services,
        };
        state.vips.insert(name(number), vip);
    }
    state
}

#[test]
fn a_change_of_everything_at_its_limit_fits_a_batch() {
    let (desired, actual) = (full("n"), full("o"));
    let commands = reconcile(&desired, &actual, &none());
    assert!(commands.len() <= MAX_BATCH, "{} of {MAX_BATCH}", commands.len());
    // Both at once are more than there may be: what is replaced whole leaves in a batch of its own.
    assert!(actual.apply(&commands).is_err());
    let emptied = actual.apply(&reconcile(&State::default(), &actual, &none())).unwrap();
    let filled = emptied.apply(&reconcile(&desired, &emptied, &none()));
    assert_eq!(filled, Ok(desired));
}

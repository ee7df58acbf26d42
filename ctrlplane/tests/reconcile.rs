//! Properties of the difference between two states.

#![cfg(test)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ctrlplane::reconcile::{keep_resolved, reconcile};
use ctrlplane::state::{Backend, State, Vip};
use ipc::message::{BackendState, Command, Forward, Name, Protocol, UnknownToken};
use proptest::prelude::*;

fn name(prefix: &str, number: u8) -> Name {
    format!("{prefix}{number}").parse().unwrap()
}

prop_compose! {
    fn backend()(last in 1_u8..4, weight in 0_u32..3, mac in proptest::option::of(0_u8..2)) -> Backend {
        Backend {
            address4: Some([10, 0, 0, last].into()),
            address6: None,
            mac: mac.map(|mac| [2, 0, 0, 0, 0, mac]),
            weight,
            state: BackendState::Active,
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
            learn,
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
        let mut state = actual.clone();
        for command in reconcile(&desired, &actual) {
            prop_assert_eq!(state.apply(command), Ok(()), "{:?}", command);
        }
        prop_assert_eq!(&state, &desired);
        prop_assert_eq!(reconcile(&desired, &state), vec![]);
    }

    #[test]
    fn what_did_not_change_is_not_said_again(state in state()) {
        prop_assert_eq!(reconcile(&state, &state.clone()), vec![]);
    }

    #[test]
    fn from_nothing_only_puts_and_to_nothing_only_removals(state in state()) {
        let is_put = |command: &Command| matches!(command,
            Command::PutPool { .. } | Command::PutBackend { .. } | Command::PutVip { .. } | Command::PutService { .. });
        prop_assert!(reconcile(&state, &State::default()).iter().all(is_put));
        prop_assert!(!reconcile(&State::default(), &state).iter().any(is_put));
    }

    #[test]
    fn one_changed_weight_is_one_command(state in state(), weight in 500_u32..1000) {
        let mut desired = state.clone();
        let Some(backend) = desired.pools.values_mut().flat_map(|pool| pool.values_mut()).next() else {
            return Ok(());
        };
        backend.weight = weight;
        prop_assert_eq!(reconcile(&desired, &state).len(), 1);
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
                learn: true,
                unknown_token: UnknownToken::Drop,
            },
        ])
        .unwrap()
    };
    let commands = reconcile(&make("new"), &make("old"));
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
    };
    let state = |backend| {
        let mut state = State::default();
        state.pools.entry(name("p", 0)).or_default().insert(name("b", 0), backend);
        state
    };
    let known = Some([2, 0, 0, 0, 0, 1]);
    let actual = state(backend(1, known));
    let kept = keep_resolved(state(backend(1, None)), &actual);
    assert_eq!(reconcile(&kept, &actual), [], "what was resolved before the restart stays");

    let newer = Some([2, 0, 0, 0, 0, 2]);
    assert_eq!(keep_resolved(state(backend(1, newer)), &actual), state(backend(1, newer)));
    let moved = keep_resolved(state(backend(2, None)), &actual);
    assert_eq!(moved, state(backend(2, None)), "another address is another neighbour");
}

//! The model by the table of vectors that the control plane's idea of it is tested by, too.

#![cfg(test)]
#![cfg(not(loom))]

#[path = "../../ipc/vectors/commands.rs"]
mod vectors;

use engine::model::Model;
use ipc::message::Command;
use vectors::{Outcome, vectors};

/// What is configured, as commands in an order of their own. Ids are left out: they depend on the past.
fn configured(model: &Model) -> Vec<String> {
    let mut model = model.clone();
    // What is only remembered of removed backends is not configured: deleted first, forgotten then.
    for _ in 0..2 {
        model.forget(|_| true);
    }
    let mut commands = Vec::new();
    for pool in model.pools() {
        commands.push(Command::PutPool { name: pool.name });
        for backend in &pool.backends {
            commands.push(Command::PutBackend {
                pool: pool.name,
                name: backend.name,
                address4: backend.address4,
                address6: backend.address6,
                mac: backend.mac,
                weight: backend.weight,
                state: backend.state,
                handles: backend.handles,
            });
        }
    }
    for vip in model.vips() {
        commands.push(Command::PutVip {
            name: vip.name,
            pool: vip.pool,
            protocol: vip.protocol,
            forward: vip.forward,
            steering: vip.steering,
            unknown_token: vip.unknown_token,
        });
        commands.extend(vip.services.iter().map(|&(address, port)| Command::PutService {
            vip: vip.name,
            address,
            port,
        }));
    }
    let mut said: Vec<String> = commands.iter().map(|command| format!("{command:?}")).collect();
    said.sort();
    said
}

#[test]
fn the_model_makes_of_every_batch_what_the_table_says() {
    for vector in vectors() {
        let given = Model::default().apply(&vector.given).unwrap();
        match (given.apply(&vector.batch), &vector.outcome) {
            (Ok(model), Outcome::Makes(commands)) => {
                let expected = Model::default().apply(commands).unwrap();
                assert_eq!(configured(&model), configured(&expected), "{}", vector.what);
                assert_eq!(
                    configured(&expected).len(),
                    commands.len(),
                    "{}: the shortest batch",
                    vector.what
                );
            }
            (Err(refused), Outcome::Refused(place, refusal)) => {
                assert_eq!((refused.command, refused.refusal), (*place, *refusal), "{}", vector.what);
            }
            (came, _) => panic!("{}: {came:?} instead of {:?}", vector.what, vector.outcome),
        }
    }
}

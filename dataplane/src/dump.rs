//! What the data plane tells of itself when asked: the model as events, and the owners of a token.

use engine::Token;
use engine::model::Model;
use engine::tables::Tables;
use engine::tick::{TICK_SECONDS, Tick};
use engine::token_entry::Rank;
use ipc::counters::GaugeWriter;
use ipc::message::{Event, TokenRank};

/// Everything configured, in an order in which names exist before they are used; and backends that are not, as long as
/// their ids are taken, also those of pools that are no more. `now` is in seconds, as the model's deadlines are.
pub fn events(model: &Model, gauges: &GaugeWriter, now: u64) -> Vec<Event> {
    let mut events = Vec::new();
    let counts = gauges.reader();
    for pool in model.pools() {
        if !pool.removed {
            events.push(Event::Pool { name: pool.name });
        }
        for backend in &pool.backends {
            let (flows, tokens) = counts.backend(backend.id);
            let left = backend.deadline.map(|deadline| deadline.saturating_sub(now));
            events.push(Event::Backend {
                id: backend.id,
                pool: pool.name,
                name: backend.name,
                address4: backend.address4,
                address6: backend.address6,
                mac: backend.mac,
                weight: backend.weight,
                state: backend.state,
                handles: backend.handles,
                flows,
                tokens,
                presence: backend.presence,
                deadline: left.map(|left| u32::try_from(left).unwrap_or(u32::MAX)),
            });
        }
    }
    for vip in model.vips() {
        events.push(Event::Vip {
            id: vip.id,
            name: vip.name,
            pool: vip.pool,
            protocol: vip.protocol,
            forward: vip.forward,
            steering: vip.steering,
            unknown_token: vip.unknown_token,
        });
        for (address, port) in &vip.services {
            events.push(Event::Service { vip: vip.name, address: *address, port: *port });
        }
    }
    events
}

/// Who owns a token, in every pool: one event for each claim.
pub fn owners(model: &Model, tables: &Tables, token: u32, now: Tick) -> Vec<Event> {
    let mut events = Vec::new();
    for pool in model.pools() {
        let hash = tables.token_hash(Token(token), pool.id);
        tables.tokens.claims(hash, Token(token), |entry| {
            let Some(backend) = pool.backends.iter().find(|backend| backend.id == entry.backend) else {
                return;
            };
            events.push(Event::TokenFound {
                token,
                pool: pool.name,
                backend: backend.name,
                rank: rank(entry.rank),
                ambiguous: entry.ambiguous,
                age_seconds: age_seconds(entry.tick, now),
            });
        });
    }
    events
}

/// Seconds since a tick, to the tick.
fn age_seconds(then: Tick, now: Tick) -> u32 {
    u32::try_from(u64::from(now.age_of(then)) * TICK_SECONDS).unwrap_or(u32::MAX)
}

const fn rank(rank: Rank) -> TokenRank {
    match rank {
        Rank::Provisional => TokenRank::Provisional,
        Rank::Seen => TokenRank::Seen,
        Rank::Proven => TokenRank::Proven,
    }
}

#[cfg(test)]
mod tests {
    use ipc::id::BackendId;
    use ipc::message::{
        BackendState, Command, Forward, Handles, Name, Presence, Protocol, Steering, UnknownToken,
    };

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn put(pool: &str, backend: &str) -> Command {
        Command::PutBackend {
            pool: name(pool),
            name: name(backend),
            address4: Some([10, 0, 1, 11].into()),
            address6: None,
            mac: Some([2, 0, 0, 0, 3, 1]),
            weight: 7,
            state: BackendState::Draining,
            handles: Handles::default(),
        }
    }

    /// Pools p and q with a backend each, q's removed since; p also with a removed one; a VIP of p.
    fn model() -> Model {
        let vip = Command::PutVip {
            name: name("web"),
            pool: name("p"),
            protocol: Protocol::Tcp,
            forward: Forward::Ipip,
            steering: Steering::LEARN,
            unknown_token: UnknownToken::Reset,
        };
        let service = |port| Command::PutService { vip: name("web"), address: [10, 9, 9, 9].into(), port };
        let pools = [Command::PutPool { name: name("p") }, Command::PutPool { name: name("q") }];
        let first = [put("p", "b1"), put("p", "b2"), put("q", "b1"), vip, service(80), service(443)];
        let model = Model::default().apply(&[pools.as_slice(), &first].concat()).unwrap();
        let removals = [
            Command::RemoveBackend { pool: name("p"), name: name("b1"), deadline: Some(60) },
            Command::RemoveBackend { pool: name("q"), name: name("b1"), deadline: None },
            Command::RemovePool { name: name("q") },
        ];
        model.apply_at(&removals, 1000).unwrap()
    }

    #[test]
    fn all_that_is_configured_is_told_and_what_is_left_of_the_removed() {
        let gauges = GaugeWriter::heap();
        gauges.set_backend(BackendId(2), 5, 3);
        let events = events(&model(), &gauges, 1020);
        let [Event::Pool { name: pool }, removed, backend, orphan, vip, rest @ ..] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(*pool, name("p"));
        let Event::Backend { id, name: told, weight, state, flows, tokens, presence, deadline, .. } =
            *backend
        else {
            panic!("{backend:?}")
        };
        assert_eq!((id, told, weight, state), (BackendId(2), name("b2"), 7, BackendState::Draining));
        assert_eq!((flows, tokens), (5, 3), "as last counted");
        assert_eq!((presence, deadline), (Presence::Present, None));
        let left = [*removed, *orphan].map(|event| match event {
            Event::Backend { id, pool, presence, deadline, .. } => (id.0, pool, presence, deadline),
            other => panic!("{other:?}"),
        });
        let gone = Presence::Removed;
        assert_eq!(
            left,
            [(1, name("p"), gone, Some(40)), (3, name("q"), gone, None)],
            "seconds that are left"
        );
        let Event::Vip { name: told, pool, forward, steering, unknown_token, .. } = *vip else {
            panic!("{vip:?}")
        };
        assert_eq!((told, pool), (name("web"), name("p")));
        assert_eq!((forward, steering, unknown_token), (Forward::Ipip, Steering::LEARN, UnknownToken::Reset));
        let ports: Vec<u16> = rest
            .iter()
            .map(|event| match event {
                Event::Service { port, .. } => *port,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ports, [80, 443]);
    }

    #[test]
    fn what_is_told_makes_the_same_model_again() {
        let model = model();
        let commands: Vec<Command> = events(&model, &GaugeWriter::heap(), 0)
            .into_iter()
            .filter(|event| !matches!(event, Event::Backend { presence: Presence::Removed, .. }))
            .map(|event| match event {
                Event::Pool { name } => Command::PutPool { name },
                Event::Backend { pool, name, address4, address6, mac, weight, state, handles, .. } => {
                    Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles }
                }
                Event::Vip { name, pool, protocol, forward, steering, unknown_token, .. } => {
                    Command::PutVip { name, pool, protocol, forward, steering, unknown_token }
                }
                Event::Service { vip, address, port } => Command::PutService { vip, address, port },
                other => panic!("{other:?}"),
            })
            .collect();
        let again = Model::default().apply(&commands).unwrap();
        assert_eq!(again.vips(), model.vips());
        assert_eq!(again.pools().len(), 1);
    }

    #[test]
    fn a_token_has_an_owner_in_each_pool_that_knows_it_removed_ones_too() {
        let model = model();
        let tables = Tables::on_heap(1024, 1024, &[7; 32]);
        let learned = Tick::from_seconds(1600);
        for pool in model.pools() {
            let owner = pool.backends[0].id;
            let hash = tables.token_hash(Token(0x913e_6c21), pool.id);
            tables.tokens.learn(hash, Token(0x913e_6c21), owner, learned, |_| true);
        }
        let found = owners(&model, &tables, 0x913e_6c21, Tick::from_seconds(1600 + 48));
        let expected = ["p", "q"].map(|pool| Event::TokenFound {
            token: 0x913e_6c21,
            pool: name(pool),
            backend: name("b1"),
            rank: TokenRank::Provisional,
            ambiguous: false,
            age_seconds: 48,
        });
        assert_eq!(found, expected);
        assert!(owners(&model, &tables, 1, learned).is_empty());
    }
}

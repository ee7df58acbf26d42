//! What must hold for any bytes whatever; called by the fuzz target and by the test over its corpus.

use std::collections::HashSet;

use config::Config;
use ipc::message::Command;

/// Reading never panics; a refusal has a place in the file; an accepted file gives commands in a valid order.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Config::parse(text, "weft.toml") {
        Ok(config) => check_commands(&config),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            let lines = text.split('\n').count();
            for problem in problems {
                assert!((1..=lines).contains(&problem.line), "{problem}");
                assert!(problem.column >= 1, "{problem}");
                assert!(!problem.message.is_empty() && !problem.message.ends_with('.'), "{problem}");
            }
        }
    }
}

fn check_commands(config: &Config) {
    let mut pools = HashSet::new();
    let mut backends = HashSet::new();
    let mut vips = HashSet::new();
    let mut services = HashSet::new();
    for command in config.commands() {
        match command {
            Command::PutPool { name } => assert!(pools.insert(name)),
            Command::PutBackend { pool, name, address4, address6, weight, .. } => {
                assert!(pools.contains(&pool) && backends.insert((pool, name)));
                assert!((address4.is_some() || address6.is_some()) && weight <= 1000);
            }
            Command::PutVip { name, pool, protocol, .. } => {
                assert!(pools.contains(&pool) && vips.insert((name, protocol)));
            }
            Command::PutService { vip, address, port } => {
                let (_, protocol) = *vips.iter().find(|(name, _)| *name == vip).expect("the VIP comes first");
                assert!(services.insert((address, port, protocol)));
            }
            other => panic!("no part of a desired state: {other:?}"),
        }
    }
    for pool in &pools {
        assert!(backends.iter().any(|(of, _)| of == pool), "an empty pool");
    }
}

//! The desired state as commands.

use ipc::message::{BackendState, Command};

use crate::model::{Backend, Config, Pool, Vip};

impl Config {
    /// What a data plane that has nothing must be told, between a BEGIN and a COMMIT: pools, their backends,
    /// VIPs, their services, in an order in which every name exists before it is used.
    pub fn commands(&self) -> Vec<Command> {
        self.pools.iter().flat_map(Pool::commands).chain(self.vips.iter().flat_map(Vip::commands)).collect()
    }
}

impl Pool {
    /// The pool, then its backends.
    pub fn commands(&self) -> Vec<Command> {
        let put = Command::PutPool { name: self.name };
        core::iter::once(put).chain(self.backends.iter().map(|backend| backend.command(self))).collect()
    }
}

impl Backend {
    /// The backend as a member of `pool`.
    pub fn command(&self, pool: &Pool) -> Command {
        Command::PutBackend {
            pool: pool.name,
            name: self.name,
            address4: self.address4,
            address6: self.address6,
            mac: self.mac,
            weight: self.weight,
            state: BackendState::Active,
            handles: self.handles,
        }
    }
}

impl Vip {
    /// The VIP, then one service for each address and port.
    pub fn commands(&self) -> Vec<Command> {
        let put = Command::PutVip {
            name: self.name,
            pool: self.pool,
            protocol: self.protocol,
            forward: self.forward,
            steering: self.steering,
            unknown_token: self.unknown_token,
        };
        let services = self.addresses.iter().flat_map(|address| {
            let service = |port: &u16| Command::PutService { vip: self.name, address: *address, port: *port };
            self.ports.numbers().iter().map(service)
        });
        core::iter::once(put).chain(services).collect()
    }
}

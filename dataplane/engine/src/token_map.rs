//! Which backend a token names by itself, in one pool: made once for each set of backends, asked for each join.
//!
//! Every backend that workers know counts, whatever its state: a draining one keeps its joins, and a part of the token
//! space moves only when a backend comes or is gone for good. A number that a removed backend still has may be given to
//! another one: it is that one's from then on, as an endpoint is.

use ipc::id::BackendId;
use ipc::message::Name;
use steering::Numbers;
use steering::ranges::Ranges;

use crate::model::Pool;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct TokenMap {
    ranges: Ranges,
    numbers: Numbers,
    /// What it was made of. As long as this stays, so does the map.
    made_of: Vec<(Name, BackendId, Option<u16>)>,
}

impl TokenMap {
    /// The map of a pool's known backends.
    pub(crate) fn new(pool: &Pool) -> Self {
        let made_of = known(pool);
        Self {
            ranges: Ranges::new(made_of.iter().map(|(name, id, _)| (name.as_str(), *id))),
            numbers: Numbers::new(numbers(&made_of)),
            made_of,
        }
    }

    /// The same map, and the pool's newcomers known by their numbers: a worker that is one snapshot behind meets packets of
    /// connections which another worker gave to them.
    pub(crate) fn knowing(&self, pool: &Pool) -> Self {
        let numbers = Numbers::new(numbers(&self.made_of).chain(numbers(&known(pool))));
        Self { ranges: self.ranges.clone(), numbers, made_of: self.made_of.clone() }
    }

    /// Whether it is that of the pool as it is now.
    pub(crate) fn is_of(&self, pool: &Pool) -> bool {
        self.made_of == known(pool)
    }

    /// Who owns which part of the token space.
    #[inline]
    pub(crate) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Who has which number.
    #[inline]
    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }
}

/// The pool's known backends, present ones first: of two with one number the first has it.
fn known(pool: &Pool) -> Vec<(Name, BackendId, Option<u16>)> {
    let known = |present| {
        let backends = pool.backends.iter();
        backends.filter(move |backend| backend.is_known() && backend.is_present() == present)
    };
    let named = known(true).chain(known(false));
    named.map(|backend| (backend.name, backend.id, backend.handles.number)).collect()
}

/// Who has which number.
fn numbers(known: &[(Name, BackendId, Option<u16>)]) -> impl Iterator<Item = (u16, BackendId)> {
    known.iter().filter_map(|(_, id, number)| Some(((*number)?, *id)))
}

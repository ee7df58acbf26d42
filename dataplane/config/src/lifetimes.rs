//! Reads `[dataplane.idle]` and `[dataplane.evict]`.

use toml::de::DeTable;

use crate::model::{Evict, Idle};
use crate::problem::Report;
use crate::schema::{Key, dataplane as dataplane_key, dataplane::evict, dataplane::idle};
use crate::table::Table;

/// Both tables of times; where one is left out, its defaults.
pub(crate) fn read(dataplane: &Table<'_>, report: &mut Report<'_>) -> (Idle, Evict) {
    let empty = DeTable::new();
    let table = dataplane.table_or_empty(&dataplane_key::IDLE, &empty, report);
    let mut seconds = |key: &Key| -> u32 {
        let given = table.as_ref().and_then(|table| table.integer(key, report));
        given.and_then(|seconds| u32::try_from(seconds.value).ok()).unwrap_or_default()
    };
    let idle = Idle {
        half_open: seconds(&idle::HALF_OPEN),
        established: seconds(&idle::ESTABLISHED),
        closing: seconds(&idle::CLOSING),
        closing_mptcp: seconds(&idle::CLOSING_MPTCP),
        adopted: seconds(&idle::ADOPTED),
        udp: seconds(&idle::UDP),
    };
    let table = dataplane.table_or_empty(&dataplane_key::EVICT, &empty, report);
    let mut seconds = |key: &Key| -> Option<u32> {
        let given = table.as_ref().and_then(|table| table.seconds_or_never(key, report));
        given.and_then(|seconds| u32::try_from(seconds).ok())
    };
    let evict = Evict {
        half_open: seconds(&evict::HALF_OPEN),
        adopted: seconds(&evict::ADOPTED),
        closing: seconds(&evict::CLOSING),
        own: seconds(&evict::OWN),
        kept: seconds(&evict::KEPT),
    };
    (idle, evict)
}

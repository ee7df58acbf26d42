//! Reads `[dataplane.idle]`, `[dataplane.evict]` and `[dataplane.guard]`.

use toml::de::DeTable;

use crate::model::{Evict, Guard, Idle};
use crate::problem::Report;
use crate::schema::{Key, dataplane as dataplane_key, dataplane::evict, dataplane::guard, dataplane::idle};
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

/// The bounds; where one is left out, its default.
pub(crate) fn read_guard(dataplane: &Table<'_>, report: &mut Report<'_>) -> Guard {
    let empty = DeTable::new();
    let table = dataplane.table_or_empty(&dataplane_key::GUARD, &empty, report);
    let mut number = |key: &Key| -> u64 {
        let given = table.as_ref().and_then(|table| table.integer(key, report));
        given.map(|number| number.value).unwrap_or_default()
    };
    // The schema keeps each within its type.
    let mut small = |key: &Key| u8::try_from(number(key)).unwrap_or(u8::MAX);
    let (prefix4, prefix6) = (small(&guard::PREFIX4), small(&guard::PREFIX6));
    let (flow_share, token_share) = (small(&guard::FLOW_SHARE), small(&guard::TOKEN_SHARE));
    let mut rate = |key: &Key| u32::try_from(number(key)).unwrap_or(u32::MAX);
    let (new_flows, new_tokens) = (rate(&guard::NEW_FLOWS), rate(&guard::NEW_TOKENS));
    Guard { prefix4, prefix6, flow_share, token_share, new_flows, new_tokens }
}

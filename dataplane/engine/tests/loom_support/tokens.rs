//! One token of a table of one line, and what must hold of its claims.

use engine::tick::Tick;
use engine::token_entry::{Rank, TokenEntry};
use engine::token_table::{Learn, TokenLookup, TokenTable};
use ipc::id::BackendId;
use ipc::lines::Lines;
use loom::sync::Arc;
use packet::Token;

pub const HASH: u64 = 0x5555;
pub const TOKEN: Token = Token(0x913e_6c21);
pub const A: BackendId = BackendId(1);
pub const B: BackendId = BackendId(2);

pub fn at(tick: u64) -> Tick {
    Tick::from_seconds(16 * (100 + tick))
}

pub fn table() -> Arc<TokenTable> {
    Arc::new(TokenTable::new(Lines::heap(1)))
}

pub fn learn(table: &TokenTable, backend: BackendId, now: Tick) -> Learn {
    table.learn(HASH, TOKEN, backend, now, |_| true)
}

pub fn find(table: &TokenTable) -> TokenLookup {
    table.find(HASH, TOKEN, |_| true)
}

pub fn owner(backend: BackendId, rank: Rank) -> TokenLookup {
    TokenLookup::Owner { backend, rank }
}

/// All claims; checks the invariant: an unmarked one has no rival of its rank or a higher one.
pub fn claims(table: &TokenTable) -> Vec<TokenEntry> {
    let mut claims = Vec::new();
    table.for_each(0, table.lines(), |entry| claims.push(*entry));
    for claim in claims.iter().filter(|claim| !claim.ambiguous) {
        let rival = claims.iter().find(|other| other.backend != claim.backend && other.rank >= claim.rank);
        assert_eq!(rival, None, "unmarked: {claim:?}");
    }
    claims
}

//! The token table's rules of ownership under every interleaving loom explores.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p engine --release --test 'loom_*'`.
//!
//! Bound: two threads, at most [`loom_support::PREEMPTIONS`] forced switches in an execution. Each rule is kept by "write,
//! fence, look again"; to break it, each of two threads must be stopped between its look and its write, which
//! is two switches. The third is for a touch that clears a mark, which looks, writes and looks again.
//!
//! Blind spots: one line, two threads and two backends (three claims at once, and the overflow area, are not
//! modelled); retries are cut to 4 where production has 8; loom does not explore load buffering.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod loom_support;

use engine::tick::Tick;
use engine::token_entry::{Rank, TokenEntry};
use engine::token_table::{Learn, TOKEN_IDLE, TokenLookup, TokenTable};
use ipc::id::BackendId;
use ipc::lines::Lines;
use loom::sync::Arc;
use loom::thread;
use packet::Token;

use crate::loom_support::model;

const HASH: u64 = 0x5555;
const TOKEN: Token = Token(0x913e_6c21);
const A: BackendId = BackendId(1);
const B: BackendId = BackendId(2);

fn at(tick: u64) -> Tick {
    Tick::from_seconds(16 * (100 + tick))
}

fn table() -> Arc<TokenTable> {
    Arc::new(TokenTable::new(Lines::heap(1)))
}

fn learn(table: &TokenTable, backend: BackendId, now: Tick) -> Learn {
    table.learn(HASH, TOKEN, backend, now, |_| true)
}

fn find(table: &TokenTable) -> TokenLookup {
    table.find(HASH, TOKEN, |_| true)
}

fn owner(backend: BackendId, rank: Rank) -> TokenLookup {
    TokenLookup::Owner { backend, rank }
}

/// All claims; checks the invariant: an unmarked one has no rival of its rank or a higher one.
fn claims(table: &TokenTable) -> Vec<TokenEntry> {
    let mut claims = Vec::new();
    table.for_each(0, table.lines(), |entry| claims.push(*entry));
    for claim in claims.iter().filter(|claim| !claim.ambiguous) {
        let rival = claims.iter().find(|other| other.backend != claim.backend && other.rank >= claim.rank);
        assert_eq!(rival, None, "unmarked: {claim:?}");
    }
    claims
}

#[test]
fn two_first_claims_for_two_backends_are_ambiguous() {
    model(|| {
        let table = table();
        let other = table.clone();
        let second = thread::spawn(move || learn(&other, B, at(0)));
        let first = learn(&table, A, at(0));
        let second = second.join().unwrap();
        assert!([first, second].contains(&Learn::Ambiguous), "{first:?} {second:?}");
        assert_eq!(claims(&table).len(), 2);
        assert_eq!(find(&table), TokenLookup::Ambiguous);
    });
}

#[test]
fn two_first_claims_for_one_backend_are_one() {
    model(|| {
        let table = table();
        let other = table.clone();
        let second = thread::spawn(move || learn(&other, A, at(0)));
        let first = learn(&table, A, at(0));
        let second = second.join().unwrap();
        assert!([first, second].contains(&Learn::New), "{first:?} {second:?}");
        assert_eq!(claims(&table).len(), 1);
        assert_eq!(find(&table), owner(A, Rank::Provisional));
    });
}

#[test]
fn claims_to_two_tokens_both_stay() {
    model(|| {
        let table = table();
        let other = table.clone();
        let second = thread::spawn(move || other.learn(HASH, Token(7), B, at(0), |_| true));
        assert_eq!(learn(&table, A, at(0)), Learn::New);
        assert_eq!(second.join().unwrap(), Learn::New);
        assert_eq!(find(&table), owner(A, Rank::Provisional));
        assert_eq!(table.find(HASH, Token(7), |_| true), owner(B, Rank::Provisional));
    });
}

#[test]
fn a_newcomer_does_not_disturb_an_owner_that_is_being_established() {
    model(|| {
        let table = table();
        learn(&table, A, at(0));
        let other = table.clone();
        let newcomer = thread::spawn(move || learn(&other, B, at(1)));
        assert!(table.touch(HASH, TOKEN, A, at(1), true));
        let newcomer = newcomer.join().unwrap();
        assert!([Learn::Conflict, Learn::Ambiguous].contains(&newcomer), "{newcomer:?}");
        assert_eq!(claims(&table).len(), if newcomer == Learn::Conflict { 1 } else { 2 });
        assert_eq!(find(&table), owner(A, Rank::Seen));
    });
}

#[test]
fn two_rivals_that_are_established_at_once_stay_ambiguous() {
    model(|| {
        let table = table();
        learn(&table, A, at(0));
        assert_eq!(learn(&table, B, at(0)), Learn::Ambiguous);
        let other = table.clone();
        let second = thread::spawn(move || other.touch(HASH, TOKEN, B, at(1), true));
        assert!(table.touch(HASH, TOKEN, A, at(1), true));
        assert!(second.join().unwrap());
        assert!(claims(&table).iter().all(|claim| claim.rank == Rank::Seen));
        assert_eq!(find(&table), TokenLookup::Ambiguous);
    });
}

#[test]
fn a_mark_is_not_cleared_past_a_rival_that_comes_meanwhile() {
    model(|| {
        let table = table();
        learn(&table, A, at(0));
        learn(&table, B, at(0));
        // B ends; A lives on, still marked.
        let late = at(u64::from(TOKEN_IDLE) + 1);
        assert!(table.close(HASH, TOKEN, B, at(0)));
        table.touch(HASH, TOKEN, A, at(3), false);
        table.sweep(0, 1, late, TOKEN_IDLE);
        assert_eq!(find(&table), owner(A, Rank::Provisional));

        let other = table.clone();
        let newcomer = thread::spawn(move || learn(&other, B, late));
        table.touch(HASH, TOKEN, A, late, false);
        assert_eq!(newcomer.join().unwrap(), Learn::Ambiguous);
        assert_eq!(claims(&table).len(), 2);
        assert_eq!(find(&table), TokenLookup::Ambiguous);
    });
}

#[test]
fn an_expired_owner_is_either_replaced_or_was_touched_in_time() {
    model(|| {
        let table = table();
        learn(&table, A, at(0));
        table.touch(HASH, TOKEN, A, at(1), true);
        let late = at(u64::from(TOKEN_IDLE) + 2);
        let other = table.clone();
        let newcomer = thread::spawn(move || learn(&other, B, late));
        table.touch(HASH, TOKEN, A, late, false);
        match newcomer.join().unwrap() {
            Learn::New => assert_eq!(find(&table), owner(B, Rank::Provisional)),
            Learn::Conflict => assert_eq!(find(&table), owner(A, Rank::Seen)),
            other => panic!("{other:?}"),
        }
        assert_eq!(claims(&table).len(), 1);
    });
}

#[test]
fn a_sweep_takes_an_expired_claim_or_leaves_it_touched() {
    model(|| {
        let table = table();
        learn(&table, A, at(0));
        let late = at(u64::from(TOKEN_IDLE) + 1);
        let other = table.clone();
        let sweeper = thread::spawn(move || other.sweep(0, 1, late, TOKEN_IDLE));
        table.touch(HASH, TOKEN, A, late, false);
        match sweeper.join().unwrap() {
            0 => assert_eq!(find(&table), owner(A, Rank::Provisional)),
            _ => assert_eq!(find(&table), TokenLookup::Unknown),
        }
    });
}

#[test]
fn a_reader_beside_rivals_never_names_a_backend_that_claims_nothing() {
    model(|| {
        let table = table();
        learn(&table, A, at(0));
        let other = table.clone();
        let newcomer = thread::spawn(move || learn(&other, B, at(0)));
        let seen = find(&table);
        assert!(seen == owner(A, Rank::Provisional) || seen == TokenLookup::Ambiguous, "{seen:?}");
        newcomer.join().unwrap();
        assert_eq!(find(&table), TokenLookup::Ambiguous);
    });
}

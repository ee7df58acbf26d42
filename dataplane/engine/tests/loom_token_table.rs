//! The token table's rules of ownership under every interleaving loom explores.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p engine --release --test 'loom_*'`.
//!
//! Bound: two threads, at most [`loom_support::PREEMPTIONS`] forced switches in an execution. Each rule is kept by "write,
//! fence, look again"; to break it, each of two threads must be stopped between its look and its write, which
//! is two switches. The third is for a touch that clears a mark, which looks, writes and looks again.
//!
//! Blind spots: two lines at most, two threads and two backends (three claims at once, and the overflow area, are not
//! modelled); retries are cut to 4 where production has 8; loom does not explore load buffering.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod loom_support;
#[path = "loom_support/tokens.rs"]
mod tokens;

use engine::token_entry::Rank;
use engine::token_table::{Learn, TOKEN_IDLE, TokenLookup, TokenTable};
use ipc::lines::Lines;
use loom::sync::Arc;
use loom::thread;
use packet::Token;

use crate::loom_support::model;
use crate::tokens::{A, B, HASH, TOKEN, at, claims, find, learn, owner, table};

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

/// A table of two lines, the first of which is full but for `room` unused slots.
fn crowded(room: u32) -> Arc<TokenTable> {
    let table = Arc::new(TokenTable::new(Lines::heap(2)));
    for number in 0..8 - room {
        table.learn(HASH, Token(number), A, at(0), |_| true);
    }
    table
}

#[test]
fn rivals_of_which_one_takes_the_last_slot_of_the_first_line_are_ambiguous() {
    model(|| {
        let table = crowded(1);
        let other = table.clone();
        let second = thread::spawn(move || learn(&other, B, at(0)));
        let first = learn(&table, A, at(0));
        let second = second.join().unwrap();
        assert!([first, second].contains(&Learn::Ambiguous), "{first:?} {second:?}");
        assert_eq!(find(&table), TokenLookup::Ambiguous);
    });
}

/// A table in whose second line a claim expired, and whose first line has so many unused slots since.
fn with_an_expired_claim_behind(unused: u32) -> Arc<TokenTable> {
    let table = crowded(0);
    learn(&table, A, at(0));
    for now in [at(20), at(40)] {
        for number in unused..8 {
            table.touch(HASH, Token(number), A, now, false);
        }
        table.sweep(0, 1, now, TOKEN_IDLE);
    }
    table
}

fn check_a_newcomer_beside_a_claim_that_comes_back_to_life(unused: u32) {
    // Two lines are many steps; to miss each other both must be stopped once, between look and write.
    let mut two_switches = loom::model::Builder::new();
    two_switches.preemption_bound = Some(2);
    two_switches.max_branches = 100_000;
    two_switches.check(move || {
        let table = with_an_expired_claim_behind(unused);
        let other = table.clone();
        let newcomer = thread::spawn(move || learn(&other, B, at(40)));
        table.touch(HASH, TOKEN, A, at(40), false);
        newcomer.join().unwrap();
        let mut claims = Vec::new();
        table.claims(HASH, TOKEN, |entry| claims.push(*entry));
        let rivals = claims.len() == 2;
        assert!(!rivals || claims.iter().all(|entry| entry.ambiguous), "{claims:?}");
        assert_eq!(find(&table) == TokenLookup::Ambiguous, rivals);
    });
}

#[test]
fn a_newcomer_that_stops_at_the_first_line_and_a_claim_that_comes_back_to_life_behind_it_mark_each_other() {
    check_a_newcomer_beside_a_claim_that_comes_back_to_life(2);
}

#[test]
fn a_newcomer_that_fills_the_first_line_and_a_claim_that_comes_back_to_life_behind_it_mark_each_other() {
    check_a_newcomer_beside_a_claim_that_comes_back_to_life(1);
}

#[test]
fn a_sweep_beside_a_touch_leaves_no_unused_slot_in_front_of_a_claim() {
    model(|| {
        let table = crowded(0);
        learn(&table, A, at(0));
        for number in 2..8 {
            table.touch(HASH, Token(number), A, at(20), false);
        }
        table.sweep(0, 1, at(20), TOKEN_IDLE);
        for number in 2..8 {
            table.touch(HASH, Token(number), A, at(40), false);
        }
        let other = table.clone();
        let sweeper = thread::spawn(move || other.sweep(0, 1, at(40), TOKEN_IDLE));
        table.touch(HASH, TOKEN, A, at(40), false);
        sweeper.join().unwrap();
        assert_eq!(find(&table), owner(A, Rank::Provisional));
    });
}

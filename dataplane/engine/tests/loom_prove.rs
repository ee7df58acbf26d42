//! A proof beside what workers do to the same token, under every interleaving loom explores.
//!
//! Run and bound as in `loom_token_table.rs`. One thread proves (the manager), the other is a worker: proofs never meet
//! each other.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod loom_support;
#[path = "loom_support/tokens.rs"]
mod tokens;

use engine::token_entry::Rank;
use engine::token_table::{Learn, Proof, TokenLookup, TokenTable};
use ipc::id::BackendId;
use loom::thread;

use crate::loom_support::model;
use crate::tokens::{A, B, HASH, TOKEN, at, claims, find, learn, owner, table};

fn prove(table: &TokenTable, backend: BackendId) -> Proof {
    table.prove(HASH, TOKEN, backend, (at(0), false), |_| true)
}

/// How many claims there are; A owns the token.
fn claims_with_a_proven(table: &TokenTable) -> usize {
    assert_eq!(find(table), owner(A, Rank::Proven));
    claims(table).len()
}

#[test]
fn a_proof_beside_the_first_claim_of_the_same_backend_is_one_claim() {
    model(|| {
        let table = table();
        let other = table.clone();
        let worker = thread::spawn(move || learn(&other, A, at(0)));
        let proof = prove(&table, A);
        worker.join().unwrap();
        assert!([Proof::New, Proof::Raised].contains(&proof), "{proof:?}");
        assert_eq!(claims_with_a_proven(&table), 1);
    });
}

#[test]
fn a_proof_beside_a_rivals_first_claim_owns_the_token() {
    model(|| {
        let table = table();
        let other = table.clone();
        let worker = thread::spawn(move || learn(&other, B, at(0)));
        assert_eq!(prove(&table, A), Proof::New);
        worker.join().unwrap();
        claims_with_a_proven(&table);
    });
}

#[test]
fn a_proof_beside_a_rival_that_is_being_established_owns_the_token() {
    model(|| {
        let table = table();
        learn(&table, B, at(0));
        let other = table.clone();
        let worker = thread::spawn(move || other.touch(HASH, TOKEN, B, at(1), true));
        assert_eq!(prove(&table, A), Proof::New);
        worker.join().unwrap();
        claims_with_a_proven(&table);
    });
}

#[test]
fn raising_beside_a_touch_and_a_close_of_the_same_claim_loses_nothing() {
    model(|| {
        let table = table();
        learn(&table, A, at(0));
        let other = table.clone();
        let worker = thread::spawn(move || {
            other.touch(HASH, TOKEN, A, at(1), true);
            other.close(HASH, TOKEN, A, at(1));
        });
        assert!([Proof::Raised, Proof::Known].contains(&prove(&table, A)));
        worker.join().unwrap();
        let mut closing = false;
        table.for_each(0, 1, |entry| closing |= entry.closing);
        assert!(!closing, "what packets say does not end it, before or after");
        assert_eq!(claims_with_a_proven(&table), 1);
    });
}

#[test]
fn a_claim_that_was_taken_back_is_gone_unless_a_worker_learns_it_anew() {
    model(|| {
        let table = table();
        prove(&table, A);
        let other = table.clone();
        let worker = thread::spawn(move || learn(&other, A, at(0)));
        assert!(table.withdraw_claim(HASH, TOKEN, A, at(0)));
        let learned = worker.join().unwrap();
        let expected = match learned {
            Learn::New => owner(A, Rank::Provisional),
            Learn::Repeated => TokenLookup::Unknown,
            other => panic!("{other:?}"),
        };
        assert_eq!(find(&table), expected);
    });
}

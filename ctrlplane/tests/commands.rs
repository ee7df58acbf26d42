//! The control plane's idea of a batch by the table of vectors that the data plane's model is tested by, too.

#![cfg(test)]

#[path = "../../dataplane/ipc/vectors/commands.rs"]
mod vectors;

use ctrlplane::reconcile::{Deadlines, reconcile};
use ctrlplane::state::State;
use vectors::{Outcome, vectors};

#[test]
fn the_state_makes_of_every_batch_what_the_table_says() {
    for vector in vectors() {
        let given = State::of(vector.given.clone()).unwrap();
        match (given.apply(&vector.batch), &vector.outcome) {
            (Ok(state), Outcome::Makes(commands)) => {
                assert_eq!(Ok(state), State::of(commands.clone()), "{}", vector.what);
            }
            (Err(refused), Outcome::Refused(place, refusal)) => {
                assert_eq!(refused, (*place, *refusal), "{}", vector.what);
            }
            (came, _) => panic!("{}: {came:?} instead of {:?}", vector.what, vector.outcome),
        }
    }
}

#[test]
fn between_any_two_states_of_the_table_there_is_a_batch_that_holds() {
    let made = |outcome: &Outcome| match outcome {
        Outcome::Makes(commands) => State::of(commands.clone()).ok(),
        Outcome::Refused(..) => None,
    };
    let states: Vec<State> = vectors().iter().filter_map(|vector| made(&vector.outcome)).collect();
    for from in &states {
        for to in &states {
            let batch = reconcile(to, from, &Deadlines::new());
            assert_eq!(from.apply(&batch).as_ref(), Ok(to), "{batch:?}");
        }
    }
}

//! Whether new connections were spread by weight.
//!
//! Every 5-tuple that Maglev alone decides counts once; joins follow their connection and do not count. Of n such
//! flows a backend with the share w of its pool's weight gets n·w, give or take chance and the table's grain: a share
//! is a whole number of the 65,537 slots. The bound is Bernstein's inequality, at a chance of one in a million that an
//! honest pool fails, and two slots.

use config::Backend;
use serde::Serialize;

/// Slots of a pool's table (docs/packet-path.md).
const SLOTS: f64 = 65_537.0;
/// Slots by which a share may be off.
const GRAIN: f64 = 2.0;
/// Chance that an honest pool fails.
const CHANCE: f64 = 1e-6;

/// How the connections of a pool were spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The pool.
    pub pool: String,
    /// Flows that Maglev decided.
    pub flows: u64,
    /// Pearson's chi-square against the weights.
    pub chi_square: f64,
    /// Its degrees of freedom.
    pub degrees: usize,
    /// Each backend.
    pub backends: Vec<Share>,
}

/// What a backend got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Its name.
    pub backend: String,
    /// Its weight.
    pub weight: u32,
    /// Flows it got.
    pub flows: u64,
    /// Flows its weight stands for.
    pub expected: f64,
    /// How many more or fewer are allowed.
    pub bound: f64,
    /// Packets it got, joins and all.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl Share {
    /// Whether the backend got what its weight stands for.
    pub fn holds(&self) -> bool {
        (float(self.flows) - self.expected).abs() <= self.bound
    }
}

impl Spread {
    /// The spread of a pool whose backends, in order, got these flows, packets and bytes.
    pub fn new(pool: &str, backends: &[Backend], got: &[[u64; 3]]) -> Self {
        let weights: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        let flows: u64 = got.iter().map(|[flows, ..]| flows).sum();
        let choices = backends.iter().filter(|backend| backend.weight > 0).count();
        let share = |(backend, [own, packets, bytes]): (&Backend, &[u64; 3])| {
            let share = f64::from(backend.weight) / float(weights.max(1));
            Share {
                backend: backend.name.to_string(),
                weight: backend.weight,
                flows: *own,
                expected: float(flows) * share,
                bound: if backend.weight == 0 { 0.0 } else { bound(float(flows), share, choices) },
                packets: *packets,
                bytes: *bytes,
            }
        };
        let backends: Vec<Share> = backends.iter().zip(got).map(share).collect();
        let expecting = backends.iter().filter(|share| share.expected > 0.0);
        let terms = expecting.map(|share| (float(share.flows) - share.expected).powi(2) / share.expected);
        let chi_square = terms.fold(0.0, |sum, term| sum + term);
        Self { pool: pool.to_owned(), flows, chi_square, degrees: choices.saturating_sub(1), backends }
    }
}

/// By how many flows of `flows` a backend with this share may be off, where `choices` share them.
fn bound(flows: f64, share: f64, choices: usize) -> f64 {
    let variance = flows * share * (1.0 - share);
    let tests = 2.0 * float(choices as u64);
    let log = (tests / CHANCE).ln();
    let chance = log / 3.0 + (log * log / 9.0 + 2.0 * log * variance).sqrt();
    // One backend gets all there is.
    if choices == 1 { 0.0 } else { chance + GRAIN / SLOTS * flows }
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(weights: &[u32], flows: &[u64]) -> Spread {
        let backends: Vec<Backend> = weights
            .iter()
            .zip(1..)
            .map(|(weight, number)| Backend {
                name: format!("b{number}").parse().unwrap(),
                address4: None,
                address6: None,
                mac: None,
                weight: *weight,
                handles: ipc::message::Handles::default(),
            })
            .collect();
        let got: Vec<[u64; 3]> = flows.iter().map(|flows| [*flows, 0, 0]).collect();
        Spread::new("web", &backends, &got)
    }

    fn holds(weights: &[u32], flows: &[u64]) -> bool {
        spread(weights, flows).backends.iter().all(Share::holds)
    }

    #[test]
    fn shares_follow_weights() {
        assert!(holds(&[100, 100, 200], &[25_100, 24_800, 50_100]));
        assert!(!holds(&[100, 100, 200], &[33_400, 33_300, 33_300]));
        assert!(holds(&[100, 0], &[5, 0]));
        assert!(!holds(&[100, 0], &[4, 1]), "a backend of weight 0 gets nothing");
    }

    #[test]
    fn few_flows_may_fall_as_they_like_and_many_may_not() {
        assert!(holds(&[1, 1], &[9, 3]));
        assert!(!holds(&[1, 1], &[90_000, 30_000]));
        // Two percent off is chance in a hundred thousand flows on ten backends, and no chance in ten million.
        let off = |n: u64| {
            let mut flows = vec![n / 10; 10];
            flows[0] += n / 500;
            flows[1] -= n / 500;
            flows
        };
        assert!(holds(&[1; 10], &off(100_000)));
        assert!(!holds(&[1; 10], &off(10_000_000)));
    }

    #[test]
    fn the_chi_square_is_pearsons() {
        let spread = spread(&[1, 1], &[60, 40]);
        assert!((spread.chi_square - 4.0).abs() < 1e-9 && spread.degrees == 1, "{spread:?}");
    }
}

//! The token table alone: what a look-up costs, in bursts, as the packet path does it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use packet::Token;
use serde_json::{Map, Value, json};

use super::bench::progress;
use super::{Options, fill};
use crate::machine;
use crate::measure::{PIECE, Rounds, middle_mean, per_packet};
use crate::number::float;
use crate::traffic::{mix, token};
use crate::world::{self, World};

/// A table of tokens at its advised load.
#[derive(Debug)]
pub struct Lookups {
    world: World,
    tokens: u32,
    seed: u64,
    homeless: u64,
    packets: usize,
}

impl Lookups {
    /// Fills the table.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let tokens = options.tokens.unwrap_or(options.flows).max(1024);
        let world = World::new(&world::standard(1024, tokens as usize)?)?;
        let homeless = fill::tokens(&world, tokens, options.seed, world.now);
        let packets = options.packets.map_or(2_000_000, |packets| packets as usize);
        Ok(Self { world, tokens, seed: options.seed, homeless, packets })
    }

    /// Tokens in the table.
    pub const fn tokens(&self) -> u32 {
        self.tokens
    }

    /// What pages the table lies on.
    pub fn pages(&self) -> &'static str {
        machine::table_pages(self.world.bytes)
    }

    /// What else belongs to a figure.
    pub fn extra(&self) -> Map<String, Value> {
        let load = f64::from(self.tokens) / float(self.world.tables.tokens.capacity().max(1) as u64);
        let mut extra = Map::new();
        extra.insert("pages".to_owned(), json!(self.pages()));
        extra.insert("load".to_owned(), json!(load));
        extra.insert("homeless".to_owned(), json!(self.homeless));
        extra
    }

    /// Nanoseconds a look-up of tokens that are there (or are not), all rounds of each burst size, interleaved.
    pub fn measure(&self, hit: bool, bursts: &[usize], rounds: u32) -> Vec<Rounds> {
        let mut figures = vec![Rounds::default(); bursts.len()];
        let progress = progress(u64::from(rounds) + 1, "rounds");
        for round in 0..=u64::from(rounds) {
            for (burst, figures) in bursts.iter().zip(&mut figures) {
                let ns = self.pass(hit, *burst, round);
                if round > 0 {
                    figures.push(ns);
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        figures
    }

    /// One pass of one burst size.
    fn pass(&self, hit: bool, burst: usize, round: u64) -> f64 {
        let mut times: Vec<f64> = Vec::with_capacity(self.packets / PIECE + 1);
        let mut asked = vec![Token(0); PIECE];
        let mut found = 0;
        for piece in 0..self.packets.div_ceil(PIECE) as u64 {
            for (nth, asked) in (0..).zip(&mut asked) {
                *asked = self.drawn(hit, mix(round << 40 | piece << 16 | nth));
            }
            let begin = Instant::now();
            found += self.run(&asked, burst.clamp(1, 64));
            let time: Duration = begin.elapsed();
            times.push(per_packet(time, PIECE));
        }
        black_box(found);
        middle_mean(&mut times)
    }

    /// A token of the table, or one that is not there.
    fn drawn(&self, hit: bool, random: u64) -> Token {
        let range = if hit { 0..self.tokens } else { self.tokens..u32::MAX };
        let number = (u128::from(random) * u128::from(range.end - range.start)) >> 64;
        token(range.start + u32::try_from(number).unwrap_or(0), self.seed)
    }

    /// The measured part: hash, ask for the line, look; how many were found.
    #[inline(never)]
    fn run(&self, asked: &[Token], burst: usize) -> u64 {
        let (tables, snapshot, pool) = (&self.world.tables, &self.world.snapshot, self.world.pool());
        let mut found = 0;
        let mut hashes = [0_u64; 64];
        for burst in asked.chunks(burst) {
            for (hash, token) in hashes.iter_mut().zip(burst) {
                *hash = tables.token_hash(*token, pool);
                tables.tokens.prefetch(*hash);
            }
            for (hash, token) in hashes.iter().zip(burst) {
                tables.tokens.prefetch_rest(*hash, *token);
            }
            for (hash, token) in hashes.iter().zip(burst) {
                let belongs = |id| snapshot.backend(id).is_some_and(|backend| backend.pool == pool);
                let owner = tables.tokens.find(*hash, *token, belongs);
                found += u64::from(owner != engine::token_table::TokenLookup::Unknown);
            }
        }
        found
    }

    /// How many of so many look-ups find something.
    pub fn found(&self, hit: bool, lookups: u64) -> u64 {
        let asked: Vec<Token> = (0..lookups).map(|nth| self.drawn(hit, mix(nth))).collect();
        self.run(&asked, 32)
    }
}

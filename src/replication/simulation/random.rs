//! Choices that a seed repeats, on every machine; or, while they last, the bytes of an input.

use std::time::Duration;

/// A small generator (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
    /// The next choices, the last first.
    input: Vec<u8>,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { state: seed, input: Vec::new() }
    }

    /// One whose first choices are those of an input.
    #[cfg(fuzzing)]
    pub(super) fn of_input(input: &[u8]) -> Random {
        Random { state: 0, input: input.iter().rev().copied().collect() }
    }

    /// Whether nothing is left of the input.
    #[cfg(fuzzing)]
    pub(super) fn is_spent(&self) -> bool {
        self.input.is_empty()
    }

    /// Another one, whose choices don't depend on how many this one makes from here on. It takes the input with it.
    pub(super) fn fork(&mut self) -> Random {
        Random { state: self.next(), input: std::mem::take(&mut self.input) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        match self.input.pop() {
            Some(byte) if limit <= 256 => usize::from(byte) % limit,
            _ => (self.next() % limit as u64) as usize,
        }
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Less than `most`, mostly much less.
    pub(super) fn time(&mut self, most: Duration) -> Duration {
        let part = self.below(1000) as u32;
        most * part / 1000 * part / 1000
    }
}

//! A simulation of the stream's core: the real code from the session to the checkpoint, between two simulated servers, under a virtual clock.
//!
//! In: a seed, which decides everything: what the application writes, how long each thing takes, what is cut, what crashes, and when pgstream itself
//! is killed. Out: a rule that was broken, or figures. Nothing waits for real: a life of several seconds takes milliseconds, and the
//! same seed lives the same life again.
//!
//! ```text
//! life      an operator who starts pgstream again and again; chaos; the end that must be reached
//! world     the rules, checked at every commit, crash and report            network    pipes that delay, cut, stall, break
//! source    an application, the log and the slot     walsender   its sessions        pgoutput    what they make of the log
//! target    tables, commits and what a crash leaves  session     its sessions         statement   the SQL that they understand
//! model     tables, rows, digests                    wire        messages            random      choices
//! fuzzing   the application's choices come from a fuzzer, and what is assembled and gathered is compared with what it did
//! ```
//!
//! The rules:
//! - The target holds, after each of its commits and crashes, exactly what the source held at the checkpoint: whole transactions, each once, in their order; of
//!   a table that was copied later, what its snapshot held until the checkpoint gets there.
//! - Each change finds the rows that it expects, and triggers see it once. What is applied again to the same end would not show otherwise, and a retry may mend the rest.
//! - What pgstream reports as durable is what would be left if the target crashed now. No position goes back, from one stream to the next either.
//! - No stream is asked for from before the position that its slot was confirmed to.
//! - Where it was told to end, everything before is durable, and nothing after is applied.
//! - It fails only for what was made to fail, and once nothing fails any more it reaches the end, and the source needs none of its log, within a bounded time.

// A fuzzer needs the application and what it sends alone.
#![cfg_attr(fuzzing, allow(dead_code))]

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod life;
mod model;
#[cfg(test)]
mod network;
mod pgoutput;
mod random;
#[cfg(test)]
mod session;
mod source;
#[cfg(test)]
mod statement;
#[cfg(test)]
mod target;
#[cfg(test)]
mod walsender;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::life::live;
    use super::world::Statistics;

    /// Seeds that are lived in the normal run of the tests.
    const SEEDS: u64 = 200;

    /// What a life may take, of real time.
    const LIFETIME: Duration = Duration::from_secs(60);

    fn variable(name: &str) -> Option<u64> {
        std::env::var(name).ok().and_then(|text| text.parse().ok())
    }

    /// Lives the seeds from `first` on, on all processors; the failures, and the sum of the figures.
    fn live_all(first: u64, seeds: u64) -> (Vec<String>, Statistics) {
        let next = AtomicU64::new(first);
        let worker = || {
            let directory = tempfile::tempdir().expect("a folder for spilled transactions");
            let (mut failures, mut sum) = (Vec::new(), Statistics::default());
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + seeds || failures.len() > 20 {
                    return (failures, sum);
                }
                let begun = Instant::now();
                match live(seed, directory.path()) {
                    Ok(figures) => sum = sum + figures,
                    Err(failure) => failures.push(format!("PGSTREAM_SIMULATION_SEED={seed} {failure}")),
                }
                if begun.elapsed() > LIFETIME {
                    failures.push(format!("PGSTREAM_SIMULATION_SEED={seed} took {:?}", begun.elapsed()));
                }
            }
        };
        std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let mut all = (Vec::new(), Statistics::default());
            for worker in workers {
                let (failures, sum) = worker.join().expect("a worker does not panic");
                all.0.extend(failures);
                all.1 = all.1 + sum;
            }
            all
        })
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "whoever runs it for long wants the figures")]
    fn whatever_a_seed_brings_the_target_is_what_the_source_was() {
        let one = variable("PGSTREAM_SIMULATION_SEED");
        let seeds = if one.is_some() { 1 } else { variable("PGSTREAM_SIMULATION_SEEDS").unwrap_or(SEEDS) };
        let first = one.or_else(|| variable("PGSTREAM_SIMULATION_FIRST")).unwrap_or(1);
        let begun = Instant::now();
        let (failures, sum) = live_all(first, seeds);
        let rate = seeds as f64 / begun.elapsed().as_secs_f64();
        println!("{seeds} seeds from {first}, {rate:.0} a second: {sum:?}");
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn a_seed_lives_the_same_life_again() {
        let directory = tempfile::tempdir().expect("a folder for spilled transactions");
        for seed in 1..20 {
            let lives = [(); 2].map(|()| live(seed, directory.path()).map(|figures| figures.trace));
            assert_eq!(lives[0], lives[1], "seed {seed}");
        }
    }
}

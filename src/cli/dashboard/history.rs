//! How the counters went over time, in bounded memory however long it takes; pure.
//!
//! Counters are kept as they were and not as rates: so any of the samples may be dropped, and the rate between the two beside it is still right.

use serde_json::{Value, json};

/// The most samples that are kept.
const CAPACITY: usize = 600;

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    /// Seconds since 1970.
    pub(super) at: f64,
    /// Bytes of rows that this run has sent.
    pub(super) bytes: u64,
    /// Changes that this run has applied.
    pub(super) changes: u64,
    /// How far the target is behind the source, in bytes of its log; `None` while no source is followed.
    pub(super) lag: Option<u64>,
}

/// Samples, oldest first. When there are too many, every other one goes, and from then on only half as many come in.
#[derive(Debug)]
pub(super) struct History {
    samples: Vec<Sample>,
    /// One of so many samples that are offered is kept.
    every: usize,
    /// What was offered since the last that was kept.
    skipped: usize,
    /// The largest lag of those, which must not be missed.
    peak: Option<u64>,
}

impl History {
    pub(super) fn new() -> History {
        History { samples: Vec::new(), every: 1, skipped: 0, peak: None }
    }

    /// Offers what the counters are now.
    pub(super) fn add(&mut self, sample: Sample) {
        self.peak = self.peak.max(sample.lag);
        self.skipped += 1;
        if self.skipped < self.every {
            return;
        }
        self.samples.push(Sample { lag: self.peak, ..sample });
        (self.skipped, self.peak) = (0, None);
        if self.samples.len() > CAPACITY {
            self.samples = self
                .samples
                .chunks(2)
                .map(|pair| {
                    let last = pair[pair.len() - 1];
                    Sample { lag: pair[0].lag.max(last.lag), ..last }
                })
                .collect();
            self.every *= 2;
        }
    }

    /// The samples as columns.
    pub(super) fn object(&self) -> Value {
        let column = |of: fn(&Sample) -> Value| self.samples.iter().map(of).collect::<Vec<_>>();
        json!({
            "at": column(|sample| json!(sample.at)),
            "bytes": column(|sample| json!(sample.bytes)),
            "changes": column(|sample| json!(sample.changes)),
            "lag_bytes": column(|sample| json!(sample.lag)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_small_and_forgets_neither_the_beginning_nor_a_peak() {
        let mut history = History::new();
        for second in 0..100_000_u32 {
            let lag = (second == 31_415).then_some(7);
            history.add(Sample { at: second.into(), bytes: u64::from(second) * 10, changes: 0, lag });
        }
        let samples = &history.samples;
        assert!(samples.len() > CAPACITY / 2 && samples.len() <= CAPACITY, "{}", samples.len());
        assert_eq!(samples.iter().filter(|sample| sample.lag == Some(7)).count(), 1);
        assert!(samples[0].at < 1000.0);
        for pair in samples.windows(2) {
            let rate = (pair[1].bytes - pair[0].bytes) as f64 / (pair[1].at - pair[0].at);
            assert!((rate - 10.0).abs() < 1e-9, "{pair:?}");
        }
    }
}

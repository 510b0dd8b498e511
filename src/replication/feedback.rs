//! The one place that tells the source how far the target is.
//!
//! In: how far messages have arrived, and how far the target's commits are durable. Out: the Standby Status Update to send. Nothing fails; what
//! may not happen is that a position goes back or that more is reported than is durable: the source lets go of the log for good, and it
//! believes a position beyond the end of its log too.

use pgstream_proto::lsn::Lsn;
use pgstream_proto::replication::StandbyStatusUpdate;
use pgstream_proto::timestamp::Timestamp;

/// What is known, and what was last told.
#[derive(Debug)]
pub(super) struct Feedback {
    received: Lsn,
    durable: Lsn,
    reported: Lsn,
}

impl Feedback {
    /// At the start of a stream from a checkpoint that is durable.
    pub(super) fn new(checkpoint: Lsn) -> Feedback {
        Feedback { received: checkpoint, durable: checkpoint, reported: Lsn::INVALID }
    }

    /// A message that ends at `lsn` has arrived.
    pub(super) fn received(&mut self, lsn: Lsn) {
        self.received = self.received.max(lsn);
    }

    /// Everything that ends at or before `lsn` is durable on the target.
    pub(super) fn durable(&mut self, lsn: Lsn) {
        self.durable = self.durable.max(lsn);
    }

    /// Whether the source knows less than there is to know.
    pub(super) fn is_due(&self) -> bool {
        self.durable > self.reported
    }

    /// The position that was last reported as durable.
    pub(super) fn reported(&self) -> Lsn {
        self.reported
    }

    /// The report to send now.
    pub(super) fn report(&mut self, now: Timestamp, reply_requested: bool) -> StandbyStatusUpdate {
        self.reported = self.durable;
        StandbyStatusUpdate {
            write: self.received.max(self.durable),
            flush: self.durable,
            apply: self.durable,
            sent_at: now,
            reply_requested,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Received(u64),
        Durable(u64),
        Report,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..1000u64).prop_map(Step::Received),
            (0..1000u64).prop_map(Step::Durable),
            Just(Step::Report),
        ];
        prop::collection::vec(step, 0..50)
    }

    proptest! {
        #[test]
        fn flush_never_goes_back_nor_past_what_is_durable(start in 0..1000u64, steps in steps()) {
            let mut feedback = Feedback::new(Lsn(start));
            let (mut durable, mut last) = (start, None::<StandbyStatusUpdate>);
            for step in steps {
                match step {
                    Step::Received(lsn) => feedback.received(Lsn(lsn)),
                    Step::Durable(lsn) => {
                        durable = durable.max(lsn);
                        feedback.durable(Lsn(lsn));
                    }
                    Step::Report => {
                        let update = feedback.report(Timestamp(0), false);
                        prop_assert_eq!(update.flush, Lsn(durable));
                        prop_assert!(update.write >= update.flush);
                        prop_assert!(!feedback.is_due());
                        if let Some(last) = last {
                            prop_assert!(update.flush >= last.flush && update.write >= last.write);
                        }
                        last = Some(update);
                    }
                }
            }
        }
    }
}

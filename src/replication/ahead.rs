//! Applies a large transaction while the source still sends it, ahead of its commit.
//!
//! Far behind the source, a large transaction arrives in pieces that the source has decoded so far, with the commit at the end. To hold it back until then
//! would have the target wait for the source, and then the source for the target. So its changes are applied as they come, as the
//! only ones of the target's transaction, which is committed when the source's commit arrives. In: [`Event::Ahead`](super::assemble::Event), changes, and a
//! commit or [`Event::Back`](super::assemble::Event). What may fail: any change, for reasons that may pass when the whole transaction is known; whoever drives the
//! applier starts again, and lets large transactions wait for their commit then.
//!
//! The assembler goes back as soon as anything else is to be applied before, or a part of the transaction is rolled back: it still holds
//! all of it, to be applied after its commit. What is known of relations goes back, too: the source describes them anew inside such a
//! transaction, by definitions that nobody else may have seen.

use std::collections::HashMap;

use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::Relation;
use pgstream_proto::timestamp::Timestamp;

use super::apply::{Applier, Known};
use super::failure::Halt;

/// The commit LSN of what is applied ahead: none is known but that it is later than all others.
pub(super) const UNKNOWN: Lsn = Lsn(u64::MAX);

/// What to restore if the transaction is not committed.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    relations: HashMap<u32, Option<Relation>>,
}

impl Ahead {
    /// The relation is described anew; before, this was known of it.
    pub(super) fn replaced(&mut self, oid: u32, before: Option<Relation>) {
        self.relations.entry(oid).or_insert(before);
    }
}

impl Applier {
    /// Whether the next large transaction may be applied ahead: the source has more than enough to send, none that comes is to be applied
    /// with care, and no change of any transaction that is not committed yet can be in the copy.
    pub(super) fn may_go_ahead(&self, sent_at: Timestamp) -> bool {
        let past = self.position.end;
        let careful = self.careful_until() > past;
        self.ahead.is_none() && !careful && self.is_behind(sent_at) && self.filter.is_past(past)
    }

    /// Commits all that was before, so that going back takes none of it.
    pub(super) async fn go_ahead(&mut self) -> Result<(), Halt> {
        if self.has_group() {
            self.commit(false).await?;
        }
        self.transaction = Some(UNKNOWN);
        self.ahead = Some(Ahead::default());
        Ok(())
    }

    /// Undoes what was applied ahead; nothing where nothing was.
    pub(super) async fn go_back(&mut self) -> Result<(), Halt> {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        self.transaction = None;
        self.pending.clear();
        self.gathered_bytes = 0;
        if let Some(run) = &mut self.run {
            run.rows.clear();
        }
        self.end_run()?;
        for (oid, before) in ahead.relations {
            self.forget(oid)?;
            if let Some(relation) = before {
                self.known.insert(oid, Known { relation, mapped: None });
            }
        }
        if self.group.take().is_some_and(|group| group.begun) {
            self.roll_back().await?;
        }
        Ok(())
    }
}

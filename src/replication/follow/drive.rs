//! Drives the applier: what is received goes to it, and it is told when to commit and when to end.
//!
//! In: chunks of messages. Out: why following ends, or that nothing comes any more. What may fail: what is applied; a message that isn't in its form.

use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use pgstream_proto::replication::StreamMessage;
use pgstream_proto::timestamp::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Ended;
use super::attempt::Attempt;
use crate::error::Result;
use crate::replication::apply::Applier;
use crate::replication::assemble::{Assembler, Event};
use crate::replication::failure::Halt;
use crate::replication::stream::Chunk;

/// How long a transaction that is applied ahead of its commit may be silent: one that the source is still at work on should not keep locks on the
/// target.
const AHEAD_SILENCE: Duration = Duration::from_secs(1);

/// How long the target's answers may stay unread when nobody waits for them: each would wake this task, in vain.
const UNHEARD: Duration = Duration::from_millis(10);

/// Bytes of a message from which on it is applied where it holds up no other task: the thread that applies is, as a rule, that which
/// watches the sockets, and the source is to hear from us while a huge row is copied from one buffer to another.
const LARGE: usize = 1 << 20;

impl Attempt<'_> {
    /// Applies what comes; `None` when nothing comes any more.
    pub(super) async fn apply(
        &mut self,
        applier: &mut Applier,
        mut assembler: Assembler,
        mut chunks: mpsc::Receiver<Chunk>,
    ) -> Result<Option<Ended>, Halt> {
        let mut idle_stored = Instant::now();
        let mut last_data = Instant::now();
        let mut sent_at = Timestamp(0);
        let mut all_sent = false;
        loop {
            let chunk = match chunks.try_recv() {
                Ok(chunk) => chunk,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(None),
                Err(mpsc::error::TryRecvError::Empty) => {
                    if applier.may_rest() {
                        applier.rest().await?;
                    }
                    let whole = applier.has_group() && !applier.is_in_transaction();
                    if !whole && applier.has_group() {
                        applier.send().await?;
                    } else if !whole && let Some(ended) = self.ended(applier).await? {
                        return Ok(Some(ended));
                    }
                    let due = match (whole, applier.is_ahead()) {
                        // Far behind the source, more will come at once, and few commits do more than early ones.
                        (true, _) if !all_sent && applier.is_behind(sent_at) => applier.full_at(),
                        (true, _) => applier.may_commit_at(),
                        (false, true) => Some(last_data + AHEAD_SILENCE),
                        (false, false) => self.due(applier, idle_stored),
                    };
                    if due.is_some_and(|due| due <= Instant::now()) {
                        if whole {
                            applier.commit(self.stop.is_cancelled()).await?;
                        } else if applier.is_ahead() {
                            assembler.go_back();
                            applier.go_back().await?;
                        } else {
                            applier.commit(true).await?;
                            idle_stored = Instant::now();
                        }
                        continue;
                    }
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled(), if !self.stop.is_cancelled() => continue,
                        Ok(()) = self.until.changed() => continue,
                        answered = applier.answer(), if applier.has_enough() => {
                            answered?;
                            continue;
                        }
                        () = tokio::time::sleep(UNHEARD), if applier.may_rest() => continue,
                        chunk = chunks.recv() => match chunk {
                            Some(chunk) => chunk,
                            None => return Ok(None),
                        },
                        () = sleep_until(due) => continue,
                    }
                }
            };
            if let Some(version) = chunk.begins {
                // What was applied ahead comes again.
                applier.go_back().await?;
                assembler = assembler.anew(version);
            }
            if chunk.messages.iter().any(|(message, _)| matches!(message, StreamMessage::XLogData { .. })) {
                last_data = Instant::now();
            }
            if let Some((last, _)) = chunk.messages.last() {
                sent_at = last.sent_at();
                // It comes before the source waits for something to send.
                all_sent = matches!(last, StreamMessage::PrimaryKeepalive { .. });
            }
            let large = chunk.messages.iter().any(|(_, size)| *size >= LARGE);
            let taken = self.take(applier, &mut assembler, chunk);
            let runtime = Handle::current();
            let ended = match large && runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
                true => tokio::task::block_in_place(|| runtime.block_on(taken)),
                false => taken.await,
            };
            if let Some(ended) = ended? {
                return Ok(Some(ended));
            }
            if (applier.is_ahead() || !applier.is_in_transaction())
                && let Some(ended) = self.ended(applier).await?
            {
                return Ok(Some(ended));
            }
        }
    }

    /// Applies messages that arrived together.
    async fn take(
        &mut self,
        applier: &mut Applier,
        assembler: &mut Assembler,
        chunk: Chunk,
    ) -> Result<Option<Ended>, Halt> {
        for (message, size) in chunk.messages {
            let go_ahead = self.may_go_ahead && applier.may_go_ahead(message.sent_at());
            let mut event = assembler.take(message, go_ahead)?;
            while let Some(next) = event {
                let until = *self.until.borrow();
                let commit = match &next {
                    Event::Begin(begin) => Some(begin.final_lsn),
                    Event::Commit(commit) if applier.is_ahead() => Some(commit.commit_lsn),
                    _ => None,
                };
                if let Some(until) = until.filter(|until| commit.is_some_and(|lsn| lsn >= *until)) {
                    // All that is wanted came before.
                    return self.end(applier, Some(until)).await.map(Some);
                }
                let committed = matches!(next, Event::Commit(_));
                applier.apply(next, size).await?;
                if committed && let Some(ended) = self.ended(applier).await? {
                    return Ok(Some(ended));
                }
                event = assembler.next()?;
            }
        }
        Ok(None)
    }

    /// When something is to be committed though nothing more comes: what is not durable, or an advance without changes.
    fn due(&self, applier: &mut Applier, idle_stored: Instant) -> Option<Instant> {
        if applier.is_in_transaction() {
            None
        } else if !applier.is_durable() {
            Some(applier.overdue_at())
        } else if applier.position() > applier.checkpoint() {
            Some(idle_stored + self.options.idle_advance)
        } else {
            None
        }
    }

    /// Whether following should end here, between two source transactions; what is applied is committed then, durably. A stop in the middle of a
    /// transaction leaves it to the next run.
    async fn ended(&mut self, applier: &mut Applier) -> Result<Option<Ended>, Halt> {
        let reached = self.until.borrow().filter(|lsn| applier.position() >= *lsn);
        if reached.is_none() && !self.stop.is_cancelled() {
            return Ok(None);
        }
        if applier.is_in_transaction() && !applier.is_ahead() {
            return Ok(Some(Ended::Stopped(applier.checkpoint())));
        }
        self.end(applier, reached).await.map(Some)
    }

    /// Commits what is applied, durably; `reached` is the position asked for.
    pub(super) async fn end(&mut self, applier: &mut Applier, reached: Option<Lsn>) -> Result<Ended, Halt> {
        applier.go_back().await?;
        let open = applier.has_group() || applier.is_underway();
        if open || applier.position() > applier.checkpoint() || !applier.is_durable() {
            applier.commit(true).await?;
            applier.settle().await?;
        }
        let lsn = applier.checkpoint();
        Ok(match reached {
            Some(until) => Ended::Reached(lsn.max(until)),
            None => Ended::Stopped(lsn),
        })
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

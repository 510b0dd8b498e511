//! The receiving end of the stream: a task of its own, so that the source hears from us whatever the target does.
//!
//! In: the walsender's bytes. Out: chunks of messages to the applier, at most so many bytes at a time, and reports to the source ([`Feedback`]). A
//! request for a reply is answered at once; besides that, a report goes out on a timer, also while the applier can't take more
//! and while one huge message is still arriving. What may fail: the connection, or a message that isn't in its form.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgstream_proto::pgoutput::ProtocolVersion;
use pgstream_proto::replication::StreamMessage;
use pgstream_proto::timestamp::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::feedback::Feedback;
use crate::config::Side;
use crate::error::{Error, Result};
use crate::progress::StreamProgress;
use crate::wire::{CopyBoth, violation};
use pgstream_proto::lsn::Lsn;

/// Bytes of messages that may wait for the applier.
pub(super) const WAITING: usize = 8 << 20;

/// How long the socket is left alone after it gave less than so many bytes, while the stream is far behind. The source sends each message by itself, and
/// a message that finds the receive window open costs it, and us, some ten times what one costs that joins those which wait for the
/// window to open. So the window is left to close, and what has gathered behind it comes in large pieces. It is left alone for as long as so much
/// gathers, which is less than what a source can have sent before it has to wait for us.
const WORTH_WAKING: usize = 32 << 10;
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));
const GATHERED: usize = 192 << 10;

/// How far the stream is behind the source then, in microseconds.
pub(super) const BEHIND: i64 = 500_000;

/// How long the source may be silent at first; where nothing comes of it, longer and longer: an old server may decode for long without a word.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(3600);

/// How long the source is given to end the stream in order.
const GOODBYE: Duration = Duration::from_secs(3);

/// Messages that arrived together; their share of what may wait is free again when they are dropped.
#[derive(Debug)]
pub(super) struct Chunk {
    /// A stream of this version begins with the first of them: the source describes relations anew, and nothing half received goes on.
    pub(super) begins: Option<ProtocolVersion>,
    pub(super) messages: Vec<(StreamMessage, usize)>,
    #[expect(dead_code, reason = "held for the sake of its drop")]
    pub(super) share: OwnedSemaphorePermit,
}

/// What the receiver works with.
pub(super) struct Receiver {
    pub(super) stream: CopyBoth,
    pub(super) chunks: mpsc::Sender<Chunk>,
    /// Up to where the target's commits are durable.
    pub(super) durable: watch::Receiver<Lsn>,
    /// Whether the target has so much to do that the applier waits for it.
    pub(super) is_busy: watch::Receiver<bool>,
    pub(super) feedback: Feedback,
    pub(super) progress: Arc<StreamProgress>,
    /// How often the source hears from us at least, and is asked to answer.
    pub(super) interval: Duration,
    /// How long it may leave that without any answer: a peer that is gone without a word would be noticed by nothing else, as what we send to it takes the
    /// place of TCP's keepalives.
    pub(super) silence: Duration,
    /// Told when the applier has ended: the last report is sent and the stream ends.
    pub(super) finish: CancellationToken,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Messages with their sizes, and the bytes of them all.
type Arrived = (Vec<(StreamMessage, usize)>, usize);

impl Receiver {
    /// Receives until the applier ends or the stream does.
    pub(super) async fn run(mut self) -> Result<()> {
        let room = Arc::new(Semaphore::new(WAITING));
        let mut timer = tokio::time::interval(self.interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Option<Arrived> = None;
        let mut pause: Option<Instant> = None;
        let mut pause_length = PAUSES.1;
        // Bytes since the last pause.
        let mut gathered = 0;
        let mut behind = true;
        let mut heard = Instant::now();
        loop {
            if waiting.is_none() && pause.is_none() {
                waiting = self.arrived()?;
                if let Some((messages, bytes)) = &mut waiting {
                    behind = messages.last().is_some_and(|(last, _)| self.is_behind(last));
                    // What little was read may have opened the window for much that waits at the other end.
                    if behind
                        && *bytes < WORTH_WAKING
                        && self.stream.take_arrived().await?
                        && let Some((more, more_bytes)) = self.arrived()?
                    {
                        messages.extend(more);
                        *bytes += more_bytes;
                    }
                    gathered += *bytes;
                    // Little has come at a time, and much is to come: more may be left to gather in the socket.
                    if behind && *bytes < WORTH_WAKING {
                        self.stream.leave_alone()?;
                        let fitting = pause_length.mul_f64(GATHERED as f64 / gathered.max(1) as f64);
                        pause_length = fitting.clamp(PAUSES.0, PAUSES.1);
                        pause = Some(Instant::now() + pause_length);
                        gathered = 0;
                    }
                }
            }
            if waiting.is_none() && self.stream.is_ended() {
                return Err(Error::connection("the source ended the replication stream"));
            }
            // What arrives while the target is busy wakes nobody, and is read at once afterwards. Far behind, it would be too much.
            let rests = *self.is_busy.borrow_and_update() && !behind;
            let idle = waiting.is_none() && pause.is_none();
            if idle && rests {
                self.stream.leave_alone()?;
            }
            let reads = idle && !rests;
            if !reads {
                heard = Instant::now();
            }
            // A message larger than all the room takes all of it.
            let share = waiting.as_ref().map_or(0, |(_, bytes)| (*bytes).clamp(1, WAITING));
            tokio::select! {
                biased;
                () = self.finish.cancelled() => return self.end().await,
                _ = timer.tick() => self.report(true),
                changed = self.durable.changed() => {
                    // The sender is gone when the applier is.
                    if changed.is_err() {
                        return self.end().await;
                    }
                    let durable = *self.durable.borrow_and_update();
                    self.feedback.durable(durable);
                    self.progress.set_durable(durable);
                    if self.feedback.is_due() {
                        self.report(false);
                    }
                }
                Ok(()) = self.is_busy.changed() => {}
                permit = room.clone().acquire_many_owned(share as u32), if waiting.is_some() => {
                    let (Ok(share), Some((messages, _))) = (permit, waiting.take()) else { continue };
                    // The channel is wide: what bounds it is the room above.
                    if self.chunks.send(Chunk { begins: None, messages, share }).await.is_err() {
                        return self.end().await;
                    }
                }
                () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if waiting.is_none() && pause.is_some() => {
                    pause = None;
                }
                // With `reads`, it ends when something has arrived.
                done = self.stream.exchange(reads), if reads || self.stream.has_outbound() => {
                    done?;
                    heard = Instant::now();
                }
                () = tokio::time::sleep_until(heard + self.silence), if reads => {
                    let seconds = self.silence.as_secs();
                    return Err(Error::connection(format!("the source has said nothing for {seconds} s, though it was asked")));
                }
            }
        }
    }

    /// Whether the target is far behind a message.
    fn is_behind(&self, message: &StreamMessage) -> bool {
        let applied = self.progress.snapshot().committed_at;
        // Before the first commit, nothing tells how far it is.
        applied.is_none_or(|applied| message.sent_at().0.saturating_sub(applied.0) > BEHIND)
    }

    /// The messages that have arrived whole, and their bytes.
    fn arrived(&mut self) -> Result<Option<Arrived>> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut reply = false;
        while bytes < WAITING {
            let Some(body) = self.stream.next_data()? else { break };
            let size = body.len();
            let message = StreamMessage::parse(body).map_err(|e| violation(Side::Source, e))?;
            let end = match &message {
                StreamMessage::XLogData { end, .. } => *end,
                StreamMessage::PrimaryKeepalive { wal_end, reply_requested, .. } => {
                    reply |= reply_requested;
                    self.progress.set_source(*wal_end);
                    *wal_end
                }
            };
            self.feedback.received(end);
            self.progress.set_received(end);
            bytes += size;
            messages.push((message, size));
        }
        if reply {
            self.report(false);
        }
        Ok((!messages.is_empty()).then_some((messages, bytes)))
    }

    fn report(&mut self, reply_requested: bool) {
        let update = self.feedback.report(now(), reply_requested);
        update.write(self.stream.outbound());
        self.progress.set_confirmed(self.feedback.reported());
    }

    /// Sends the last report and ends the stream. A source that is gone has nothing to be told.
    async fn end(mut self) -> Result<()> {
        self.feedback.durable(*self.durable.borrow());
        self.report(false);
        // What it would have sent comes again from the checkpoint; what it has heard is only ahead of what it must know.
        let _ = tokio::time::timeout(GOODBYE, self.stream.finish()).await;
        Ok(())
    }
}

//! One attempt to follow the source: its sessions, what is to be applied, and who works on it.
//!
//! In: what the target's state and the slot say. Out: how following ended, or what stopped the attempt. What may fail: see [`Halt`]; all is to be
//! begun again from the checkpoint then.

use std::sync::Arc;
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{Ended, Options, start};
use crate::config::Side;
use crate::error::{Error, Result, joined};
use crate::fault;
use crate::progress::StreamProgress;
use crate::replication::apply::{Applier, Parts};
use crate::replication::assemble::{Assembler, Budget};
use crate::replication::durable::Flusher;
use crate::replication::failure::{self, Halt};
use crate::replication::feedback::Feedback;
use crate::replication::filter::Filter;
use crate::replication::lookup::Lookup;
use crate::replication::resume::{self, Resumable, Resume};
use crate::replication::slot;
use crate::replication::spool::{self, Drain};
use crate::replication::stream::Receiver;
use crate::replication::target::{self, TriggerRole};
use crate::state::{
    self,
    checkpoint::{self, Advance, Checkpoint},
};
use crate::wire::{Connection, CopyBoth, Settings};

/// One stream, from its start to whatever ends it.
pub(super) struct Attempt<'a> {
    pub(super) options: &'a Options,
    pub(super) filter: &'a Filter,
    pub(super) until: &'a mut watch::Receiver<Option<Lsn>>,
    pub(super) stop: &'a CancellationToken,
    pub(super) progress: &'a Arc<StreamProgress>,
    /// What else is at work for it.
    pub(super) tasks: &'a TaskTracker,
    pub(super) careful_until: Lsn,
    /// Whether large transactions may be applied ahead of their commit.
    pub(super) may_go_ahead: bool,
    /// The process ID of the session that applied changes last, which the target may not have noticed to be lost.
    pub(super) session: &'a mut Option<u32>,
    pub(super) silence: Duration,
}

/// The sessions of the target.
struct Sessions {
    /// The one that changes are applied in, and whether triggers are silent in it.
    session: Connection,
    role: TriggerRole,
    /// One to look things up in.
    lookup: Lookup,
    /// One that makes commits durable.
    flusher: Connection,
}

impl Attempt<'_> {
    /// `None` when what there was to apply is applied and was in the spool.
    pub(super) async fn run(mut self) -> Result<Option<Ended>, Halt> {
        let options = self.options;
        // It may be far away, and is not needed before the target has told where to go on; perhaps not even then.
        let source = options.source.clone();
        let source = self
            .tasks
            .spawn(async move { Connection::connect(&source, Side::Source, &Settings::replication()).await });
        let source = AbortOnDropHandle::new(source);
        let settings = Settings::session();
        let (opened, lookup, flusher) = tokio::try_join!(
            target::open(&options.target, &settings),
            Connection::connect(&options.target, Side::Target, &settings),
            Flusher::open(&options.target),
        )?;
        let (mut session, role) = opened;
        if let Some(lost) = *self.session {
            state::end_lost_session(&mut session, lost).await?;
        }
        *self.session = Some(session.pid());
        let Some((checkpoint, spool)) = checkpoint::read_with_spool(&mut session).await? else {
            return Err(Error::failed("the target has no checkpoint to follow the source from").into());
        };
        let folder = options.spool.as_deref();
        let spooled = spool::pending(&mut session, &options.source, &checkpoint, spool, folder).await?;
        let sessions = Sessions { session, role, lookup: Lookup::new(lookup), flusher };
        match spooled {
            Some(drain) => {
                drop(source);
                self.drain(drain, sessions, &checkpoint).await
            }
            None => {
                let source = joined("a task of the stream", source.await)?;
                self.receive(source, sessions, &checkpoint).await.map(Some)
            }
        }
    }

    /// Applies what the spool holds past the checkpoint.
    async fn drain(
        &mut self,
        drain: Drain,
        mut sessions: Sessions,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Ended>, Halt> {
        if drain.is_raw() {
            sessions.session.execute(start::RAW).await?;
        }
        // The last run may have committed without waiting for the disk.
        fault::step(
            "durable checkpoint",
            checkpoint::make_durable(&mut sessions.session, checkpoint.timeline),
        )
        .await?;
        let (end, version) = (drain.end(), drain.version());
        let (durable, durable_seen) = watch::channel(checkpoint.applied);
        let (chunks, received) = mpsc::channel(1024);
        let (mut applier, _flusher) = self.applier(sessions, checkpoint, durable)?;
        let assembler = self.assembler(version, checkpoint.applied);
        let reader = AbortOnDropHandle::new(self.tasks.spawn(drain.run(chunks, durable_seen)));
        let applied = self.apply(&mut applier, assembler, received).await;
        if !matches!(applied, Ok(None)) {
            // The next attempt wants the folder for itself.
            reader.abort();
            let _ = reader.await;
            return applied;
        }
        let drain = joined("a task of the stream", reader.await)?;
        self.end(&mut applier, None).await?;
        if applier.checkpoint() < end {
            let (at, what) = (applier.checkpoint(), "the spool did not bring the target to its end");
            return Err(Error::failed(what)
                .with_detail(format!("It stands at {at}, and not at {end}."))
                .into());
        }
        drain.discard().await?;
        Ok(None)
    }

    /// Applies what the source sends from the checkpoint on.
    async fn receive(
        &mut self,
        mut source: Connection,
        mut sessions: Sessions,
        checkpoint: &Checkpoint,
    ) -> Result<Ended, Halt> {
        let (options, start) = (self.options, checkpoint.applied);
        start::as_is(&mut source, &mut sessions.session).await?;
        let version = ProtocolVersion::newest_of(source.version());
        let from = Resume {
            slot: &options.slot,
            publication: &options.publication,
            streaming: options.streaming && version >= ProtocolVersion::V2,
        };
        let Resumable { timeline, interval } = resume::check(&mut source, &from, checkpoint).await?;
        // The last run may have committed without waiting for the disk. To ask for a stream tells the source nothing of what is durable yet.
        let made_durable =
            fault::step("durable checkpoint", checkpoint::make_durable(&mut sessions.session, timeline));
        let command = start::start_command(&from, version, start);
        let (stream, (), ()) = tokio::try_join!(
            async { CopyBoth::start(source, &command).await.map_err(|e| slot::explain(e, &options.slot)) },
            made_durable,
            async {
                match &options.schema {
                    Some(schema) => sessions.lookup.read_ahead(schema).await,
                    None => Ok(()),
                }
            },
        )?;

        let (durable, durable_seen) = watch::channel(start);
        let (mut applier, _flusher) = self.applier(sessions, checkpoint, durable)?;
        let (chunks, received) = mpsc::channel(1024);
        let is_busy = applier.is_busy.subscribe();
        let finish = CancellationToken::new();
        let receiver = Receiver {
            stream,
            chunks,
            durable: durable_seen,
            is_busy,
            feedback: Feedback::new(start),
            progress: self.progress.clone(),
            interval,
            silence: self.silence,
            finish: finish.clone(),
        };
        let receiver = AbortOnDropHandle::new(self.tasks.spawn(receiver.run()));
        let assembler = self.assembler(version, start);
        let applied = self.apply(&mut applier, assembler, received).await;
        drop(applier);
        finish.cancel();
        match (applied, joined("a task of the stream", receiver.await)) {
            (Ok(Some(ended)), _) => Ok(ended),
            // The applier ran dry because the receiver had ended.
            (Ok(None), Err(error)) => Err(failure::of_source(&options.source, error).await.into()),
            (Ok(None), Ok(())) => Err(Error::connection("the replication stream ended").into()),
            (Err(halt), _) => Err(halt),
        }
    }

    fn assembler(&self, version: ProtocolVersion, start: Lsn) -> Assembler {
        let Options { memory, spill_directory, .. } = self.options;
        Assembler::new(version, start, Budget { memory: *memory, directory: spill_directory.clone() })
    }

    /// Over sessions whose checkpoint is durable; with it, who makes its commits durable.
    fn applier(
        &self,
        Sessions { session: target, role, lookup, flusher }: Sessions,
        checkpoint: &Checkpoint,
        durable: watch::Sender<Lsn>,
    ) -> Result<(Applier, AbortOnDropHandle<()>)> {
        let start = checkpoint.applied;
        self.progress.set_applied(start, None);
        self.progress.set_durable(start);
        let (committed, committed_seen) = watch::channel(start);
        let flusher = Flusher { session: flusher, committed: committed_seen, durable: durable.clone() };
        let flusher = AbortOnDropHandle::new(self.tasks.spawn(flusher.run()));
        let applier = Applier::new(Parts {
            target,
            lookup,
            role,
            on_conflict: self.options.on_conflict,
            filter: self.filter.clone(),
            progress: self.progress.clone(),
            checkpoint: committed,
            durable,
            advance: Advance::from(checkpoint),
            careful_until: self.careful_until,
        })?;
        Ok((applier, flusher))
    }
}

//! Reads the spool back, as a stream that the applier can't tell from a live one.
//!
//! In: what the target's state says of the spool, and its files. Out: chunks of messages, each segment the beginning of a stream; files whose end is durable on the target go. What
//! may fail: files that are not here, are damaged or have gaps; nothing past the damage is given out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;
use pgstream_proto::replication::StreamMessage;
use pgstream_proto::timestamp::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};

use super::directory::{self, Directory, Entry, damaged, path_of};
use super::segment::{Damage, Identity, Record};
use super::{Trouble, absolute, host};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fault;
use crate::replication::stream::{Chunk, WAITING};
use crate::state::checkpoint::Checkpoint;
use crate::state::spool::{self, Spool};
use crate::wire::Connection;

/// Bytes of messages that are handed over together.
const CHUNK: usize = 256 << 10;

/// What of a spool is to be applied.
pub(in crate::replication) struct Drain {
    directory: Directory,
    entries: Vec<Entry>,
    to: Lsn,
}

/// What the spool holds past the checkpoint; `None` where there is no spool, or none that is needed: what is left of its files is removed then.
///
/// # Errors
/// A spool that is needed, and is not here, or not whole.
pub(in crate::replication) async fn pending(
    session: &mut Connection,
    source: &Config,
    checkpoint: &Checkpoint,
    spool: Option<Spool>,
    folder: Option<&Path>,
) -> Result<Option<Drain>> {
    let Some(spool) = spool else { return Ok(None) };
    let identity = Identity {
        spool: spool.id.clone(),
        system_identifier: checkpoint.system_identifier.clone(),
        database: source.dbname.clone(),
        slot: checkpoint.slot.clone(),
    };
    if spool.to <= checkpoint.applied {
        if spool.host == host() && path_of(Path::new(&spool.directory), &identity.slot).is_dir() {
            // Nothing depends on it.
            let discarded =
                Directory::open(Path::new(&spool.directory), identity).and_then(Directory::discard);
            if let Err(Trouble::Disk(error) | Trouble::Other(error)) = discarded {
                tracing::debug!(%error, "could not remove a spool that is used up");
            }
        }
        return Ok(None);
    }
    let directory = find(session, &spool, identity, folder).await?;
    Ok(Some(Drain::new(directory, checkpoint.applied, spool.to)?))
}

/// The folder of a spool that is needed: below the one that the operator named, or else where the state says.
pub(super) async fn find(
    session: &mut Connection,
    spool: &Spool,
    identity: Identity,
    folder: Option<&Path>,
) -> Result<Directory, Trouble> {
    let own = host();
    let recorded = (spool.host == own).then(|| PathBuf::from(&spool.directory));
    let mut places = folder.map(absolute).into_iter().chain(recorded);
    let Some(place) = places.find(|place| path_of(place, &identity.slot).is_dir()) else {
        return Err(Error::failed(format!(
            "the changes between {} and {} are in a spool that is not here",
            spool.from, spool.to
        ))
        .with_detail(format!(
            "They were received into folder \"{}\" on host \"{}\" while rows were copied, and the source has let go of them.",
            path_of(Path::new(&spool.directory), &identity.slot).display(),
            spool.host
        ))
        .with_hint("Run the same command on that host; or bring the folder to this one, and name the one that it is in by --spool-dir. Without it, begin anew with --restart.")
        .into());
    };
    let directory = Directory::open(&place, identity)?;
    let place = place.to_string_lossy();
    fault::step("spool found", spool::found(session, &own, &place)).await?;
    Ok(directory)
}

impl Drain {
    /// Of what the directory holds between two positions.
    pub(super) fn new(directory: Directory, from: Lsn, to: Lsn) -> Result<Drain, Trouble> {
        let entries = directory.hold(from, to)?;
        Ok(Drain { directory, entries, to })
    }

    /// Whether texts are in no encoding: both databases are in SQL_ASCII.
    pub(in crate::replication) fn is_raw(&self) -> bool {
        self.entries.iter().any(|entry| entry.raw)
    }

    /// The version of its first stream; each segment says its own.
    pub(in crate::replication) fn version(&self) -> ProtocolVersion {
        self.entries.first().map_or(ProtocolVersion::V1, |entry| entry.version)
    }

    /// Where it ends.
    pub(in crate::replication) fn end(&self) -> Lsn {
        self.to
    }

    /// Hands all messages over, up to the end of the spool, and removes segments whose end is durable on the target. What is given back has still the last segments.
    pub(in crate::replication) async fn run(
        mut self,
        chunks: mpsc::Sender<Chunk>,
        durable: watch::Receiver<Lsn>,
    ) -> Result<Drain> {
        let room = Arc::new(Semaphore::new(WAITING));
        let entries = self.entries.clone();
        for (place, entry) in entries.iter().enumerate() {
            let mut segment = directory::read(&entry.path).map_err(|damage| damaged(&entry.path, &damage))?;
            let version = segment.header().version;
            let mut begins = Some(version);
            let mut messages = Vec::new();
            let mut bytes = 0;
            let mut described = Vec::new();
            loop {
                let record = segment.record().map_err(|damage| damaged(&entry.path, &damage))?;
                let last = record.is_none();
                let mut add = |message: StreamMessage, size| {
                    bytes += size;
                    messages.push((message, size));
                };
                match record {
                    // A walsender describes relations inside a transaction.
                    Some(Record::Relation(data)) => described.push(data),
                    Some(Record::Message { sent_at, data }) => {
                        let (size, begins) = (data.len(), data.first() == Some(&b'B'));
                        add(xlog_data(sent_at, data), size);
                        for data in described.drain(..).filter(|_| begins) {
                            let size = data.len();
                            add(xlog_data(sent_at, data), size);
                        }
                    }
                    Some(Record::Position { sent_at, lsn }) => add(
                        StreamMessage::PrimaryKeepalive { wal_end: lsn, sent_at, reply_requested: false },
                        0,
                    ),
                    None => {}
                }
                if bytes < CHUNK && !last {
                    continue;
                }
                let share = (bytes.clamp(1, WAITING)) as u32;
                let Ok(share) = room.clone().acquire_many_owned(share).await else { break };
                let chunk = Chunk { begins: begins.take(), messages: std::mem::take(&mut messages), share };
                if chunks.send(chunk).await.is_err() {
                    // The applier has ended, and says why.
                    return Ok(self);
                }
                bytes = 0;
                if last {
                    break;
                }
                let durable = *durable.borrow();
                self.forget(durable).await?;
            }
            let next = entries.get(place + 1).map_or(self.to, |next| next.from);
            if segment.end() != Some(next) {
                let what = format!("it ends before {next}, where the next begins");
                return Err(damaged(&entry.path, &Damage::Content(segment.at(), what)));
            }
        }
        Ok(self)
    }

    /// Removes the segments of which everything is durable on the target; the last one stays until [`Drain::discard`].
    pub(super) async fn forget(&mut self, durable: Lsn) -> Result<()> {
        let done = self.entries.windows(2).take_while(|pair| pair[1].from <= durable).count();
        if done == 0 {
            return Ok(());
        }
        let gone: Vec<PathBuf> = self.entries.drain(..done).map(|entry| entry.path).collect();
        let directory = &self.directory;
        fault::step("spool gone", async { directory.remove(&gone).map_err(Error::from) }).await
    }

    /// Removes it, everything being durable on the target.
    pub(in crate::replication) async fn discard(self) -> Result<()> {
        fault::step("spool gone", async { self.directory.discard().map_err(Error::from) }).await
    }
}

/// As a walsender sends it; the positions mean nothing there either.
fn xlog_data(sent_at: Timestamp, data: Bytes) -> StreamMessage {
    StreamMessage::XLogData { start: Lsn::INVALID, end: Lsn::INVALID, sent_at, data }
}

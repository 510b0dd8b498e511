//! Writes one stream, from its START_REPLICATION on, into segments.
//!
//! In: the walsender's messages, in order. Out: files that hold them, and after each [`Writer::sync`] the position up to which they are durable and complete.
//! What may fail: the disk, after which the writer is of no more use: another one starts from what the state says; a message that a stream of whole transactions doesn't have.
//!
//! A segment ends between two transactions. The next begins with the Relation messages that the stream has sent so far, so that it can be read without those before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;
use pgstream_proto::replication::StreamMessage;
use pgstream_proto::timestamp::Timestamp;

use super::directory::Directory;
use super::segment::{Extent, Header, Record};
use super::{Trouble, could_not};
use crate::error::Error;
use crate::fault;

/// A segment is followed by another one at the first commit past so many bytes; where the descriptions that it begins with are many, past four times theirs.
const SEGMENT: usize = 32 << 20;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 256 << 10;

/// The segment that is being written.
struct Open {
    file: Arc<File>,
    number: u64,
    buffer: Vec<u8>,
    bytes: usize,
    limit: usize,
}

/// See the module.
pub(super) struct Writer {
    directory: Directory,
    version: ProtocolVersion,
    raw: bool,
    extent: Extent,
    /// Of the last segment.
    number: u64,
    open: Option<Open>,
    /// What the stream has said of relations, by OID.
    relations: BTreeMap<u32, Bytes>,
    /// A position past everything written, and the server's clock.
    idle: Option<(Lsn, Timestamp)>,
    segment: usize,
}

impl Writer {
    /// For a stream that starts at `from`, the end of what the directory holds in `number` segments so far.
    pub(super) fn new(
        directory: Directory,
        number: u64,
        from: Lsn,
        version: ProtocolVersion,
        raw: bool,
    ) -> Writer {
        Writer {
            directory,
            version,
            raw,
            extent: Extent::new(version, from),
            number,
            open: None,
            relations: BTreeMap::new(),
            idle: None,
            segment: SEGMENT,
        }
    }

    /// With segments of another size.
    #[cfg(test)]
    pub(super) fn with_segments_of(self, segment: usize) -> Writer {
        Writer { segment, ..self }
    }

    /// The end of the last transaction that was taken whole.
    pub(super) fn end(&self) -> Lsn {
        self.extent.last_end()
    }

    /// A position that is past everything that was taken, with nothing in between.
    pub(super) fn idle(&self) -> Option<Lsn> {
        let end = self.extent.end()?;
        self.idle.map(|(lsn, _)| lsn).filter(|lsn| *lsn > end)
    }

    /// Takes the next message.
    pub(super) async fn take(&mut self, message: StreamMessage) -> Result<(), Trouble> {
        match message {
            StreamMessage::PrimaryKeepalive { wal_end, sent_at, .. } => {
                if self.extent.end().is_some() {
                    self.idle = Some((wal_end, sent_at));
                }
                Ok(())
            }
            StreamMessage::XLogData { data, sent_at, .. } => match data.first() {
                // They change no rows.
                Some(b'O' | b'M' | b'Y') => Ok(()),
                Some(b'b') => Err(Error::failed(
                    "the replication slot decodes prepared transactions before their commit",
                )
                .with_hint("Let pgstream make the slot itself, without TWO_PHASE.")
                .into()),
                _ => self.append(Record::Message { sent_at, data }).await,
            },
        }
    }

    async fn append(&mut self, record: Record) -> Result<(), Trouble> {
        if self.extent.end().is_some() && self.open.as_ref().is_some_and(|open| open.bytes >= open.limit) {
            self.flush().await?;
            self.open = None;
        }
        let from = self.extent.end();
        if let (None, Some(from)) = (&self.open, from) {
            self.begin_segment(from).await?;
        }
        self.extent
            .take(&record)
            .map_err(|what| Error::failed(format!("could not read the replication stream: {what}")))?;
        if let Record::Message { data, .. } = &record
            && let Some(mut rest) = data.strip_prefix(b"R")
            && let Ok(oid) = rest.try_get_u32()
        {
            self.relations.insert(oid, data.clone());
        }
        // A segment is begun between transactions, and stays until the next such place.
        let Some(open) = &mut self.open else { return Ok(()) };
        let before = open.buffer.len();
        record.encode(open.number, &mut open.buffer);
        open.bytes += open.buffer.len() - before;
        if open.buffer.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    async fn begin_segment(&mut self, from: Lsn) -> Result<(), Trouble> {
        self.number += 1;
        let header = Header {
            identity: self.directory.identity().clone(),
            number: self.number,
            from,
            version: self.version,
            raw: self.raw,
        };
        let mut head = Vec::new();
        for data in self.relations.values() {
            Record::Relation(data.clone()).encode(self.number, &mut head);
        }
        let file = Arc::new(self.directory.create(&header, &head).await?);
        let limit = self.segment.max(head.len() * 4);
        self.open = Some(Open { file, number: self.number, buffer: Vec::new(), bytes: head.len(), limit });
        Ok(())
    }

    /// Hands what is gathered to the operating system.
    fn write(&mut self) -> Result<(), Trouble> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let written = (&*open.file).write_all(&open.buffer);
        written.map_err(|e| could_not("write", self.directory.path(), &e))?;
        open.buffer.clear();
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        self.write()?;
        let Some(open) = &self.open else { return Ok(()) };
        let file = open.file.clone();
        let path = self.directory.path();
        let sync = async {
            // It may take long, and others have work on this thread.
            let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
            match synced {
                Ok(synced) => synced.map_err(|e| could_not("sync", path, &e)),
                Err(e) => Err(Error::failed(format!("could not sync the spool: {e}")).into()),
            }
        };
        fault::step("spool sync", sync).await
    }

    /// Makes everything durable that was taken, with the position that nothing else came before, where that is known. The end of what is complete.
    pub(super) async fn sync(&mut self) -> Result<Lsn, Trouble> {
        if let Some(lsn) = self.idle()
            && let Some((_, sent_at)) = self.idle.take()
        {
            self.append(Record::Position { sent_at, lsn }).await?;
        }
        self.flush().await?;
        Ok(self.extent.last_end())
    }
}

//! Parts of the stream by themselves: what benchmarks drive.
//!
//! - [`Batching`] is the way of changes from messages to statements, without servers. In: the walsender's messages, whose relations are keyed tables of
//!   the same columns on the target. Out: the bytes of the statements that the target would be sent, in the form that gathered changes have.
//! - [`discard`] receives from a real source as a migration does, and applies nothing.
//!
//! What may fail: a message that isn't in its form or place; the source.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgstream_proto::Format;
use pgstream_proto::copy::text;
use pgstream_proto::frontend;
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::{OldTuple, ProtocolVersion, Relation, Tuple};
use pgstream_proto::replication::StreamMessage;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::assemble::{Assembler, Budget, Event};
use super::batch::MOST_GATHERED_ROWS;
use super::change::written;
use super::feedback::Feedback;
use super::follow;
use super::many::Many;
use super::pending::{Kind, Pending};
use super::relation::Mapped;
use super::resume::Resume;
use super::statement::Reach;
use super::stream::{Receiver, SILENCE};
use super::target::TriggerRole;
use crate::catalog::target_table::{TargetColumn, TargetTable};
use crate::config::{Config, Side};
use crate::error::{Error, Result, joined};
use crate::progress::StreamProgress;
use crate::wire::{Connection, CopyBoth, Settings};

/// Receives the stream of a slot from its confirmed position, in the form and the rhythm of a migration that is far behind, until a transaction has come that
/// committed after `until`: the bytes of all messages. The source hears of nothing that is durable, so that the slot stays where it is.
///
/// # Errors
/// Those of the source.
pub async fn discard(source: &Config, slot: &str, publication: &str, until: Lsn) -> Result<usize> {
    let source = Connection::connect(source, Side::Source, &Settings::replication()).await?;
    let version = ProtocolVersion::newest_of(source.version());
    let from = Resume { slot, publication, streaming: version >= ProtocolVersion::V2 };
    let command = follow::start_command(&from, version, Lsn::INVALID);
    let stream = CopyBoth::start(source, &command).await?;
    let (_durable, durable) = watch::channel(Lsn::INVALID);
    let (chunks, mut received) = mpsc::channel(1024);
    let finish = CancellationToken::new();
    let receiver = Receiver {
        stream,
        chunks,
        durable,
        is_busy: watch::Sender::new(false).subscribe(),
        feedback: Feedback::new(Lsn::INVALID),
        progress: Arc::<StreamProgress>::default(),
        interval: Duration::from_secs(10),
        silence: SILENCE,
        finish: finish.clone(),
    };
    let receiver = AbortOnDropHandle::new(tokio::spawn(receiver.run()));
    let mut bytes = 0;
    let mut ends = false;
    while !ends && let Some(chunk) = received.recv().await {
        for (message, size) in chunk.messages {
            bytes += size;
            ends |= matches!(message, StreamMessage::XLogData { end, data, .. }
                if data.first() == Some(&b'C') && end > until);
        }
    }
    finish.cancel();
    drop(received);
    joined("the receiving task", receiver.await)?;
    Ok(bytes)
}

/// Assembles, gathers and writes.
#[derive(Debug)]
pub struct Batching {
    assembler: Assembler,
    relations: HashMap<u32, (Mapped, Pending)>,
    statements: BytesMut,
    written: u64,
}

impl Batching {
    /// At the start of a stream of this version.
    pub fn new(version: ProtocolVersion) -> Batching {
        let budget = Budget { memory: usize::MAX, directory: std::env::temp_dir() };
        Batching {
            assembler: Assembler::new(version, Lsn::INVALID, budget),
            relations: HashMap::new(),
            statements: BytesMut::new(),
            written: 0,
        }
    }

    /// Takes the next message.
    pub fn take(&mut self, message: StreamMessage) -> Result<()> {
        let mut event = self.assembler.take(message, false)?;
        while let Some(next) = event {
            match next {
                Event::Relation(relation) => {
                    let table = Some(same(&relation));
                    let mapped = Mapped::new(&relation, table, TriggerRole::Replica)?;
                    self.relations.insert(relation.oid, (mapped, Pending::default()));
                }
                Event::Insert(insert) => self.gather(insert.relation, Kind::Insert, insert.new)?,
                Event::Update(update) => self.gather(update.relation, Kind::Update, update.new)?,
                Event::Delete(delete) => {
                    let (OldTuple::Key(old) | OldTuple::Full(old)) = delete.old;
                    self.gather(delete.relation, Kind::Delete, old)?;
                }
                _ => {}
            }
            event = self.assembler.next()?;
        }
        Ok(())
    }

    /// Writes what is still gathered; the bytes of all statements.
    pub fn finish(mut self) -> Result<u64> {
        let relations: Vec<u32> = self.relations.keys().copied().collect();
        relations.into_iter().try_for_each(|oid| self.write(oid))?;
        Ok(self.written)
    }

    fn gather(&mut self, oid: u32, kind: Kind, row: Tuple) -> Result<()> {
        let Some((mapped, pending)) = self.relations.get_mut(&oid) else { return Ok(()) };
        let left = pending.add_to_net_effect(kind, row, mapped.key_columns()).err();
        if left.is_some() || pending.len() >= MOST_GATHERED_ROWS {
            self.write(oid)?;
        }
        if let (Some(row), Some((_, pending))) = (left, self.relations.get_mut(&oid)) {
            *pending = Pending::of(kind, row);
        }
        Ok(())
    }

    fn write(&mut self, oid: u32) -> Result<()> {
        let Some((mapped, pending)) = self.relations.get_mut(&oid) else { return Ok(()) };
        let rows = std::mem::take(pending).into_rows();
        let out = &mut self.statements;
        let deletes = (!rows.deletes.is_empty()).then(|| Many::delete(mapped, &rows.deletes, Reach::Itself));
        let updates = (!rows.updates.is_empty()).then(|| Many::update(mapped, &rows.updates, Reach::Itself));
        for many in deletes.into_iter().chain(updates) {
            frontend::parse("", &many.sql, &[], out)
                .and_then(|()| frontend::bind("", "", &[Format::Binary], many.parameters(), &[], out))
                .map_err(|e| Error::failed(e.to_string()))?;
        }
        rows.inserts.iter().for_each(|row| text::row(written(mapped, row), out));
        self.written += out.len() as u64;
        out.clear();
        Ok(())
    }
}

/// The relation's table on a target that has it in the same form.
fn same(relation: &Relation) -> TargetTable {
    let columns = relation.columns.iter().map(|column| TargetColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        base_type: column.type_oid,
        type_modifier: column.type_modifier,
        type_name: "text".to_owned(),
        cast: Some("text".to_owned()),
        generated: false,
        identity_always: false,
        collated: false,
        equality: Some("OPERATOR(pg_catalog.=)".to_owned()),
    });
    let key = relation.columns.iter().filter(|column| column.key).map(|column| column.name.clone());
    TargetTable {
        kind: "r".to_owned(),
        row_security: false,
        acts_always: false,
        columns: columns.collect(),
        key: key.collect(),
        unique_indexes: 1,
        root: None,
    }
}

//! The bounds of transactions, ordinary and prepared, and what else stands between them: origins and logical messages.

use bytes::Bytes;

use crate::cursor::{Cursor, ParseError};
use crate::lsn::Lsn;
use crate::timestamp::Timestamp;

/// A committed transaction's changes follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// The LSN of the commit: what a checkpoint is compared with.
    pub final_lsn: Lsn,
    /// When it committed.
    pub committed_at: Timestamp,
    /// The transaction's ID.
    pub xid: u32,
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The LSN of the commit, equal to [`Begin::final_lsn`].
    pub commit_lsn: Lsn,
    /// The end of the commit record: what is acknowledged.
    pub end_lsn: Lsn,
    /// When it committed.
    pub committed_at: Timestamp,
}

/// Where the transaction came from, when it was itself replicated to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The commit's LSN at the origin; `0/0` in a streamed transaction.
    pub commit_lsn: Lsn,
    /// The origin's name.
    pub name: String,
}

/// What `pg_logical_emit_message` wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// Whether it is part of a transaction; if not, it may come between transactions.
    pub transactional: bool,
    /// Its LSN.
    pub lsn: Lsn,
    /// Its prefix.
    pub prefix: String,
    /// Its content.
    pub content: Bytes,
}

/// A prepared transaction: of the messages BeginPrepare, Prepare and StreamPrepare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// The LSN of the prepare.
    pub prepare_lsn: Lsn,
    /// The end of the prepare record.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// The transaction's ID.
    pub xid: u32,
    /// The name given in PREPARE TRANSACTION.
    pub gid: String,
}

/// COMMIT PREPARED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPrepared {
    /// The LSN of the commit.
    pub commit_lsn: Lsn,
    /// The end of the commit record.
    pub end_lsn: Lsn,
    /// When it committed.
    pub committed_at: Timestamp,
    /// The transaction's ID.
    pub xid: u32,
    /// The name given in PREPARE TRANSACTION.
    pub gid: String,
}

/// ROLLBACK PREPARED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackPrepared {
    /// The end of the prepare record: tells whether the prepare was received here.
    pub prepare_end_lsn: Lsn,
    /// The end of the rollback record.
    pub rollback_end_lsn: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// When it was rolled back.
    pub rolled_back_at: Timestamp,
    /// The transaction's ID.
    pub xid: u32,
    /// The name given in PREPARE TRANSACTION.
    pub gid: String,
}

/// Reads flags, of which the protocol has defined none so far.
fn no_flags(cursor: &mut Cursor) -> Result<(), ParseError> {
    match cursor.u8("flags")? {
        0 => Ok(()),
        flags => Err(cursor.invalid("flags", flags)),
    }
}

fn timestamp(cursor: &mut Cursor, field: &'static str) -> Result<Timestamp, ParseError> {
    cursor.i64(field).map(Timestamp)
}

impl Begin {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<Begin, ParseError> {
        Ok(Begin {
            final_lsn: cursor.lsn("final LSN")?,
            committed_at: timestamp(cursor, "commit time")?,
            xid: cursor.u32("xid")?,
        })
    }
}

impl Commit {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<Commit, ParseError> {
        no_flags(cursor)?;
        Ok(Commit {
            commit_lsn: cursor.lsn("commit LSN")?,
            end_lsn: cursor.lsn("end LSN")?,
            committed_at: timestamp(cursor, "commit time")?,
        })
    }
}

impl Origin {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<Origin, ParseError> {
        Ok(Origin { commit_lsn: cursor.lsn("commit LSN")?, name: cursor.name("name")? })
    }
}

impl LogicalMessage {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<LogicalMessage, ParseError> {
        let transactional = match cursor.u8("flags")? {
            0 => false,
            1 => true,
            flags => return Err(cursor.invalid("flags", flags)),
        };
        let lsn = cursor.lsn("LSN")?;
        let prefix = cursor.name("prefix")?;
        let len = cursor.len("content length")?;
        Ok(LogicalMessage { transactional, lsn, prefix, content: cursor.bytes(len, "content")? })
    }
}

impl Prepare {
    pub(super) fn parse_begin(cursor: &mut Cursor) -> Result<Prepare, ParseError> {
        Ok(Prepare {
            prepare_lsn: cursor.lsn("prepare LSN")?,
            end_lsn: cursor.lsn("end LSN")?,
            prepared_at: timestamp(cursor, "prepare time")?,
            xid: cursor.u32("xid")?,
            gid: cursor.name("gid")?,
        })
    }

    pub(super) fn parse(cursor: &mut Cursor) -> Result<Prepare, ParseError> {
        no_flags(cursor)?;
        Prepare::parse_begin(cursor)
    }
}

impl CommitPrepared {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<CommitPrepared, ParseError> {
        no_flags(cursor)?;
        Ok(CommitPrepared {
            commit_lsn: cursor.lsn("commit LSN")?,
            end_lsn: cursor.lsn("end LSN")?,
            committed_at: timestamp(cursor, "commit time")?,
            xid: cursor.u32("xid")?,
            gid: cursor.name("gid")?,
        })
    }
}

impl RollbackPrepared {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<RollbackPrepared, ParseError> {
        no_flags(cursor)?;
        Ok(RollbackPrepared {
            prepare_end_lsn: cursor.lsn("prepare end LSN")?,
            rollback_end_lsn: cursor.lsn("rollback end LSN")?,
            prepared_at: timestamp(cursor, "prepare time")?,
            rolled_back_at: timestamp(cursor, "rollback time")?,
            xid: cursor.u32("xid")?,
            gid: cursor.name("gid")?,
        })
    }
}

//! Transactions streamed in chunks while they still run (protocol 2 and newer).

use super::ProtocolVersion;
use super::transaction::Commit;
use crate::cursor::{Cursor, ParseError};
use crate::lsn::Lsn;
use crate::timestamp::Timestamp;

/// A chunk begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStart {
    /// The top-level transaction's ID.
    pub xid: u32,
    /// Whether it is this transaction's first chunk.
    pub first_segment: bool,
}

/// A streamed transaction committed; all its chunks were sent before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCommit {
    /// The top-level transaction's ID.
    pub xid: u32,
    /// The commit, as for any transaction.
    pub commit: Commit,
}

/// A streamed transaction, or a subtransaction of it, was rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAbort {
    /// The top-level transaction's ID.
    pub xid: u32,
    /// The ID of what was rolled back, and with it alone its changes: equal to `xid` for all of it.
    pub subxid: u32,
    /// Where and when, with protocol 4 and `streaming 'parallel'`.
    pub abort: Option<AbortInfo>,
}

/// Where and when a transaction was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortInfo {
    /// The LSN of the abort record.
    pub lsn: Lsn,
    /// When it was rolled back.
    pub aborted_at: Timestamp,
}

impl StreamStart {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<StreamStart, ParseError> {
        let xid = cursor.u32("xid")?;
        let first_segment = match cursor.u8("first segment")? {
            0 => false,
            1 => true,
            value => return Err(cursor.invalid("first segment", value)),
        };
        Ok(StreamStart { xid, first_segment })
    }
}

impl StreamCommit {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<StreamCommit, ParseError> {
        let xid = cursor.u32("xid")?;
        Ok(StreamCommit { xid, commit: Commit::parse(cursor)? })
    }
}

impl StreamAbort {
    pub(super) fn parse(cursor: &mut Cursor, version: ProtocolVersion) -> Result<StreamAbort, ParseError> {
        let (xid, subxid) = (cursor.u32("xid")?, cursor.u32("subtransaction xid")?);
        let abort = if version < ProtocolVersion::V4 || cursor.is_empty() {
            None
        } else {
            Some(AbortInfo {
                lsn: cursor.lsn("abort LSN")?,
                aborted_at: Timestamp(cursor.i64("abort time")?),
            })
        };
        Ok(StreamAbort { xid, subxid, abort })
    }
}

//! The messages of `pgoutput`, PostgreSQL's own logical decoding plugin: protocol versions 1 to 4.
//!
//! In: the data of each XLogData, in order, given to one [`Decoder`] per START_REPLICATION. Out: a [`Message`] that keeps slices of
//! the same bytes, and the transaction it belongs to where the stream says so. Fails when a message doesn't have its form, when
//! the version doesn't have the message, and when it comes out of place:
//!
//! ```text
//! Between ─ Begin ─────────► Transaction { changes } ─ Commit ──► Between
//! Between ─ BeginPrepare ──► Prepared    { changes } ─ Prepare ─► Between
//! Between ─ StreamStart ───► Chunk       { changes } ─ StreamStop ► Between
//! Between ─ StreamCommit, StreamAbort, StreamPrepare, CommitPrepared, RollbackPrepared ─► Between
//! ```
//!
//! Formats: the manual's "Logical Replication Message Formats", and `src/backend/replication/logical/proto.c`.

mod relation;
mod stream;
mod transaction;
mod tuple;

use bytes::Bytes;

use crate::cursor::{Cursor, ParseError};
pub use relation::{Column, Relation, ReplicaIdentity, Type};
pub use stream::{AbortInfo, StreamAbort, StreamCommit, StreamStart};
pub use transaction::{Begin, Commit, CommitPrepared, LogicalMessage, Origin, Prepare, RollbackPrepared};
pub use tuple::{Delete, Insert, OldTuple, Truncate, Tuple, Update, Value};

/// The option `proto_version` of START_REPLICATION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// PostgreSQL 10: committed transactions.
    V1,
    /// PostgreSQL 14: transactions streamed in chunks while they run.
    V2,
    /// PostgreSQL 15: prepared transactions.
    V3,
    /// PostgreSQL 16: `streaming 'parallel'`, which tells where a streamed transaction was rolled back.
    V4,
}

impl ProtocolVersion {
    /// The newest version that a server with this `server_version_num` speaks.
    pub fn newest_of(server_version_num: u32) -> ProtocolVersion {
        match server_version_num {
            160_000.. => ProtocolVersion::V4,
            150_000.. => ProtocolVersion::V3,
            140_000.. => ProtocolVersion::V2,
            _ => ProtocolVersion::V1,
        }
    }

    /// The value of the option.
    pub fn number(self) -> u8 {
        match self {
            ProtocolVersion::V1 => 1,
            ProtocolVersion::V2 => 2,
            ProtocolVersion::V3 => 3,
            ProtocolVersion::V4 => 4,
        }
    }
}

/// A message of pgoutput.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins.
    Begin(Begin),
    /// A transaction ends.
    Commit(Commit),
    /// Where the transaction came from.
    Origin(Origin),
    /// A message of `pg_logical_emit_message`.
    Logical(LogicalMessage),
    /// What a table looks like from here on.
    Relation(Relation),
    /// A data type that a Relation uses.
    Type(Type),
    /// A new row.
    Insert(Insert),
    /// A changed row.
    Update(Update),
    /// A removed row.
    Delete(Delete),
    /// Emptied tables.
    Truncate(Truncate),
    /// A chunk of a running transaction begins.
    StreamStart(StreamStart),
    /// The chunk ends.
    StreamStop,
    /// A streamed transaction committed.
    StreamCommit(StreamCommit),
    /// A streamed transaction or a part of it was rolled back.
    StreamAbort(StreamAbort),
    /// A streamed transaction was prepared.
    StreamPrepare(Prepare),
    /// A prepared transaction's changes follow.
    BeginPrepare(Prepare),
    /// The prepared transaction's changes end.
    Prepare(Prepare),
    /// COMMIT PREPARED.
    CommitPrepared(CommitPrepared),
    /// ROLLBACK PREPARED.
    RollbackPrepared(RollbackPrepared),
}

/// A message and the transaction that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Inside a streamed chunk, the ID of the transaction or subtransaction that a change, Relation or Type is of: a
    /// StreamAbort of that ID drops it. (A logical message has the top-level ID, whatever subtransaction wrote it.)
    /// `None` everywhere else.
    pub xid: Option<u32>,
    /// The message.
    pub message: Message,
}

/// Decodes one stream, whose state it keeps: between transactions, in one, or in a streamed chunk.
#[derive(Debug, Clone)]
pub struct Decoder {
    version: ProtocolVersion,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Transaction,
    Prepared,
    Chunk,
}

impl Decoder {
    /// At the start of a stream of this version.
    pub fn new(version: ProtocolVersion) -> Decoder {
        Decoder { version, place: Place::Between }
    }

    /// Whether the next message may be one that begins or ends a transaction: no transaction or chunk is open.
    pub fn is_between_transactions(&self) -> bool {
        self.place == Place::Between
    }

    /// Decodes the data of the next XLogData. After an error the stream can't be gone on with.
    pub fn decode(&mut self, data: Bytes) -> Result<Decoded, ParseError> {
        let mut cursor = Cursor::new("pgoutput", data.clone());
        let tag = cursor.u8("type")?;
        let Some((name, since)) = kind(tag) else {
            return Err(ParseError::unknown_tag("pgoutput", tag));
        };
        cursor.rename(name);
        if self.version < since {
            return Err(ParseError::unexpected(name, "this version of the protocol does not have it"));
        }
        let in_chunk = self.place == Place::Chunk;
        let carries_xid = matches!(tag, b'M' | b'R' | b'Y' | b'I' | b'U' | b'D' | b'T');
        let xid = if in_chunk && carries_xid { Some(cursor.u32("xid")?) } else { None };
        let message = parse(tag, &mut cursor, &data, self.version)?;
        cursor.finish()?;
        self.place = self.place.after(&message).map_err(|what| ParseError::unexpected(name, what))?;
        Ok(Decoded { xid, message })
    }
}

impl Place {
    fn after(self, message: &Message) -> Result<Place, &'static str> {
        use Place::{Between, Chunk, Prepared, Transaction};
        match (message, self) {
            (Message::Begin(_), Between) => Ok(Transaction),
            (Message::BeginPrepare(_), Between) => Ok(Prepared),
            (Message::StreamStart(_), Between) => Ok(Chunk),
            (Message::Commit(_), Transaction) => Ok(Between),
            (Message::Prepare(_), Prepared) => Ok(Between),
            (Message::StreamStop, Chunk) => Ok(Between),
            (
                Message::StreamCommit(_)
                | Message::StreamAbort(_)
                | Message::StreamPrepare(_)
                | Message::CommitPrepared(_)
                | Message::RollbackPrepared(_),
                Between,
            ) => Ok(Between),
            (Message::Logical(LogicalMessage { transactional: false, .. }), place) => Ok(place),
            (
                Message::Origin(_)
                | Message::Logical(_)
                | Message::Relation(_)
                | Message::Type(_)
                | Message::Insert(_)
                | Message::Update(_)
                | Message::Delete(_)
                | Message::Truncate(_),
                Transaction | Prepared | Chunk,
            ) => Ok(self),
            (_, Between) => Err("it comes outside a transaction"),
            (_, Chunk) => Err("it comes inside a streamed chunk"),
            (_, Transaction | Prepared) => Err("it comes inside another transaction"),
        }
    }
}

/// The name of the messages with this type byte, and the version that brought them.
fn kind(tag: u8) -> Option<(&'static str, ProtocolVersion)> {
    use ProtocolVersion::{V1, V2, V3};
    Some(match tag {
        b'B' => ("Begin", V1),
        b'C' => ("Commit", V1),
        b'O' => ("Origin", V1),
        b'M' => ("Message", V1),
        b'R' => ("Relation", V1),
        b'Y' => ("Type", V1),
        b'I' => ("Insert", V1),
        b'U' => ("Update", V1),
        b'D' => ("Delete", V1),
        b'T' => ("Truncate", V1),
        b'S' => ("StreamStart", V2),
        b'E' => ("StreamStop", V2),
        b'c' => ("StreamCommit", V2),
        b'A' => ("StreamAbort", V2),
        b'b' => ("BeginPrepare", V3),
        b'P' => ("Prepare", V3),
        b'K' => ("CommitPrepared", V3),
        b'r' => ("RollbackPrepared", V3),
        b'p' => ("StreamPrepare", V3),
        _ => return None,
    })
}

fn parse(
    tag: u8,
    cursor: &mut Cursor,
    data: &Bytes,
    version: ProtocolVersion,
) -> Result<Message, ParseError> {
    Ok(match tag {
        b'I' => Message::Insert(Insert::parse(cursor, data)?),
        b'U' => Message::Update(Update::parse(cursor, data)?),
        b'D' => Message::Delete(Delete::parse(cursor, data)?),
        b'B' => Message::Begin(Begin::parse(cursor)?),
        b'C' => Message::Commit(Commit::parse(cursor)?),
        b'T' => Message::Truncate(Truncate::parse(cursor)?),
        b'O' => Message::Origin(Origin::parse(cursor)?),
        b'M' => Message::Logical(LogicalMessage::parse(cursor)?),
        b'R' => Message::Relation(Relation::parse(cursor)?),
        b'Y' => Message::Type(Type::parse(cursor)?),
        b'S' => Message::StreamStart(StreamStart::parse(cursor)?),
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit(StreamCommit::parse(cursor)?),
        b'A' => Message::StreamAbort(StreamAbort::parse(cursor, version)?),
        b'b' => Message::BeginPrepare(Prepare::parse_begin(cursor)?),
        b'P' => Message::Prepare(Prepare::parse(cursor)?),
        b'p' => Message::StreamPrepare(Prepare::parse(cursor)?),
        b'K' => Message::CommitPrepared(CommitPrepared::parse(cursor)?),
        b'r' => Message::RollbackPrepared(RollbackPrepared::parse(cursor)?),
        _ => return Err(ParseError::unknown_tag("pgoutput", tag)),
    })
}

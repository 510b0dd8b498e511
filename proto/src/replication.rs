//! What a walsender and its client say to each other inside CopyData, during START_REPLICATION.
//!
//! In: the body of a CopyData message. Out: [`StreamMessage`]; and the other way, [`StandbyStatusUpdate`] as a whole CopyData
//! message. Formats: the manual's "Streaming Replication Protocol".

use bytes::{BufMut, Bytes, BytesMut};

use crate::cursor::{Cursor, ParseError};
use crate::lsn::Lsn;
use crate::timestamp::Timestamp;

/// A message of the walsender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamMessage {
    /// One message of the output plugin.
    XLogData {
        /// Where the change stands in the WAL. `0/0` for a Relation, a Type, and a Begin that an Origin follows; and not
        /// monotonic, so never a position to acknowledge.
        start: Lsn,
        /// The same position for a logical slot; no more to be relied on than `start`.
        end: Lsn,
        /// The server's clock.
        sent_at: Timestamp,
        /// The plugin's message.
        data: Bytes,
    },
    /// A sign of life.
    PrimaryKeepalive {
        /// Up to where the server has read its WAL. When every commit received before is durable, this may be acknowledged.
        wal_end: Lsn,
        /// The server's clock.
        sent_at: Timestamp,
        /// The server ends the connection unless it hears from the client soon.
        reply_requested: bool,
    },
}

impl StreamMessage {
    /// The server's clock when it sent the message.
    pub fn sent_at(&self) -> Timestamp {
        match self {
            StreamMessage::XLogData { sent_at, .. } | StreamMessage::PrimaryKeepalive { sent_at, .. } => {
                *sent_at
            }
        }
    }

    /// Reads the body of a CopyData message.
    pub fn parse(body: Bytes) -> Result<StreamMessage, ParseError> {
        let mut cursor = Cursor::new("replication", body);
        match cursor.u8("type")? {
            b'w' => {
                cursor.rename("XLogData");
                Ok(StreamMessage::XLogData {
                    start: cursor.lsn("start")?,
                    end: cursor.lsn("end")?,
                    sent_at: Timestamp(cursor.i64("clock")?),
                    data: cursor.rest(),
                })
            }
            b'k' => {
                cursor.rename("PrimaryKeepalive");
                let keepalive = StreamMessage::PrimaryKeepalive {
                    wal_end: cursor.lsn("end of WAL")?,
                    sent_at: Timestamp(cursor.i64("clock")?),
                    reply_requested: match cursor.u8("reply requested")? {
                        0 => false,
                        1 => true,
                        value => return Err(cursor.invalid("reply requested", value)),
                    },
                };
                cursor.finish()?;
                Ok(keepalive)
            }
            tag => Err(ParseError::unknown_tag("replication", tag)),
        }
    }
}

/// The client's report of how far it has come. The server lets WAL up to `flush` go and never sends it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyStatusUpdate {
    /// Received and written; not less than `flush`.
    pub write: Lsn,
    /// Durable.
    pub flush: Lsn,
    /// Applied.
    pub apply: Lsn,
    /// The client's clock.
    pub sent_at: Timestamp,
    /// Asks the server to answer at once.
    pub reply_requested: bool,
}

impl StandbyStatusUpdate {
    /// Appends the update as a whole CopyData message.
    pub fn write(&self, out: &mut BytesMut) {
        const BODY_LEN: i32 = 1 + 3 * 8 + 8 + 1;
        out.put_u8(b'd');
        out.put_i32(4 + BODY_LEN);
        out.put_u8(b'r');
        for lsn in [self.write, self.flush, self.apply] {
            out.put_u64(lsn.0);
        }
        out.put_i64(self.sent_at.0);
        out.put_u8(self.reply_requested.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_data_carry_the_plugins_message() {
        let body = b"w\0\0\0\0\x01\x5e\x3d\x28\0\0\0\0\x01\x5e\x3d\x28\0\x02\x89\x11\x9b\x5b\xc6\xb2B...";
        let message = StreamMessage::parse(Bytes::from_static(body)).unwrap();
        let position = "0/15E3D28".parse().unwrap();
        let expected = StreamMessage::XLogData {
            start: position,
            end: position,
            sent_at: Timestamp(0x0002_8911_9b5b_c6b2),
            data: Bytes::from_static(b"B..."),
        };
        assert_eq!(message, expected);
    }

    #[test]
    fn a_keepalive_is_read_to_its_last_byte() {
        let mut body = b"k\0\0\0\0\x01\x5e\x3d\x28\0\x02\x89\x11\x9b\x5b\xc6\xb2\x01".to_vec();
        let message = StreamMessage::parse(Bytes::from(body.clone())).unwrap();
        assert!(matches!(message, StreamMessage::PrimaryKeepalive { reply_requested: true, .. }));
        body.push(0);
        assert!(StreamMessage::parse(Bytes::from(body.clone())).is_err());
        body.truncate(17);
        let error = StreamMessage::parse(Bytes::from(body)).unwrap_err();
        assert_eq!(error.to_string(), "invalid PrimaryKeepalive message: it ends inside reply requested");
    }

    #[test]
    fn a_status_update_is_a_whole_copy_data_message() {
        let mut out = BytesMut::new();
        let update = StandbyStatusUpdate {
            write: Lsn(3),
            flush: Lsn(2),
            apply: Lsn(1),
            sent_at: Timestamp(-1),
            reply_requested: false,
        };
        update.write(&mut out);
        let expected = b"d\0\0\0\x26r\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\
            \xff\xff\xff\xff\xff\xff\xff\xff\0";
        assert_eq!(&out[..], expected);
    }
}

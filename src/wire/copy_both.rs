//! START_REPLICATION: data both ways at once.
//!
//! In: a walsender's connection and the command. Out: the bodies of the server's CopyData messages, one at a time, and a queue for
//! the client's. What may fail: the network, or the server, which reports its error inside the copy. One
//! task drives both directions by [`CopyBoth::exchange`]: it may write while the server's largest message is still arriving.

use bytes::{Bytes, BytesMut};
use pgstream_proto::backend::Message;
use pgstream_proto::frame::{self, Limits};
use pgstream_proto::frontend;
use pgstream_proto::sqlstate::SqlState;

use super::{Connection, violation};
use crate::error::{Error, Result};

/// A running replication stream.
#[derive(Debug)]
pub struct CopyBoth {
    connection: Connection,
    ended: bool,
}

impl CopyBoth {
    /// Runs `command`, such as START_REPLICATION, on a connection opened with [`Settings::replication`](super::Settings::replication).
    pub async fn start(mut connection: Connection, command: &str) -> Result<CopyBoth> {
        connection.start_copy_both(command).await?;
        Ok(CopyBoth { connection, ended: false })
    }

    /// The session that the stream runs in.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The next message that has arrived whole, without waiting; `None` when there is none yet, or no more at all.
    ///
    /// # Errors
    /// What the server reported: its stream is over then.
    pub fn next_data(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            let side = self.connection.side();
            let frame = match frame::split(&mut self.connection.inbound, &Limits::SESSION) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(e) => return Err(violation(side, e)),
            };
            match Message::parse(frame).map_err(|e| violation(side, e))? {
                Message::CopyData(data) => return Ok(Some(data)),
                Message::CopyDone => self.ended = true,
                Message::ErrorResponse(notice) => return Err(self.connection.reported(notice)),
                // PostgreSQL 18 goes on without a publication that is not there, and so without its changes
                // (LoadPublications in pgoutput.c): as grave as the error that older servers make of it.
                Message::NoticeResponse(notice)
                    if notice.severity() == "WARNING"
                        && notice.sqlstate() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE =>
                {
                    return Err(Error::server(notice));
                }
                message => self.connection.aside(message)?,
            }
        }
        Ok(None)
    }

    /// Whether the server has ended the stream.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Where messages to the server are queued, as whole CopyData messages.
    pub fn outbound(&mut self) -> &mut BytesMut {
        &mut self.connection.outbound
    }

    /// Whether anything is queued that the server has not taken.
    pub fn has_outbound(&self) -> bool {
        !self.connection.outbound.is_empty()
    }

    /// Is not woken by what arrives until the next [`CopyBoth::exchange`] that reads.
    pub fn leave_alone(&mut self) -> Result<()> {
        self.connection.stream.leave_alone().map_err(|e| self.connection.lost(&e))
    }

    /// Sends what is queued and takes in what arrives, unless `read` is false: a reader that can't keep up leaves the rest with the server. Ends
    /// when anything has arrived, or when all is sent and nothing is to be read. Cancel safe.
    ///
    /// # Errors
    /// The connection is lost; what the server said last goes before the network's reason.
    pub async fn exchange(&mut self, read: bool) -> Result<()> {
        let Connection { stream, outbound, inbound, .. } = &mut self.connection;
        match stream.exchange(outbound, inbound, read).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.connection.broken_off(&e)),
        }
    }

    /// Takes in what has arrived, without waiting; whether there was anything.
    ///
    /// # Errors
    /// As [`exchange`](Self::exchange).
    pub async fn take_arrived(&mut self) -> Result<bool> {
        let Connection { stream, inbound, .. } = &mut self.connection;
        match stream.take_arrived(inbound).await {
            Ok(any) => Ok(any),
            Err(e) => Err(self.connection.broken_off(&e)),
        }
    }

    /// Ends the client's side, passes over what the server still sends, and closes the session. What was queued before is sent.
    pub async fn finish(mut self) -> Result<()> {
        frontend::copy_done(&mut self.connection.outbound);
        self.connection.send().await?;
        loop {
            match self.connection.receive().await? {
                Message::ReadyForQuery(status) => {
                    self.connection.end_exchange(status);
                    break;
                }
                Message::ErrorResponse(notice) => {
                    return Err(self.connection.fail(self.connection.reported(notice)).await);
                }
                _ => {}
            }
        }
        self.connection.close().await;
        Ok(())
    }
}

//! COPY in both directions as raw CopyData frames: what one server sends, another takes, and no row is looked at.

use bytes::Bytes;
use pgstream_proto::backend::{Message, tag};
use pgstream_proto::frame::{self, HEADER_LEN, Limits};
use pgstream_proto::frontend;

use super::Connection;
use crate::error::{Error, Result};

/// A running `COPY … TO STDOUT`.
#[derive(Debug)]
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    /// Bytes of the current CopyData frame that are still to come.
    rest_of_frame: usize,
    rows: u64,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> CopyOut<'a> {
        CopyOut { connection, rest_of_frame: 0, rows: 0 }
    }

    /// The next piece of the copy: CopyData frames with their headers, in large pieces of whatever has arrived. A frame may
    /// be cut anywhere, so that a row of any size passes through a buffer of fixed size. `None` at the end. Not cancel safe.
    pub async fn frames(&mut self) -> Result<Option<Bytes>> {
        loop {
            let ready = self.ready_bytes()?;
            if ready > 0 {
                return Ok(Some(self.connection.inbound.split_to(ready).freeze()));
            }
            let ended = self.rest_of_frame == 0 && self.connection.inbound.len() >= HEADER_LEN;
            if !ended {
                if let Err(e) = self.connection.stream.fill(&mut self.connection.inbound).await {
                    return Err(self.connection.lost(&e));
                }
                continue;
            }
            match self.connection.receive().await? {
                Message::CopyDone => {}
                Message::CommandComplete(tag) => self.rows = tag.rows().unwrap_or(0),
                Message::ErrorResponse(notice) => {
                    return Err(self.connection.fail(self.connection.reported(notice)).await);
                }
                Message::ReadyForQuery(status) => {
                    self.connection.end_exchange(status);
                    return Ok(None);
                }
                // Notices and settings that arrive between rows are taken inside `receive`, and rows may follow them.
                Message::CopyData(data) => {
                    let mut frame = bytes::BytesMut::with_capacity(HEADER_LEN + data.len());
                    frontend::copy_data_header(data.len(), &mut frame)
                        .map_err(|e| Error::connection(e.to_string()))?;
                    frame.extend_from_slice(&data);
                    return Ok(Some(frame.freeze()));
                }
                other => return Err(self.connection.unexpected(&other)),
            }
        }
    }

    /// Is not woken by what arrives until [`frames`](Self::frames) is called.
    pub fn leave_alone(&mut self) -> Result<()> {
        self.connection.stream.leave_alone().map_err(|e| self.connection.lost(&e))
    }

    /// The number of rows that the server counted; known once [`frames`](Self::frames) has given `None`.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes from the front of the buffer belong to CopyData frames.
    fn ready_bytes(&mut self) -> Result<usize> {
        let inbound = &self.connection.inbound;
        let mut at = 0;
        loop {
            let left = inbound.len() - at;
            if self.rest_of_frame > 0 {
                let taken = self.rest_of_frame.min(left);
                self.rest_of_frame -= taken;
                at += taken;
                if self.rest_of_frame > 0 {
                    return Ok(at);
                }
                continue;
            }
            let Some(bytes) = inbound.get(at..) else { return Ok(at) };
            if bytes.first() != Some(&tag::COPY_DATA) {
                return Ok(at);
            }
            match frame::peek(bytes, &Limits::SESSION) {
                Ok(Some(header)) => self.rest_of_frame = header.frame_len(),
                Ok(None) => return Ok(at),
                Err(e) => {
                    let side = self.connection.side();
                    return Err(Error::connection(format!("protocol violation by the {side}: {e}")));
                }
            }
        }
    }
}

/// A running `COPY … FROM STDIN`.
#[derive(Debug)]
pub struct CopyIn<'a> {
    connection: &'a mut Connection,
}

impl<'a> CopyIn<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> CopyIn<'a> {
        CopyIn { connection }
    }

    /// Sends of a piece of CopyData frames, as [`CopyOut::frames`] gives them, what the server takes at once; the rest stays in `frames`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn offer(&mut self, frames: &mut Bytes) -> Result<()> {
        let offered = self.connection.stream.offer(frames).await;
        self.taken(offered).await
    }

    /// Sends a piece of CopyData frames; waits while the server doesn't take more. Not cancel safe.
    ///
    /// # Errors
    /// What the server reported of the copy so far: it may refuse a row long after the row was sent. The connection is of no more use then.
    pub async fn write(&mut self, mut frames: Bytes) -> Result<()> {
        let connection = &mut *self.connection;
        let written = connection.stream.drain(&mut frames, &mut connection.inbound).await;
        self.taken(written).await
    }

    async fn taken(&mut self, written: std::io::Result<()>) -> Result<()> {
        let connection = &mut *self.connection;
        let arrived = match written {
            Ok(()) => connection.stream.take_arrived(&mut connection.inbound).await.map(drop),
            Err(e) => Err(e),
        };
        if let Err(e) = arrived {
            return Err(connection.last_words().unwrap_or_else(|| connection.lost(&e)));
        }
        connection.last_words().map_or(Ok(()), Err)
    }

    /// Ends the copy: the number of rows that the server counted.
    pub async fn finish(self) -> Result<u64> {
        frontend::copy_done(&mut self.connection.outbound);
        self.connection.send().await?;
        let mut rows = 0;
        loop {
            match self.connection.receive().await? {
                Message::CommandComplete(tag) => rows = tag.rows().unwrap_or(0),
                Message::ErrorResponse(notice) => {
                    return Err(self.connection.fail(self.connection.reported(notice)).await);
                }
                Message::ReadyForQuery(status) => {
                    self.connection.end_exchange(status);
                    return Ok(rows);
                }
                other => return Err(self.connection.unexpected(&other)),
            }
        }
    }
}

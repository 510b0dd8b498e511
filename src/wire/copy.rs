//! COPY in both directions as raw CopyData frames: what one server sends, another takes, and no row is looked at.

use bytes::Bytes;
use pgstream_proto::backend::{Message, tag};
use pgstream_proto::frame::{self, HEADER_LEN, Limits};
use pgstream_proto::frontend;

use super::{Connection, violation};
use crate::error::{Error, Result};

/// Statements `COPY … TO STDOUT` that were asked for together, and run one after the other.
#[derive(Debug)]
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    /// Copies whose end has not been read.
    left: usize,
    /// Bytes of the current CopyData frame that are still to come.
    rest_of_frame: usize,
    rows: u64,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(connection: &'a mut Connection, copies: usize) -> CopyOut<'a> {
        CopyOut { connection, left: copies, rest_of_frame: 0, rows: 0 }
    }

    /// Waits until the next copy begins. Not cancel safe.
    ///
    /// # Errors
    /// What the server reported; the copies behind this one fail with it.
    pub async fn begin(&mut self) -> Result<()> {
        match self.connection.receive().await? {
            Message::CopyOutResponse(_) => Ok(()),
            Message::ErrorResponse(notice) => Err(self.fail(self.connection.reported(notice)).await),
            other => Err(self.connection.unexpected(&other)),
        }
    }

    /// The next piece of the copy that has begun: CopyData frames with their headers, in large pieces of whatever has arrived. A frame may
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
                    return Err(self.fail(self.connection.reported(notice)).await);
                }
                Message::ReadyForQuery(status) => {
                    self.left -= 1;
                    if self.left == 0 {
                        self.connection.end_exchange(status);
                    }
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

    async fn fail(&mut self, error: Error) -> Error {
        fail(self.connection, self.left, error).await
    }

    /// Is not woken by what arrives until [`frames`](Self::frames) is called.
    pub fn leave_alone(&mut self) -> Result<()> {
        self.connection.stream.leave_alone().map_err(|e| self.connection.lost(&e))
    }

    /// The number of rows of the last copy that the server counted; known once [`frames`](Self::frames) has given `None`.
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
                Err(e) => return Err(violation(self.connection.side(), e)),
            }
        }
    }
}

/// Reads on to the end of an exchange of so many queries, of which the first has failed; gives its error back.
async fn fail(connection: &mut Connection, queries: usize, mut error: Error) -> Error {
    for _ in 0..queries {
        connection.go_on();
        error = connection.fail(error).await;
        if connection.is_broken() {
            break;
        }
    }
    error
}

/// Statements `COPY … FROM STDIN` that run one after the other. Nobody waits for the server between them.
#[derive(Debug)]
pub struct CopyIn<'a> {
    connection: &'a mut Connection,
    /// Copies that were begun.
    begun: usize,
    /// Rows of those that the server has ended.
    rows: Vec<u64>,
    /// Rows of the statement that it ended last.
    last: u64,
}

impl<'a> CopyIn<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> CopyIn<'a> {
        CopyIn { connection, begun: 0, rows: Vec::new(), last: 0 }
    }

    /// Starts a copy, the last one having been [ended](Self::end); `sql` may hold statements before the COPY. Not cancel safe.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn begin(&mut self, sql: &str) -> Result<()> {
        if self.rows.len() == self.begun {
            self.connection.begin_exchange()?;
        }
        self.connection.encode(|out| frontend::query(sql, out))?;
        self.begun += 1;
        self.flush().await
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
    /// What the server reported of the copies so far: it may refuse a row long after the row was sent. The connection is of no more use then.
    pub async fn write(&mut self, mut frames: Bytes) -> Result<()> {
        let connection = &mut *self.connection;
        let written = connection.stream.drain(&mut frames, &mut connection.inbound).await;
        self.taken(written).await
    }

    /// Ends the copy that was begun; the server learns it with what is sent next.
    pub fn end(&mut self) {
        frontend::copy_done(&mut self.connection.outbound);
    }

    /// How many copies the server has ended.
    pub fn ended(&self) -> usize {
        self.rows.len()
    }

    /// Waits until the server has ended all copies: the number of rows that it counted of each. Not cancel safe.
    ///
    /// # Errors
    /// What the server reported of the copies.
    pub async fn finish(&mut self) -> Result<Vec<u64>> {
        self.flush().await?;
        while self.rows.len() < self.begun {
            let message = self.connection.receive().await?;
            if let Err(error) = self.take(message) {
                return Err(fail(self.connection, self.begun - self.rows.len(), error).await);
            }
        }
        Ok(std::mem::take(&mut self.rows))
    }

    async fn flush(&mut self) -> Result<()> {
        let connection = &mut *self.connection;
        let written = connection.stream.drain(&mut connection.outbound, &mut connection.inbound).await;
        self.taken(written).await
    }

    async fn taken(&mut self, written: std::io::Result<()>) -> Result<()> {
        let connection = &mut *self.connection;
        let arrived = match written {
            Ok(()) => connection.stream.take_arrived(&mut connection.inbound).await.map(drop),
            Err(e) => Err(e),
        };
        if let Err(e) = arrived {
            return Err(connection.broken_off(&e));
        }
        while let Some(message) = self.connection.arrived()? {
            self.take(message)?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::CopyInResponse(_) => {}
            Message::CommandComplete(tag) => self.last = tag.rows().unwrap_or(0),
            Message::ReadyForQuery(status) if self.rows.len() < self.begun => {
                self.rows.push(std::mem::take(&mut self.last));
                if self.rows.len() == self.begun {
                    self.connection.end_exchange(status);
                }
            }
            Message::ErrorResponse(notice) => return Err(self.connection.reported(notice)),
            other => return Err(self.connection.unexpected(&other)),
        }
        Ok(())
    }
}

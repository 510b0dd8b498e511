//! Many statements under way at once, over the extended protocol.
//!
//! In: prepared statements and their parameters, and COPY data between them, all appended to one buffer. Out: one [`Answer`] for each
//! statement, in order. The caller decides when to [`send`](Pipeline::send) and where to [`sync`](Pipeline::sync): after an error the server
//! passes over everything up to the next Sync. What may fail: the network, the encoding of a value, and the server,
//! whose error is an answer, since only the caller knows what it means for the statements around.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};
use pgstream_proto::Format;
use pgstream_proto::backend::{CommandTag, Message, TransactionStatus};
use pgstream_proto::frontend;
use pgstream_proto::notice::Notice;

use super::Connection;
use super::stream::MOST_KEPT;
use crate::error::{Error, Result};

/// How large a CopyData message grows before the next one begins, in bytes.
const COPY_DATA_SIZE: usize = 64 << 10;

/// Type byte and length of a CopyData message.
const HEADER_LEN: usize = 5;

/// What the server has to say to a statement of the pipeline.
#[derive(Debug)]
pub enum Answer {
    /// The statement is done.
    Complete(CommandTag),
    /// The statement failed, and everything up to the next Sync is passed over.
    Error(Notice),
    /// A Sync is reached.
    Ready(TransactionStatus),
}

/// A session used as a pipeline.
#[derive(Debug)]
pub struct Pipeline {
    connection: Connection,
    /// Where in the outbound buffer the open CopyData message begins.
    copy_data: Option<usize>,
    answers: VecDeque<Answer>,
}

impl Pipeline {
    /// Over a session that is idle.
    pub fn new(connection: Connection) -> Pipeline {
        Pipeline { connection, copy_data: None, answers: VecDeque::new() }
    }

    /// The session.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How many bytes wait to be sent.
    pub fn queued(&self) -> usize {
        self.connection.outbound.len()
    }

    /// Prepares a statement; no answer comes for it, and its error comes as that of the next statement.
    pub fn prepare(&mut self, name: &str, sql: &str, parameter_types: &[u32]) -> Result<()> {
        frontend::parse(name, sql, parameter_types, &mut self.connection.outbound)
            .map_err(|e| Error::failed(e.to_string()).with_statement(sql))
    }

    /// Forgets a prepared statement.
    pub fn forget(&mut self, name: &str) -> Result<()> {
        frontend::close_statement(name, &mut self.connection.outbound)
            .map_err(|e| Error::failed(e.to_string()))
    }

    /// Runs a prepared statement. `formats` is empty for text, or has the format of each parameter.
    pub fn run<'a>(
        &mut self,
        name: &str,
        formats: &[Format],
        parameters: impl IntoIterator<Item = Option<&'a [u8]>>,
    ) -> Result<()> {
        let out = &mut self.connection.outbound;
        frontend::bind("", name, formats, parameters, &[], out)
            .and_then(|()| frontend::execute("", 0, out))
            .map_err(|e| Error::failed(e.to_string()))
    }

    /// Lets `row` append bytes of COPY data; the statement that was run last is a COPY FROM STDIN.
    pub fn copy_data(&mut self, row: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
        let out = &mut self.connection.outbound;
        let start = *self.copy_data.get_or_insert_with(|| {
            let start = out.len();
            out.put_slice(b"d\0\0\0\0");
            start
        });
        row(out)?;
        if out.len() - start >= COPY_DATA_SIZE { self.end_copy_data() } else { Ok(()) }
    }

    /// Ends the COPY; its answer follows.
    pub fn copy_done(&mut self) -> Result<()> {
        self.end_copy_data()?;
        frontend::copy_done(&mut self.connection.outbound);
        Ok(())
    }

    fn end_copy_data(&mut self) -> Result<()> {
        let Some(start) = self.copy_data.take() else { return Ok(()) };
        let out = &mut self.connection.outbound;
        let mut header = BytesMut::with_capacity(HEADER_LEN);
        frontend::copy_data_header(out.len() - start - HEADER_LEN, &mut header)
            .map_err(|e| Error::failed(e.to_string()))?;
        out[start..start + HEADER_LEN].copy_from_slice(&header);
        Ok(())
    }

    /// Asks for all answers so far; without it or a Sync, the server may keep some back.
    pub fn flush(&mut self) {
        frontend::flush(&mut self.connection.outbound);
    }

    /// Ends a group of statements: the server answers all of them, and an error before it reaches no further.
    pub fn sync(&mut self) {
        frontend::sync(&mut self.connection.outbound);
    }

    /// Takes what the server has answered so far, then sends all that is queued; answers that arrive meanwhile are taken too, so neither side
    /// waits for the other. Not cancel safe.
    pub async fn send(&mut self) -> Result<()> {
        self.end_copy_data()?;
        self.connection.busy = true;
        let Connection { stream, outbound, inbound, .. } = &mut self.connection;
        let large = outbound.len() > MOST_KEPT;
        let mut sent = stream.take_arrived(inbound).await.map(drop);
        if sent.is_ok() {
            sent = stream.drain(outbound, inbound).await;
        }
        if large && outbound.is_empty() {
            *outbound = BytesMut::new();
        }
        self.take_answers_unless(sent)
    }

    /// Takes what has arrived; if the session is lost, what the server said before it went says more than the socket does.
    fn take_answers_unless(&mut self, lost: std::io::Result<()>) -> Result<()> {
        self.take_answers()?;
        let Err(e) = lost else { return Ok(()) };
        let last_error = self.answers.drain(..).find_map(|answer| match answer {
            Answer::Error(notice) => Some(self.connection.reported(notice)),
            _ => None,
        });
        Err(last_error.unwrap_or_else(|| self.connection.lost(&e)))
    }

    /// Takes what the server has answered so far, and is not woken by further answers until one is [awaited](Pipeline::answer).
    pub async fn rest(&mut self) -> Result<()> {
        let Connection { stream, inbound, .. } = &mut self.connection;
        let rests = async {
            stream.leave_alone()?;
            while stream.take_arrived(inbound).await? {}
            Ok(())
        };
        let rests = rests.await;
        self.take_answers_unless(rests)
    }

    /// The next answer that has arrived, without waiting.
    pub fn arrived(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// The next answer; only for statements that are sent and followed by a Sync or a flush. Cancel safe.
    pub async fn answer(&mut self) -> Result<Answer> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            if let Err(e) = self.connection.stream.fill(&mut self.connection.inbound).await {
                return Err(self.connection.lost(&e));
            }
            self.take_answers()?;
        }
    }

    fn take_answers(&mut self) -> Result<()> {
        while let Some(message) = self.connection.arrived()? {
            match message {
                Message::ParseComplete
                | Message::BindComplete
                | Message::CloseComplete
                | Message::DataRow(_)
                | Message::CopyInResponse(_) => {}
                Message::CommandComplete(tag) => self.answers.push_back(Answer::Complete(tag)),
                Message::ErrorResponse(notice) => self.answers.push_back(Answer::Error(notice)),
                Message::ReadyForQuery(status) => {
                    self.connection.end_exchange(status);
                    self.answers.push_back(Answer::Ready(status));
                }
                other => return Err(self.connection.unexpected(&other)),
            }
        }
        Ok(())
    }
}

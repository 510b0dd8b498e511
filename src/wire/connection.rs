//! One session: simple and extended queries, pipelines.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use pgstream_proto::backend::{Message, TransactionStatus};
use pgstream_proto::frame::{self, Limits};
use pgstream_proto::frontend::{self, EncodeError};
use pgstream_proto::notice::Notice;

use super::connect::{self, Endpoint};
use super::stream::Stream;
use super::{Canceller, CopyIn, CopyOut, Row, Settings, violation};
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind, Result, io_reason};

/// What the server said of the session during login.
#[derive(Debug, Default)]
pub(super) struct Identity {
    parameters: HashMap<String, String>,
    pid: u32,
    key: Bytes,
}

/// The settings that a session remembers. A server may report as many as it likes.
const REMEMBERED: &[&str] = &["server_version", "server_encoding", "is_superuser"];

impl Identity {
    pub(super) fn set_parameter(&mut self, name: String, value: String) {
        if REMEMBERED.contains(&name.as_str()) {
            self.parameters.insert(name, value);
        }
    }

    pub(super) fn set_key(&mut self, pid: u32, key: Bytes) {
        self.pid = pid;
        self.key = key;
    }
}

/// A session with one server. Dropping it closes the socket; [`Connection::close`] also says goodbye.
pub struct Connection {
    pub(super) stream: Stream,
    pub(super) inbound: BytesMut,
    pub(super) outbound: BytesMut,
    side: Side,
    config: Config,
    endpoint: Endpoint,
    identity: Identity,
    version: u32,
    status: TransactionStatus,
    /// An exchange was begun and hasn't reached ReadyForQuery.
    pub(super) busy: bool,
    /// Settings that were sent behind the login and are not answered: nobody waits for that.
    settings: usize,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("side", &self.side)
            .field("pid", &self.identity.pid)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

/// A pipelined statement failed; those before it took effect as far as their transaction commits, those after it did not run.
#[derive(Debug)]
pub struct PipelineError {
    /// Position of the statement that failed.
    pub index: usize,
    /// What the server said of it.
    pub error: Error,
}

impl From<PipelineError> for Error {
    fn from(failure: PipelineError) -> Error {
        failure.error
    }
}

/// After a lost connection.
const AGAIN: &str = "Make sure that the server is up and can be reached, then run the same command again.";

impl Connection {
    /// Opens a session on the first host of `config` that answers and fits, with `settings` fixed.
    ///
    /// # Errors
    /// Lists every attempt. Wrong credentials, an unknown database or a refused encryption have kind
    /// [`ErrorKind::Usage`], an unreachable server [`ErrorKind::Connection`].
    pub async fn connect(config: &Config, side: Side, settings: &Settings) -> Result<Connection> {
        // Boxed: the login's state is large, and callers keep their futures small.
        Box::pin(connect::connect(config, side, settings)).await
    }

    pub(super) fn new(
        stream: Stream,
        inbound: BytesMut,
        side: Side,
        config: Config,
        endpoint: Endpoint,
        identity: Identity,
    ) -> Connection {
        let version = identity.parameters.get("server_version").map_or(0, |text| version_number(text));
        Connection {
            stream,
            inbound,
            outbound: BytesMut::new(),
            side,
            config,
            endpoint,
            identity,
            version,
            status: TransactionStatus::Idle,
            busy: false,
            settings: 0,
        }
    }

    /// Sends statements that set something of the session, and doesn't wait: their answers come before that of the first exchange. Some settings depend on the
    /// server's operating system, and none is needed for a right result, so one that is refused stays as it is.
    pub(super) async fn set(&mut self, statements: &[String]) -> Result<()> {
        for sql in statements {
            self.encode(|out| frontend::query(sql, out))?;
        }
        self.settings += statements.len();
        self.send().await
    }

    /// Which side of the migration the server is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The server's `server_version_num`, such as 150018 for 15.18.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The process ID of the session's backend.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// The last reported value of a setting: `server_version`, `server_encoding` or `is_superuser`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.identity.parameters.get(name).map(String::as_str)
    }

    /// Where the session is, for messages: `host "h", port 5432`.
    pub fn place(&self) -> String {
        self.endpoint.description()
    }

    /// The connection parameters that the session was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the session is in a transaction block, failed or not.
    pub fn in_transaction(&self) -> bool {
        self.status != TransactionStatus::Idle
    }

    /// Whether an exchange was given up half-way or the socket was lost, so that the session is of no more use.
    pub fn is_broken(&self) -> bool {
        self.busy
    }

    /// What another task needs to cancel the running statement.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            config: self.config.clone(),
            endpoint: self.endpoint.clone(),
            pid: self.identity.pid,
            key: self.identity.key.clone(),
        }
    }

    /// Runs one or several statements by the simple protocol and drops their rows.
    pub async fn execute(&mut self, sql: &str) -> Result<()> {
        self.simple(sql).await.map(drop)
    }

    /// Runs one or several statements by the simple protocol; the rows of all of them, in text format. The one way to query a walsender.
    pub async fn simple(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.begin_exchange()?;
        self.encode(|out| frontend::query(sql, out))?;
        self.send().await?;
        self.rows_until_ready().await.map_err(|e| e.with_statement(sql))
    }

    /// As [`simple`](Self::simple), for several in one round trip; the rows of each.
    ///
    /// # Errors
    /// Of the first that fails; the others have run as well.
    pub async fn simple_each<const N: usize>(&mut self, statements: [&str; N]) -> Result<[Vec<Row>; N]> {
        self.begin_exchange()?;
        for sql in statements {
            self.encode(|out| frontend::query(sql, out))?;
        }
        self.rows_of_each(statements).await
    }

    /// Runs one statement by the extended protocol, with parameters in text format; the rows in text format.
    pub async fn query(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Row>> {
        self.begin_exchange()?;
        self.encode(|out| statement(sql, params, out))?;
        frontend::sync(&mut self.outbound);
        self.send().await?;
        self.rows_until_ready().await.map_err(|e| e.with_statement(sql))
    }

    /// As [`query`](Self::query), for several statements without parameters in one round trip, each a transaction of its own outside a transaction block;
    /// the rows of each.
    ///
    /// # Errors
    /// As [`simple_each`](Self::simple_each).
    pub async fn query_each<const N: usize>(&mut self, statements: [&str; N]) -> Result<[Vec<Row>; N]> {
        self.begin_exchange()?;
        for sql in statements {
            self.encode(|out| statement(sql, &[], out))?;
            frontend::sync(&mut self.outbound);
        }
        self.rows_of_each(statements).await
    }

    /// Sends what is encoded, and takes the rows of each of these.
    async fn rows_of_each<const N: usize>(&mut self, statements: [&str; N]) -> Result<[Vec<Row>; N]> {
        let mut rows = [const { Vec::new() }; N];
        for (rows, outcome) in rows.iter_mut().zip(self.outcomes(&statements).await?) {
            *rows = outcome?;
        }
        Ok(rows)
    }

    /// Sends what is encoded, and takes the rows of each of these, or its error.
    ///
    /// # Errors
    /// A lost connection.
    async fn outcomes<S: AsRef<str>>(&mut self, statements: &[S]) -> Result<Vec<Result<Vec<Row>>>> {
        self.send().await?;
        let mut outcomes = Vec::with_capacity(statements.len());
        for sql in statements {
            self.go_on();
            match self.rows_until_ready().await.map_err(|e| e.with_statement(sql.as_ref())) {
                Err(error) if self.busy => return Err(error),
                outcome => outcomes.push(outcome),
            }
        }
        self.busy = false;
        Ok(outcomes)
    }

    /// As [`query`](Self::query), for a statement that gives exactly one row.
    pub async fn query_one(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Row> {
        let mut rows = self.query(sql, params).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (row, rest) => {
                let count = rest + usize::from(row.is_some());
                Err(Error::failed(format!("unexpected {count} rows from the {}, expected 1", self.side))
                    .with_statement(sql))
            }
        }
    }

    /// Runs many statements in one round trip and drops their rows. Outside a transaction block they are one transaction.
    ///
    /// # Errors
    /// The first statement that fails, by its position.
    pub async fn pipeline<S: AsRef<str>>(&mut self, statements: &[S]) -> Result<(), PipelineError> {
        let at = |index: usize| move |error: Error| PipelineError { index, error };
        self.begin_exchange().map_err(at(0))?;
        for (index, sql) in statements.iter().enumerate() {
            self.encode(|out| statement(sql.as_ref(), &[], out)).map_err(at(index))?;
        }
        frontend::sync(&mut self.outbound);
        self.send().await.map_err(at(0))?;
        let mut done = 0;
        let mut failure = None;
        loop {
            match self.receive().await {
                Ok(Message::CommandComplete(_) | Message::EmptyQueryResponse) => done += 1,
                Ok(Message::ErrorResponse(notice)) => {
                    let error = self.reported(notice);
                    let sql = statements.get(done).map_or("", |s| s.as_ref());
                    failure = Some(PipelineError { index: done, error: error.with_statement(sql) });
                }
                Ok(Message::ReadyForQuery(status)) => {
                    self.end_exchange(status);
                    return failure.map_or(Ok(()), Err);
                }
                Ok(_) => {}
                Err(error) => return Err(failure.unwrap_or(PipelineError { index: done, error })),
            }
        }
    }

    /// Runs many statements in one round trip, each a transaction of its own outside a transaction block, and drops their rows: the error of each that failed.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn each<S: AsRef<str>>(&mut self, statements: &[S]) -> Result<Vec<Option<Error>>> {
        self.begin_exchange()?;
        for sql in statements {
            self.encode(|out| statement(sql.as_ref(), &[], out))?;
            frontend::sync(&mut self.outbound);
        }
        Ok(self.outcomes(statements).await?.into_iter().map(Result::err).collect())
    }

    /// Starts these statements `COPY … TO STDOUT`, one after the other. Read each copy to its end, or drop the connection.
    pub async fn copy_out<S: AsRef<str>>(&mut self, statements: &[S]) -> Result<CopyOut<'_>> {
        self.begin_exchange()?;
        for sql in statements {
            self.encode(|out| frontend::query(sql.as_ref(), out))?;
        }
        self.send().await?;
        Ok(CopyOut::new(self, statements.len()))
    }

    /// For statements `COPY … FROM STDIN`. Finish it, or drop the connection, which undoes the copies.
    pub fn copy_in(&mut self) -> CopyIn<'_> {
        CopyIn::new(self)
    }

    /// Runs a replication command that is answered by CopyBothResponse.
    pub(super) async fn start_copy_both(&mut self, command: &str) -> Result<()> {
        self.begin_exchange()?;
        self.encode(|out| frontend::query(command, out))?;
        self.send().await?;
        match self.receive().await? {
            Message::CopyBothResponse(_) => Ok(()),
            Message::ErrorResponse(notice) => {
                Err(self.fail(self.reported(notice)).await.with_statement(command))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Says goodbye and closes the socket.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.outbound);
        // The session ends either way; a socket that is gone already is no failure.
        let _ = self.stream.drain(&mut self.outbound, &mut self.inbound).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await;
    }

    pub(super) fn begin_exchange(&mut self) -> Result<()> {
        if self.busy {
            return Err(Error::connection(format!("the connection to the {} is lost", self.side)));
        }
        self.busy = true;
        Ok(())
    }

    /// The exchange goes on: more is to be read.
    pub(super) fn go_on(&mut self) {
        self.busy = true;
    }

    pub(super) fn end_exchange(&mut self, status: TransactionStatus) {
        self.status = status;
        self.busy = false;
    }

    pub(super) fn encode(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<()> {
        write(&mut self.outbound).map_err(|e| {
            // Nothing of the exchange has been sent, so the session stays usable.
            self.outbound.clear();
            self.busy = false;
            Error::failed(format!("could not send a statement to the {}: {e}", self.side))
        })
    }

    pub(super) fn lost(&self, error: &std::io::Error) -> Error {
        let reason = match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "server closed the connection unexpectedly".to_owned(),
            _ => io_reason(error),
        };
        Error::connection(format!("lost the connection to the {} at {}: {reason}", self.side, self.place()))
            .with_hint(AGAIN)
    }

    /// What the server reports. Where it ends the session by that, the error says so, as for any other lost connection.
    pub(super) fn reported(&self, notice: Notice) -> Error {
        let error = Error::server(notice);
        if error.kind() == ErrorKind::Connection { self.ended_by(error) } else { error }
    }

    fn ended_by(&self, error: Error) -> Error {
        error
            .context(format!("lost the connection to the {} at {}", self.side, self.place()))
            .with_kind(ErrorKind::Connection)
            .with_hint(AGAIN)
    }

    pub(super) fn unexpected(&self, message: &Message) -> Error {
        Error::connection(format!("unexpected {} message from the {}", message.name(), self.side))
    }

    /// Sends what is encoded, taking in what the server sends meanwhile.
    pub(super) async fn send(&mut self) -> Result<()> {
        match self.stream.drain(&mut self.outbound, &mut self.inbound).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.broken_off(&e)),
        }
    }

    /// The connection is lost; what the server said before, if that has arrived, goes before the network's reason.
    pub(super) fn broken_off(&mut self, error: &std::io::Error) -> Error {
        self.last_words().unwrap_or_else(|| self.lost(error))
    }

    /// The error that a server sent before it closed the socket, if one has arrived.
    fn last_words(&mut self) -> Option<Error> {
        while let Ok(Some(message)) = self.arrived() {
            if let Message::ErrorResponse(notice) = message {
                return Some(self.reported(notice));
            }
        }
        None
    }

    /// The next message that belongs to the exchange; notices go to tracing, settings are remembered.
    pub(super) async fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.arrived()? {
                return Ok(message);
            }
            if let Err(e) = self.stream.fill(&mut self.inbound).await {
                return Err(self.lost(&e));
            }
        }
    }

    /// As [`receive`](Self::receive), of what has been taken in; `None` when there is no whole message.
    pub(super) fn arrived(&mut self) -> Result<Option<Message>> {
        let side = self.side;
        while let Some(frame) =
            frame::split(&mut self.inbound, &Limits::SESSION).map_err(|e| violation(side, e))?
        {
            let message = Message::parse(frame).map_err(|e| violation(side, e))?;
            match message {
                Message::NoticeResponse(_)
                | Message::ParameterStatus { .. }
                | Message::NotificationResponse { .. } => self.aside(message)?,
                message if self.settings > 0 => {
                    if let Some(message) = self.settled(message) {
                        return Ok(Some(message));
                    }
                }
                message => return Ok(Some(message)),
            }
        }
        Ok(None)
    }

    /// Takes an answer to the [settings](Self::set), and gives back what isn't one.
    fn settled(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::CommandComplete(_) => None,
            Message::ReadyForQuery(_) => {
                self.settings -= 1;
                None
            }
            Message::ErrorResponse(notice) if !notice.is_fatal() => {
                tracing::debug!(side = %self.side, "a setting of the session is left as it is: {}", notice.message());
                None
            }
            message => {
                self.settings = 0;
                Some(message)
            }
        }
    }

    /// Takes a message that may come at any time: notices go to tracing, settings are remembered.
    pub(super) fn aside(&mut self, message: Message) -> Result<()> {
        match message {
            Message::NoticeResponse(notice) => {
                tracing::debug!(side = %self.side, severity = notice.severity(), "{}", notice.message());
            }
            Message::ParameterStatus { name, value } => self.identity.set_parameter(name, value),
            Message::NotificationResponse { .. } => {}
            other => return Err(self.unexpected(&other)),
        }
        Ok(())
    }

    async fn rows_until_ready(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        loop {
            match self.receive().await? {
                Message::DataRow(data) => rows.push(Row::new(data)),
                Message::ErrorResponse(notice) => return Err(self.fail(self.reported(notice)).await),
                Message::ReadyForQuery(status) => {
                    self.end_exchange(status);
                    return Ok(rows);
                }
                message @ (Message::CopyInResponse(_) | Message::CopyOutResponse(_)) => {
                    return Err(self.unexpected(&message));
                }
                _ => {}
            }
        }
    }

    /// Reads on to ReadyForQuery after an ErrorResponse and gives the error back. A session that ends instead is lost.
    pub(super) async fn fail(&mut self, error: Error) -> Error {
        loop {
            match self.receive().await {
                Ok(Message::ReadyForQuery(status)) => {
                    self.end_exchange(status);
                    return error;
                }
                Ok(_) => {}
                Err(_) if error.kind() == ErrorKind::Connection => return error,
                Err(_) => return self.ended_by(error),
            }
        }
    }
}

fn statement(sql: &str, params: &[Option<&str>], out: &mut BytesMut) -> Result<(), EncodeError> {
    frontend::parse("", sql, &[], out)?;
    frontend::bind("", "", &[], params.iter().map(|p| p.map(str::as_bytes)), &[], out)?;
    frontend::execute("", 0, out)
}

/// `15.18 (Debian 15.18-0+deb12u1)` → 150018; a development version such as `19devel` has minor 0.
fn version_number(text: &str) -> u32 {
    let number =
        |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let (major, minor) = text.split_once('.').unwrap_or((text, ""));
    let major: u32 = number(major);
    if major < 10 {
        let (second, third) = minor.split_once('.').unwrap_or((minor, ""));
        return major * 10_000 + number(second) * 100 + number(third);
    }
    // `18beta1` has no dot, and `18.4` has its minor behind it.
    major.saturating_mul(10_000).saturating_add(number(minor))
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::version_number;
    use crate::config::{Environment, Side, resolve};
    use crate::error::{ErrorKind, Result};
    use crate::wire::{Connection, Row, Settings, simulated};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = BytesMut::new();
        message.put_u8(kind);
        message.put_u32(4 + body.len() as u32);
        message.put_slice(body);
        message.to_vec()
    }

    const READY: (u8, &[u8]) = (b'Z', b"I");

    /// A server that logs a client in, and answers nothing more before it has got `SELECT`: then this.
    async fn serve(mut server: DuplexStream, answers: Vec<(u8, &'static [u8])>) {
        let mut sent = vec![0; 1 << 16];
        assert!(server.read(&mut sent).await.unwrap() > 0);
        for (kind, body) in [(b'R', &[0; 4][..]), (b'S', b"server_version\x0018.4\0"), READY] {
            server.write_all(&message(kind, body)).await.unwrap();
        }
        let mut asked = Vec::new();
        while !asked.windows(6).any(|part| part == b"SELECT") {
            let size = server.read(&mut sent).await.unwrap();
            assert!(size > 0, "the client went");
            asked.extend_from_slice(&sent[..size]);
        }
        for (kind, body) in answers {
            server.write_all(&message(kind, body)).await.unwrap();
        }
    }

    /// What a client sees that logs in there and asks something.
    async fn ask(answers: Vec<(u8, &'static [u8])>) -> Result<Vec<Row>> {
        let _network = simulated::install(Box::new(move |_| {
            let (client, server) = tokio::io::duplex(1 << 16);
            tokio::spawn(serve(server, answers.clone()));
            Ok(client)
        }));
        let config = resolve("host=/s user=u dbname=d", Side::Target, &Environment::empty()).unwrap();
        // None of the settings is answered when this returns.
        let mut session = Connection::connect(&config, Side::Target, &Settings::session()).await?;
        session.query("SELECT 1", &[]).await
    }

    const ROW: [(u8, &[u8]); 5] =
        [(b'1', b""), (b'2', b""), (b'D', b"\0\x01\0\0\0\x011"), (b'C', b"SELECT 1\0"), READY];

    /// Those that PostgreSQL 18 has beyond 10.
    const SETTINGS: usize = 5;

    #[tokio::test]
    async fn settings_are_not_waited_for_and_may_be_refused() {
        let mut answers = vec![(b'E', &b"SERROR\0VERROR\0C22023\0Mno such thing here\0\0"[..]), READY];
        for _ in 1..SETTINGS {
            answers.extend([(b'C', &b"SET\0"[..]), READY]);
        }
        answers.extend(ROW);
        let rows = ask(answers).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.text(0)).collect::<Vec<_>>(), [Some("1")]);
    }

    #[tokio::test]
    async fn a_session_that_ends_among_its_settings_says_why() {
        let ended = vec![
            (b'C', &b"SET\0"[..]),
            READY,
            (b'E', &b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"[..]),
        ];
        let error = ask(ended).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(error.to_string().contains("terminating connection"), "{error}");
    }

    #[test]
    fn version_text_becomes_server_version_num() {
        for (text, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", 150_018),
            ("10.23", 100_023),
            ("18beta1", 180_000),
            ("19devel", 190_000),
            ("9.6.24", 90_624),
            ("", 0),
            ("x", 0),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}

//! Which messages a server may send at which point of a session.
//!
//! In: what the client sent (by event) and what the server sent. Out: the state that follows. Fails with "got X, expected Y" when the
//! server leaves the protocol, so that a confused or hostile server can't make a caller take, say, rows for the data of a COPY.
//!
//! ```text
//! Startup ─ Authentication* ─► Auth ─ AuthenticationOk ─► Starting ─ ReadyForQuery ─► Idle
//! Idle ─ query, extended, sync ─► Busy ─ the last awaited ReadyForQuery ─► Idle
//! Busy ─ CopyInResponse   ─► CopyIn   ─ copy done or failed, ErrorResponse ─► Busy
//! Busy ─ CopyOutResponse  ─► CopyOut  ─ CopyDone, ErrorResponse ─► Busy
//! Busy ─ CopyBothResponse ─► CopyBoth ─ both sides' CopyDone, CommandComplete, ErrorResponse ─► Busy
//! any ─ FATAL or PANIC, or an error before Idle ─► Closed
//! ```
//!
//! Notices and notifications may come at any point, parameter changes once logged in.

use std::fmt;

use crate::backend::{AuthenticationRequest, Message};
use crate::notice::Notice;

/// A session's place in the protocol, as seen by the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    state: State,
    /// How many ReadyForQuery are still to come: one for each Query and each Sync.
    awaited: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Startup,
    Auth,
    Starting,
    Idle,
    Busy,
    CopyIn,
    CopyOut,
    CopyBoth { client_done: bool, server_done: bool },
    Closed,
}

impl State {
    fn expected(self) -> &'static str {
        match self {
            State::Startup | State::Auth => "an authentication request",
            State::Starting => "the session's parameters or ReadyForQuery",
            State::Idle => "nothing, as no command was sent",
            State::Busy => "a command's result",
            State::CopyIn => "nothing but an error, as the client is sending COPY data",
            State::CopyOut => "CopyData or CopyDone",
            State::CopyBoth { server_done: false, .. } => "CopyData or CopyDone",
            State::CopyBoth { server_done: true, .. } => "nothing, as the client has not ended the COPY",
            State::Closed => "nothing, as the session is over",
        }
    }
}

/// The server left the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionError {
    /// The message that came.
    pub got: &'static str,
    /// What could have come.
    pub expected: &'static str,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protocol violation: got {}, expected {}", self.got, self.expected)
    }
}

impl std::error::Error for SessionError {}

impl Default for Session {
    fn default() -> Session {
        Session::new()
    }
}

impl Session {
    /// A session whose startup message is on its way.
    pub fn new() -> Session {
        Session { state: State::Startup, awaited: 0 }
    }

    /// Whether the server waits for a command and every answer has come.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether the server has ended the session.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// How many ReadyForQuery are still to come.
    pub fn awaited(&self) -> usize {
        self.awaited
    }

    /// The client sent Query or Sync, each of which brings one ReadyForQuery.
    pub fn sent_query_or_sync(&mut self) {
        self.awaited += 1;
        self.sent_extended();
    }

    /// The client sent another message of the extended protocol.
    pub fn sent_extended(&mut self) {
        if self.state == State::Idle {
            self.state = State::Busy;
        }
    }

    /// The client sent CopyDone or CopyFail.
    pub fn sent_copy_end(&mut self) {
        self.state = match self.state {
            State::CopyIn | State::CopyBoth { server_done: true, .. } => State::Busy,
            State::CopyBoth { server_done: false, .. } => {
                State::CopyBoth { client_done: true, server_done: false }
            }
            state => state,
        };
    }

    /// The server sent CopyData; for relays, which don't build a [`Message`] of it.
    pub fn received_copy_data(&self) -> Result<(), SessionError> {
        match self.state {
            State::CopyOut | State::CopyBoth { server_done: false, .. } => Ok(()),
            _ => Err(self.unexpected("CopyData")),
        }
    }

    /// The server sent `message`.
    pub fn received(&mut self, message: &Message) -> Result<(), SessionError> {
        let next = match (message, self.state) {
            (_, State::Closed) => None,
            (Message::NoticeResponse(_) | Message::NotificationResponse { .. }, state) => Some(state),
            (Message::ParameterStatus { .. }, State::Startup | State::Auth) => None,
            (Message::ParameterStatus { .. }, state) => Some(state),
            (Message::ErrorResponse(notice), state) => after_error(notice, state),
            (Message::NegotiateProtocolVersion { .. }, State::Startup) => Some(State::Startup),
            (Message::Authentication(AuthenticationRequest::Ok), State::Startup | State::Auth) => {
                Some(State::Starting)
            }
            (Message::Authentication(_), State::Startup | State::Auth) => Some(State::Auth),
            (Message::BackendKeyData { .. }, State::Starting) => Some(State::Starting),
            (Message::ReadyForQuery(_), State::Starting) => Some(State::Idle),
            (Message::ReadyForQuery(_), State::Busy) if self.awaited > 0 => {
                self.awaited -= 1;
                Some(if self.awaited == 0 { State::Idle } else { State::Busy })
            }
            (Message::CopyInResponse(_), State::Busy) => Some(State::CopyIn),
            (Message::CopyOutResponse(_), State::Busy) => Some(State::CopyOut),
            (Message::CopyBothResponse(_), State::Busy) => {
                Some(State::CopyBoth { client_done: false, server_done: false })
            }
            (Message::CopyData(_), state) => self.received_copy_data().ok().map(|()| state),
            (Message::CopyDone, State::CopyOut | State::CopyBoth { client_done: true, .. }) => {
                Some(State::Busy)
            }
            (Message::CopyDone, State::CopyBoth { server_done: false, .. }) => {
                Some(State::CopyBoth { client_done: false, server_done: true })
            }
            // A walsender that shuts down says so with CommandComplete alone (WalSndDone in walsender.c).
            (Message::CommandComplete(_), State::CopyBoth { .. }) => Some(State::Busy),
            (
                Message::BindComplete
                | Message::CloseComplete
                | Message::CommandComplete(_)
                | Message::DataRow(_)
                | Message::EmptyQueryResponse
                | Message::FunctionCallResponse(_)
                | Message::NoData
                | Message::ParameterDescription(_)
                | Message::ParseComplete
                | Message::PortalSuspended
                | Message::RowDescription(_),
                State::Busy,
            ) => Some(State::Busy),
            _ => None,
        };
        self.state = next.ok_or_else(|| self.unexpected(message.name()))?;
        Ok(())
    }

    fn unexpected(&self, got: &'static str) -> SessionError {
        SessionError { got, expected: self.state.expected() }
    }
}

fn after_error(notice: &Notice, state: State) -> Option<State> {
    match state {
        _ if notice.is_fatal() => Some(State::Closed),
        // Whatever its severity, an error before the session is ready ends it.
        State::Startup | State::Auth | State::Starting => Some(State::Closed),
        State::Busy | State::CopyIn | State::CopyOut | State::CopyBoth { .. } => Some(State::Busy),
        State::Idle | State::Closed => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Format;
    use crate::backend::{CopyFormat, TransactionStatus};

    const READY: Message = Message::ReadyForQuery(TransactionStatus::Idle);
    const DATA: Message = Message::CopyData(Bytes::new());

    fn copy_format() -> CopyFormat {
        CopyFormat { overall: Format::Text, columns: vec![] }
    }

    fn error(severity: &str) -> Message {
        let body = format!("S{severity}\0C57P01\0Mgone\0\0");
        Message::ErrorResponse(Notice::parse(Bytes::from(body)).unwrap())
    }

    fn idle() -> Session {
        let mut session = Session::new();
        for message in [
            Message::Authentication(AuthenticationRequest::CleartextPassword),
            Message::Authentication(AuthenticationRequest::Ok),
            Message::ParameterStatus { name: "a".into(), value: "b".into() },
            Message::BackendKeyData { pid: 1, key: Bytes::from_static(b"key!") },
            READY,
        ] {
            assert!(!session.is_idle());
            session.received(&message).unwrap();
        }
        assert!(session.is_idle());
        session
    }

    #[test]
    fn a_row_before_login_is_refused_by_name() {
        let error = Session::new().received(&Message::CopyDone).unwrap_err();
        assert_eq!(error.to_string(), "protocol violation: got CopyDone, expected an authentication request");
    }

    #[test]
    fn results_come_only_after_a_command() {
        let mut session = idle();
        assert!(session.received(&Message::ParseComplete).is_err());
        assert!(session.received(&READY).is_err());
        session.sent_extended();
        session.received(&Message::ParseComplete).unwrap();
        assert!(session.received(&READY).is_err(), "no Sync was sent");
    }

    #[test]
    fn a_pipeline_is_idle_after_its_last_answer() {
        let mut session = idle();
        session.sent_query_or_sync();
        session.sent_query_or_sync();
        session.received(&READY).unwrap();
        assert!(!session.is_idle());
        assert_eq!(session.awaited(), 1);
        session.received(&error("ERROR")).unwrap();
        session.received(&READY).unwrap();
        assert!(session.is_idle());
    }

    #[test]
    fn a_copy_in_gives_no_result_before_the_client_ends_it() {
        let mut session = idle();
        session.sent_query_or_sync();
        session.received(&Message::CopyInResponse(copy_format())).unwrap();
        assert!(session.received(&READY).is_err());
        assert!(session.received(&DATA).is_err());
        session.sent_copy_end();
        session.received(&READY).unwrap();
    }

    #[test]
    fn a_copy_out_ends_with_copy_done_or_an_error() {
        for end in [Message::CopyDone, error("ERROR")] {
            let mut session = idle();
            session.sent_query_or_sync();
            session.received(&Message::CopyOutResponse(copy_format())).unwrap();
            session.received(&DATA).unwrap();
            assert!(session.received(&READY).is_err());
            session.received(&end).unwrap();
            assert!(session.received(&DATA).is_err());
            session.received(&READY).unwrap();
        }
    }

    #[test]
    fn copy_both_lasts_until_both_sides_are_done() {
        for client_first in [true, false] {
            let mut session = idle();
            session.sent_query_or_sync();
            session.received(&Message::CopyBothResponse(copy_format())).unwrap();
            session.received(&DATA).unwrap();
            if client_first {
                session.sent_copy_end();
                session.received(&DATA).unwrap();
                session.received(&Message::CopyDone).unwrap();
            } else {
                session.received(&Message::CopyDone).unwrap();
                assert!(session.received(&DATA).is_err());
                session.sent_copy_end();
            }
            session.received(&READY).unwrap();
        }
    }

    #[test]
    fn a_fatal_error_ends_the_session_at_any_point() {
        let mut session = idle();
        assert!(session.received(&error("ERROR")).is_err(), "an error without a command");
        session.received(&error("FATAL")).unwrap();
        assert!(session.is_closed());
        assert!(session.received(&READY).is_err());
        let mut session = Session::new();
        session.received(&error("ERROR")).unwrap();
        assert!(session.is_closed());
    }
}

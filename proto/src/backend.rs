//! Messages of the server.
//!
//! In: a [`Frame`]. Out: a [`Message`] that keeps slices of the frame's bytes. Fails with message and field when the body doesn't have the
//! form of its type. Formats: the manual's "Message Formats".

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::Format;
use crate::cursor::{Cursor, ParseError};
use crate::frame::Frame;
use crate::notice::Notice;

/// The type bytes of a server's messages.
pub mod tag {
    #![allow(missing_docs)]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A step of the login.
    Authentication(AuthenticationRequest),
    /// What a cancel request must show.
    BackendKeyData {
        /// The process ID of the session's backend.
        pid: u32,
        /// The secret: 4 bytes in protocol 3.0, up to 256 in 3.2.
        key: Bytes,
    },
    /// A Bind succeeded.
    BindComplete,
    /// A Close succeeded.
    CloseComplete,
    /// A statement succeeded.
    CommandComplete(CommandTag),
    /// The replication stream begins, both ways.
    CopyBothResponse(CopyFormat),
    /// A piece of a COPY or of the replication stream.
    CopyData(Bytes),
    /// The server's side of a COPY ends.
    CopyDone,
    /// The server is ready for the data of COPY FROM STDIN.
    CopyInResponse(CopyFormat),
    /// The data of COPY TO STDOUT follow.
    CopyOutResponse(CopyFormat),
    /// A row.
    DataRow(DataRow),
    /// The statement was empty.
    EmptyQueryResponse,
    /// An error.
    ErrorResponse(Notice),
    /// A function call's result; `None` is NULL.
    FunctionCallResponse(Option<Bytes>),
    /// The server knows only an older protocol, or not all `_pq_.` parameters.
    NegotiateProtocolVersion {
        /// The newest version the server has, such as 0x0003_0000.
        version: u32,
        /// The parameters it doesn't know.
        unrecognized: Vec<String>,
    },
    /// A statement gives no rows.
    NoData,
    /// A notice or warning.
    NoticeResponse(Notice),
    /// A NOTIFY.
    NotificationResponse {
        /// The process ID of the backend that notified.
        pid: u32,
        /// The channel.
        channel: String,
        /// The payload.
        payload: String,
    },
    /// The type OIDs of a prepared statement's parameters.
    ParameterDescription(Vec<u32>),
    /// A setting's value, now.
    ParameterStatus {
        /// The setting.
        name: String,
        /// Its value.
        value: String,
    },
    /// A Parse succeeded.
    ParseComplete,
    /// An Execute reached its row limit.
    PortalSuspended,
    /// The server waits for the next command.
    ReadyForQuery(TransactionStatus),
    /// The columns of the rows to come.
    RowDescription(Vec<Field>),
}

/// What the server asks for during login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticationRequest {
    /// Login is done.
    Ok,
    /// Kerberos V5, which PostgreSQL gave up in 9.3.
    KerberosV5,
    /// The password itself.
    CleartextPassword,
    /// The password, hashed with the user's name and this salt.
    Md5Password {
        /// The salt.
        salt: [u8; 4],
    },
    /// A Unix socket's credentials, which PostgreSQL gave up in 9.1.
    ScmCredential,
    /// GSSAPI.
    Gss,
    /// More GSSAPI or SSPI data.
    GssContinue(Bytes),
    /// SSPI.
    Sspi,
    /// One of these SASL mechanisms, the server's favourite first.
    Sasl(Vec<String>),
    /// The server's SASL challenge.
    SaslContinue(Bytes),
    /// The end of the SASL exchange.
    SaslFinal(Bytes),
    /// A method that this crate doesn't know.
    Other(u32),
}

/// Where the session stands between two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction.
    Idle,
    /// In a transaction.
    InTransaction,
    /// In a transaction that has failed.
    Failed,
}

/// How a COPY's data are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFormat {
    /// Of the stream as a whole.
    pub overall: Format,
    /// Of each column.
    pub columns: Vec<Format>,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The column's name.
    pub name: String,
    /// The table's OID, or 0 when the column isn't a table's.
    pub table_oid: u32,
    /// The attribute number in that table, or 0.
    pub attribute: i16,
    /// The data type's OID.
    pub type_oid: u32,
    /// The data type's size; negative for variable-width types.
    pub type_size: i16,
    /// The type modifier, -1 for none.
    pub type_modifier: i32,
    /// How values are written.
    pub format: Format,
}

/// What a statement did, such as `INSERT 0 5`.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandTag(Bytes);

impl CommandTag {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The number of rows that the statement gave or changed, where its kind has one.
    pub fn rows(&self) -> Option<u64> {
        self.as_str().rsplit_once(' ')?.1.parse().ok()
    }
}

impl fmt::Debug for CommandTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A row of a result: the message's bytes, and where in them each value stands.
#[derive(Clone, PartialEq, Eq)]
pub struct DataRow {
    body: Bytes,
    values: Box<[Option<Range<u32>>]>,
}

impl DataRow {
    fn parse(body: Bytes) -> Result<DataRow, ParseError> {
        let mut cursor = Cursor::new("DataRow", body.clone());
        let count = cursor.u16("column count")?;
        let mut values = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            values.push(match cursor.nullable_len("value length")? {
                None => None,
                Some(len) => {
                    let start = cursor.position() as u32;
                    cursor.skip(len, "value")?;
                    Some(start..cursor.position() as u32)
                }
            });
        }
        cursor.finish()?;
        Ok(DataRow { body, values: values.into() })
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the row has no columns.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of column `index`, from 0; `None` when it is NULL or there is no such column.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let range = self.values.get(index)?.as_ref()?;
        self.body.get(range.start as usize..range.end as usize)
    }

    /// Like [`DataRow::get`], sharing the row's bytes.
    pub fn bytes(&self, index: usize) -> Option<Bytes> {
        self.get(index).map(|value| self.body.slice_ref(value))
    }
}

impl fmt::Debug for DataRow {
    /// Shows no values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataRow({} columns, {} bytes)", self.len(), self.body.len())
    }
}

impl Message {
    /// Reads the message in `frame`.
    pub fn parse(frame: Frame) -> Result<Message, ParseError> {
        let Frame { tag, body } = frame;
        // What a relay or an applier meets most comes first and needs no cursor.
        match tag {
            tag::COPY_DATA => return Ok(Message::CopyData(body)),
            tag::DATA_ROW => return DataRow::parse(body).map(Message::DataRow),
            tag::ERROR_RESPONSE => return Notice::parse(body).map(Message::ErrorResponse),
            tag::NOTICE_RESPONSE => return Notice::parse(body).map(Message::NoticeResponse),
            _ => {}
        }
        let Some(name) = name_of(tag) else {
            return Err(ParseError::unknown_tag("backend", tag));
        };
        let mut cursor = Cursor::new(name, body);
        let message = Message::parse_body(tag, &mut cursor)?;
        cursor.finish()?;
        Ok(message)
    }

    fn parse_body(tag: u8, cursor: &mut Cursor) -> Result<Message, ParseError> {
        Ok(match tag {
            tag::AUTHENTICATION => Message::Authentication(AuthenticationRequest::parse(cursor)?),
            tag::BACKEND_KEY_DATA => {
                let pid = cursor.u32("process ID")?;
                let len = cursor.remaining();
                // Protocol 3.2 allows 4 to 256 bytes.
                if !(4..=256).contains(&len) {
                    return Err(cursor.invalid("key length", len as i64));
                }
                Message::BackendKeyData { pid, key: cursor.bytes(len, "key")? }
            }
            tag::BIND_COMPLETE => Message::BindComplete,
            tag::CLOSE_COMPLETE => Message::CloseComplete,
            tag::COMMAND_COMPLETE => Message::CommandComplete(CommandTag(cursor.cstr("command tag")?)),
            tag::COPY_BOTH_RESPONSE => Message::CopyBothResponse(CopyFormat::parse(cursor)?),
            tag::COPY_DONE => Message::CopyDone,
            tag::COPY_IN_RESPONSE => Message::CopyInResponse(CopyFormat::parse(cursor)?),
            tag::COPY_OUT_RESPONSE => Message::CopyOutResponse(CopyFormat::parse(cursor)?),
            tag::EMPTY_QUERY_RESPONSE => Message::EmptyQueryResponse,
            tag::FUNCTION_CALL_RESPONSE => {
                Message::FunctionCallResponse(match cursor.nullable_len("length")? {
                    None => None,
                    Some(len) => Some(cursor.bytes(len, "result")?),
                })
            }
            tag::NEGOTIATE_PROTOCOL_VERSION => {
                let version = cursor.u32("version")?;
                let count = cursor.len("number of options")?;
                // The count isn't a reason to allocate: each name takes at least its zero byte.
                let mut unrecognized = Vec::with_capacity(count.min(cursor.remaining()));
                for _ in 0..count {
                    unrecognized.push(cursor.lossy("option")?);
                }
                Message::NegotiateProtocolVersion { version, unrecognized }
            }
            tag::NO_DATA => Message::NoData,
            tag::NOTIFICATION_RESPONSE => Message::NotificationResponse {
                pid: cursor.u32("process ID")?,
                channel: cursor.lossy("channel")?,
                payload: cursor.lossy("payload")?,
            },
            tag::PARAMETER_DESCRIPTION => {
                let count = cursor.u16("number of parameters")?;
                let oids = (0..count).map(|_| cursor.u32("type OID"));
                Message::ParameterDescription(oids.collect::<Result<_, _>>()?)
            }
            tag::PARAMETER_STATUS => {
                Message::ParameterStatus { name: cursor.lossy("name")?, value: cursor.lossy("value")? }
            }
            tag::PARSE_COMPLETE => Message::ParseComplete,
            tag::PORTAL_SUSPENDED => Message::PortalSuspended,
            tag::READY_FOR_QUERY => Message::ReadyForQuery(match cursor.u8("transaction status")? {
                b'I' => TransactionStatus::Idle,
                b'T' => TransactionStatus::InTransaction,
                b'E' => TransactionStatus::Failed,
                status => return Err(cursor.invalid("transaction status", status)),
            }),
            tag::ROW_DESCRIPTION => {
                let count = cursor.u16("number of fields")?;
                Message::RowDescription((0..count).map(|_| Field::parse(cursor)).collect::<Result<_, _>>()?)
            }
            _ => return Err(ParseError::unknown_tag("backend", tag)),
        })
    }

    /// The protocol's name of the message.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Authentication(_) => "Authentication",
            Message::BackendKeyData { .. } => "BackendKeyData",
            Message::BindComplete => "BindComplete",
            Message::CloseComplete => "CloseComplete",
            Message::CommandComplete(_) => "CommandComplete",
            Message::CopyBothResponse(_) => "CopyBothResponse",
            Message::CopyData(_) => "CopyData",
            Message::CopyDone => "CopyDone",
            Message::CopyInResponse(_) => "CopyInResponse",
            Message::CopyOutResponse(_) => "CopyOutResponse",
            Message::DataRow(_) => "DataRow",
            Message::EmptyQueryResponse => "EmptyQueryResponse",
            Message::ErrorResponse(_) => "ErrorResponse",
            Message::FunctionCallResponse(_) => "FunctionCallResponse",
            Message::NegotiateProtocolVersion { .. } => "NegotiateProtocolVersion",
            Message::NoData => "NoData",
            Message::NoticeResponse(_) => "NoticeResponse",
            Message::NotificationResponse { .. } => "NotificationResponse",
            Message::ParameterDescription(_) => "ParameterDescription",
            Message::ParameterStatus { .. } => "ParameterStatus",
            Message::ParseComplete => "ParseComplete",
            Message::PortalSuspended => "PortalSuspended",
            Message::ReadyForQuery(_) => "ReadyForQuery",
            Message::RowDescription(_) => "RowDescription",
        }
    }
}

/// The protocol's name of the messages with this type byte.
pub fn name_of(tag: u8) -> Option<&'static str> {
    Some(match tag {
        tag::AUTHENTICATION => "Authentication",
        tag::BACKEND_KEY_DATA => "BackendKeyData",
        tag::BIND_COMPLETE => "BindComplete",
        tag::CLOSE_COMPLETE => "CloseComplete",
        tag::COMMAND_COMPLETE => "CommandComplete",
        tag::COPY_BOTH_RESPONSE => "CopyBothResponse",
        tag::COPY_DATA => "CopyData",
        tag::COPY_DONE => "CopyDone",
        tag::COPY_IN_RESPONSE => "CopyInResponse",
        tag::COPY_OUT_RESPONSE => "CopyOutResponse",
        tag::DATA_ROW => "DataRow",
        tag::EMPTY_QUERY_RESPONSE => "EmptyQueryResponse",
        tag::ERROR_RESPONSE => "ErrorResponse",
        tag::FUNCTION_CALL_RESPONSE => "FunctionCallResponse",
        tag::NEGOTIATE_PROTOCOL_VERSION => "NegotiateProtocolVersion",
        tag::NO_DATA => "NoData",
        tag::NOTICE_RESPONSE => "NoticeResponse",
        tag::NOTIFICATION_RESPONSE => "NotificationResponse",
        tag::PARAMETER_DESCRIPTION => "ParameterDescription",
        tag::PARAMETER_STATUS => "ParameterStatus",
        tag::PARSE_COMPLETE => "ParseComplete",
        tag::PORTAL_SUSPENDED => "PortalSuspended",
        tag::READY_FOR_QUERY => "ReadyForQuery",
        tag::ROW_DESCRIPTION => "RowDescription",
        _ => return None,
    })
}

impl AuthenticationRequest {
    fn parse(cursor: &mut Cursor) -> Result<AuthenticationRequest, ParseError> {
        let rest = |cursor: &mut Cursor| cursor.bytes(cursor.remaining(), "data");
        Ok(match cursor.u32("method")? {
            0 => AuthenticationRequest::Ok,
            2 => AuthenticationRequest::KerberosV5,
            3 => AuthenticationRequest::CleartextPassword,
            5 => AuthenticationRequest::Md5Password { salt: cursor.array("salt")? },
            6 => AuthenticationRequest::ScmCredential,
            7 => AuthenticationRequest::Gss,
            8 => AuthenticationRequest::GssContinue(rest(cursor)?),
            9 => AuthenticationRequest::Sspi,
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let mechanism = cursor.lossy("SASL mechanism")?;
                    if mechanism.is_empty() {
                        break AuthenticationRequest::Sasl(mechanisms);
                    }
                    mechanisms.push(mechanism);
                }
            }
            11 => AuthenticationRequest::SaslContinue(rest(cursor)?),
            12 => AuthenticationRequest::SaslFinal(rest(cursor)?),
            code => {
                rest(cursor)?;
                AuthenticationRequest::Other(code)
            }
        })
    }
}

impl CopyFormat {
    fn parse(cursor: &mut Cursor) -> Result<CopyFormat, ParseError> {
        let overall = match cursor.u8("overall format")? {
            0 => Format::Text,
            1 => Format::Binary,
            code => return Err(cursor.invalid("overall format", code)),
        };
        let count = cursor.u16("number of columns")?;
        let columns = (0..count).map(|_| cursor.format("column format")).collect::<Result<_, _>>()?;
        Ok(CopyFormat { overall, columns })
    }
}

impl Field {
    fn parse(cursor: &mut Cursor) -> Result<Field, ParseError> {
        Ok(Field {
            name: cursor.lossy("name")?,
            table_oid: cursor.u32("table OID")?,
            attribute: cursor.i16("attribute number")?,
            type_oid: cursor.u32("type OID")?,
            type_size: cursor.i16("type size")?,
            type_modifier: cursor.i32("type modifier")?,
            format: cursor.format("format")?,
        })
    }
}

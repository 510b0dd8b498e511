//! Messages to the server, each appended to a buffer.
//!
//! In: names, statements, values. Out: the message at the buffer's end. Fails, leaving the buffer as it was, when a string holds a zero
//! byte, when there are more items than the protocol can count, or when a length passes what 31 bits hold.
//! Formats: the manual's "Message Formats".

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::Format;

/// Protocol 3.0, which every server since 7.4 speaks.
pub const VERSION_3_0: u32 = 3 << 16;

/// Protocol 3.2 (PostgreSQL 18): cancel keys of up to 256 bytes. Older servers answer with NegotiateProtocolVersion.
pub const VERSION_3_2: u32 = 3 << 16 | 2;

/// What a 16-bit count holds.
const MAX_ITEMS: usize = u16::MAX as usize;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;

/// A message can't be written in the protocol's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// A string with a zero byte, which ends strings in the protocol.
    ZeroByte {
        /// The protocol's name of the message.
        message: &'static str,
        /// Which of its strings.
        field: &'static str,
    },
    /// More items than can be counted.
    TooMany {
        /// The protocol's name of the message.
        message: &'static str,
        /// The items.
        items: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A message of 2 GiB or more.
    TooLong {
        /// The protocol's name of the message.
        message: &'static str,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::ZeroByte { message, field } => {
                write!(f, "cannot send {message}: {field} contains a zero byte")
            }
            EncodeError::TooMany { message, items, limit } => {
                write!(f, "cannot send {message}: more than {limit} {items}")
            }
            EncodeError::TooLong { message } => {
                write!(f, "cannot send {message}: it would be longer than 2 GiB")
            }
        }
    }
}

impl std::error::Error for EncodeError {}

/// A message being written. Its length is filled in at the end, and an error takes all of it back.
struct Writer<'a> {
    message: &'static str,
    out: &'a mut BytesMut,
}

impl Writer<'_> {
    fn zero_terminated(&mut self, field: &'static str, text: &[u8]) -> Result<(), EncodeError> {
        if text.contains(&0) {
            return Err(EncodeError::ZeroByte { message: self.message, field });
        }
        self.out.put_slice(text);
        self.out.put_u8(0);
        Ok(())
    }

    fn length(&mut self, len: usize) -> Result<(), EncodeError> {
        let len = i32::try_from(len).map_err(|_| EncodeError::TooLong { message: self.message })?;
        self.out.put_i32(len);
        Ok(())
    }

    fn count(&mut self, count: usize, items: &'static str) -> Result<(), EncodeError> {
        let count = u16::try_from(count).map_err(|_| EncodeError::TooMany {
            message: self.message,
            items,
            limit: MAX_ITEMS,
        })?;
        self.out.put_u16(count);
        Ok(())
    }

    fn formats(&mut self, formats: &[Format], items: &'static str) -> Result<(), EncodeError> {
        self.count(formats.len(), items)?;
        for format in formats {
            self.out.put_i16(format.code());
        }
        Ok(())
    }
}

fn write(
    message: &'static str,
    tag: Option<u8>,
    out: &mut BytesMut,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    if let Some(tag) = tag {
        out.put_u8(tag);
    }
    let length_at = out.len();
    out.put_i32(0);
    let written = body(&mut Writer { message, out })
        .and_then(|()| i32::try_from(out.len() - length_at).map_err(|_| EncodeError::TooLong { message }));
    match written {
        Ok(len) => {
            out[length_at..length_at + 4].copy_from_slice(&len.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// A message with no body.
fn empty(tag: u8, out: &mut BytesMut) {
    out.put_u8(tag);
    out.put_i32(4);
}

/// Opens a session; `version` is [`VERSION_3_0`] or [`VERSION_3_2`]. `parameters` are `user`, `database` and settings.
pub fn startup<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    version: u32,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write("StartupMessage", None, out, |writer| {
        writer.out.put_u32(version);
        for (name, value) in parameters {
            writer.zero_terminated("parameter name", name.as_bytes())?;
            writer.zero_terminated("parameter value", value.as_bytes())?;
        }
        writer.out.put_u8(0);
        Ok(())
    })
}

/// Asks for TLS; the server answers with one byte, `S` or `N`.
pub fn ssl_request(out: &mut BytesMut) {
    out.put_i32(8);
    out.put_u32(SSL_REQUEST);
}

/// Asks, on a connection of its own, to cancel what the session of BackendKeyData's `pid` and `key` runs.
pub fn cancel_request(pid: u32, key: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    write("CancelRequest", None, out, |writer| {
        writer.out.put_u32(CANCEL_REQUEST);
        writer.out.put_u32(pid);
        writer.out.put_slice(key);
        Ok(())
    })
}

/// Answers a request for a password, cleartext or hashed.
pub fn password(password: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    write("PasswordMessage", Some(b'p'), out, |writer| writer.zero_terminated("password", password))
}

/// Chooses a SASL mechanism and sends its first message.
pub fn sasl_initial_response(mechanism: &str, data: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    write("SASLInitialResponse", Some(b'p'), out, |writer| {
        writer.zero_terminated("mechanism", mechanism.as_bytes())?;
        writer.length(data.len())?;
        writer.out.put_slice(data);
        Ok(())
    })
}

/// Goes on with the SASL exchange.
pub fn sasl_response(data: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    write("SASLResponse", Some(b'p'), out, |writer| {
        writer.out.put_slice(data);
        Ok(())
    })
}

/// Runs statements by the simple protocol.
pub fn query(sql: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    write("Query", Some(b'Q'), out, |writer| writer.zero_terminated("statement", sql.as_bytes()))
}

/// Prepares a statement; an OID of 0 leaves that parameter's type to the server.
pub fn parse(name: &str, sql: &str, param_oids: &[u32], out: &mut BytesMut) -> Result<(), EncodeError> {
    write("Parse", Some(b'P'), out, |writer| {
        writer.zero_terminated("name", name.as_bytes())?;
        writer.zero_terminated("statement", sql.as_bytes())?;
        writer.count(param_oids.len(), "parameters")?;
        for &oid in param_oids {
            writer.out.put_u32(oid);
        }
        Ok(())
    })
}

/// Makes a portal of a prepared statement. No formats mean text, one format holds for all.
pub fn bind<'a>(
    portal: &str,
    statement: &str,
    param_formats: &[Format],
    params: impl IntoIterator<Item = Option<&'a [u8]>>,
    result_formats: &[Format],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write("Bind", Some(b'B'), out, |writer| {
        writer.zero_terminated("portal", portal.as_bytes())?;
        writer.zero_terminated("name", statement.as_bytes())?;
        writer.formats(param_formats, "parameter formats")?;
        let count_at = writer.out.len();
        writer.count(0, "parameters")?;
        let mut count = 0_usize;
        for param in params {
            match param {
                None => writer.out.put_i32(-1),
                Some(value) => {
                    writer.length(value.len())?;
                    writer.out.put_slice(value);
                }
            }
            count += 1;
        }
        let count = u16::try_from(count).map_err(|_| EncodeError::TooMany {
            message: "Bind",
            items: "parameters",
            limit: MAX_ITEMS,
        })?;
        writer.out[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
        writer.formats(result_formats, "result formats")
    })
}

/// Asks for the parameter types and columns of a prepared statement.
pub fn describe_statement(name: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    named("Describe", b'D', b'S', name, out)
}

/// Asks for the columns of a portal.
pub fn describe_portal(name: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    named("Describe", b'D', b'P', name, out)
}

/// Drops a prepared statement.
pub fn close_statement(name: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    named("Close", b'C', b'S', name, out)
}

/// Drops a portal.
pub fn close_portal(name: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    named("Close", b'C', b'P', name, out)
}

fn named(
    message: &'static str,
    tag: u8,
    kind: u8,
    name: &str,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write(message, Some(tag), out, |writer| {
        writer.out.put_u8(kind);
        writer.zero_terminated("name", name.as_bytes())
    })
}

/// Runs a portal; `max_rows` of 0 means all rows.
pub fn execute(portal: &str, max_rows: u32, out: &mut BytesMut) -> Result<(), EncodeError> {
    write("Execute", Some(b'E'), out, |writer| {
        writer.zero_terminated("portal", portal.as_bytes())?;
        writer.length(max_rows as usize)
    })
}

/// Ends a series of extended-protocol messages, and the implicit transaction around them.
pub fn sync(out: &mut BytesMut) {
    empty(b'S', out);
}

/// Asks for the answers so far.
pub fn flush(out: &mut BytesMut) {
    empty(b'H', out);
}

/// The header of a CopyData message whose `len` bytes of body the caller sends next.
pub fn copy_data_header(len: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    let declared = len.checked_add(4).and_then(|declared| i32::try_from(declared).ok());
    let declared = declared.ok_or(EncodeError::TooLong { message: "CopyData" })?;
    out.put_u8(b'd');
    out.put_i32(declared);
    Ok(())
}

/// Ends a COPY FROM STDIN, or the client's side of CopyBoth.
pub fn copy_done(out: &mut BytesMut) {
    empty(b'c', out);
}

/// Makes a COPY FROM STDIN fail; the server's error shows `reason`.
pub fn copy_fail(reason: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    write("CopyFail", Some(b'f'), out, |writer| writer.zero_terminated("reason", reason.as_bytes()))
}

/// Ends the session.
pub fn terminate(out: &mut BytesMut) {
    empty(b'X', out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    }

    #[test]
    fn messages_have_the_manuals_form() {
        assert_eq!(
            bytes(|out| startup([("user", "u"), ("database", "d")], VERSION_3_0, out).unwrap()),
            *b"\0\0\0\x1b\0\x03\0\0user\0u\0database\0d\0\0"
        );
        assert_eq!(bytes(ssl_request), [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]);
        assert_eq!(
            bytes(|out| cancel_request(258, b"secret", out).unwrap()),
            b"\0\0\0\x12\x04\xd2\x16\x2e\0\0\x01\x02secret"
        );
        assert_eq!(bytes(|out| query("SELECT 1", out).unwrap()), b"Q\0\0\0\x0dSELECT 1\0");
        assert_eq!(
            bytes(|out| parse("s", "SELECT $1", &[25], out).unwrap()),
            b"P\0\0\0\x16s\0SELECT $1\0\0\x01\0\0\0\x19"
        );
        assert_eq!(
            bytes(|out| {
                bind("", "s", &[Format::Binary], [None, Some(&b"ab"[..])], &[Format::Text], out).unwrap();
            }),
            b"B\0\0\0\x1b\0s\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x02ab\0\x01\0\0"
        );
        assert_eq!(bytes(|out| execute("", 0, out).unwrap()), b"E\0\0\0\x09\0\0\0\0\0");
        assert_eq!(bytes(|out| describe_statement("s", out).unwrap()), b"D\0\0\0\x07Ss\0");
        assert_eq!(bytes(|out| describe_portal("", out).unwrap()), b"D\0\0\0\x06P\0");
        assert_eq!(bytes(|out| close_statement("s", out).unwrap()), b"C\0\0\0\x07Ss\0");
        assert_eq!(bytes(|out| close_portal("", out).unwrap()), b"C\0\0\0\x06P\0");
        assert_eq!(bytes(sync), b"S\0\0\0\x04");
        assert_eq!(bytes(flush), b"H\0\0\0\x04");
        assert_eq!(bytes(|out| copy_data_header(3, out).unwrap()), b"d\0\0\0\x07");
        assert_eq!(bytes(copy_done), b"c\0\0\0\x04");
        assert_eq!(bytes(|out| copy_fail("no", out).unwrap()), b"f\0\0\0\x07no\0");
        assert_eq!(bytes(terminate), b"X\0\0\0\x04");
        assert_eq!(bytes(|out| password(b"pw", out).unwrap()), b"p\0\0\0\x07pw\0");
        assert_eq!(
            bytes(|out| sasl_initial_response("M", b"ab", out).unwrap()),
            b"p\0\0\0\x0cM\0\0\0\0\x02ab"
        );
        assert_eq!(bytes(|out| sasl_response(b"ab", out).unwrap()), b"p\0\0\0\x06ab");
    }

    #[test]
    fn a_refused_message_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        let zero = query("SELECT 1;\0 DROP TABLE t", &mut out).unwrap_err();
        assert_eq!(zero.to_string(), "cannot send Query: statement contains a zero byte");
        let many = bind("", "", &[], std::iter::repeat_n(None, 65_536), &[], &mut out).unwrap_err();
        assert_eq!(many.to_string(), "cannot send Bind: more than 65535 parameters");
        assert!(copy_data_header(i32::MAX as usize - 3, &mut out).is_err());
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn all_65535_parameters_can_be_bound() {
        let mut out = BytesMut::new();
        bind("", "", &[], std::iter::repeat_n(None, 65_535), &[], &mut out).unwrap();
        assert_eq!(out.len(), 1 + 4 + 1 + 1 + 2 + 2 + 4 * 65_535 + 2);
    }
}

//! The one place that takes a peer's bytes apart.
//!
//! In: the body of one message. Out: its fields in order, as slices of the same allocation. Fails, naming message and
//! field, when the body ends inside a field, when a field has a value that the protocol doesn't know, and when bytes are left over.

use std::fmt;

use bytes::{Buf, Bytes};

use crate::Format;
use crate::lsn::Lsn;

/// A message's body doesn't have the form that the protocol gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    message: &'static str,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    Short { field: &'static str },
    NoTerminator { field: &'static str },
    NotUtf8 { field: &'static str },
    Value { field: &'static str, value: i64 },
    Leftover { bytes: usize },
    UnknownTag { tag: u8 },
    Unexpected { what: &'static str },
}

impl ParseError {
    /// A field holds a value that the protocol doesn't define.
    pub(crate) fn value(message: &'static str, field: &'static str, value: impl Into<i64>) -> ParseError {
        ParseError { message, reason: Reason::Value { field, value: value.into() } }
    }

    /// The message's type byte is none that the protocol defines here.
    pub(crate) fn unknown_tag(message: &'static str, tag: u8) -> ParseError {
        ParseError { message, reason: Reason::UnknownTag { tag } }
    }

    /// The message is well formed but may not come at this point.
    pub(crate) fn unexpected(message: &'static str, what: &'static str) -> ParseError {
        ParseError { message, reason: Reason::Unexpected { what } }
    }

    /// The name of the message that was being read.
    pub fn message(&self) -> &'static str {
        self.message
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {} message: ", self.message)?;
        match &self.reason {
            Reason::Short { field } => write!(f, "it ends inside {field}"),
            Reason::NoTerminator { field } => write!(f, "{field} has no terminating zero byte"),
            Reason::NotUtf8 { field } => write!(f, "{field} is not valid UTF-8"),
            Reason::Value { field, value } => write!(f, "unexpected value {value} for {field}"),
            Reason::Leftover { bytes } => write!(f, "{bytes} bytes are left over"),
            Reason::UnknownTag { tag } => write!(f, "unrecognized type \"{}\"", tag.escape_ascii()),
            Reason::Unexpected { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for ParseError {}

/// Reads the fields of one message, front to back.
#[derive(Debug)]
pub(crate) struct Cursor {
    message: &'static str,
    rest: Bytes,
    len: usize,
}

impl Cursor {
    /// Starts at the first byte of `body`; `message` is the name used in errors.
    pub(crate) fn new(message: &'static str, body: Bytes) -> Cursor {
        Cursor { message, len: body.len(), rest: body }
    }

    /// Gives the message another name, once its kind is known.
    pub(crate) fn rename(&mut self, message: &'static str) {
        self.message = message;
    }

    /// How many bytes were read, which is where in the body the next field starts.
    pub(crate) fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Whether all bytes were read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// An error about `field`'s value.
    pub(crate) fn invalid(&self, field: &'static str, value: impl Into<i64>) -> ParseError {
        ParseError::value(self.message, field, value)
    }

    fn need(&self, bytes: usize, field: &'static str) -> Result<(), ParseError> {
        if self.rest.len() < bytes {
            return Err(ParseError { message: self.message, reason: Reason::Short { field } });
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, ParseError> {
        self.need(1, field)?;
        Ok(self.rest.get_u8())
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16, ParseError> {
        self.need(2, field)?;
        Ok(self.rest.get_i16())
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, ParseError> {
        self.need(2, field)?;
        Ok(self.rest.get_u16())
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, ParseError> {
        self.need(4, field)?;
        Ok(self.rest.get_i32())
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, ParseError> {
        self.need(4, field)?;
        Ok(self.rest.get_u32())
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, ParseError> {
        self.need(8, field)?;
        Ok(self.rest.get_i64())
    }

    pub(crate) fn lsn(&mut self, field: &'static str) -> Result<Lsn, ParseError> {
        self.need(8, field)?;
        Ok(Lsn(self.rest.get_u64()))
    }

    /// The next `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize, field: &'static str) -> Result<Bytes, ParseError> {
        self.need(len, field)?;
        Ok(self.rest.split_to(len))
    }

    /// Passes over the next `len` bytes.
    pub(crate) fn skip(&mut self, len: usize, field: &'static str) -> Result<(), ParseError> {
        self.need(len, field)?;
        self.rest.advance(len);
        Ok(())
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ParseError> {
        self.need(N, field)?;
        let mut array = [0; N];
        self.rest.copy_to_slice(&mut array);
        Ok(array)
    }

    /// A 32-bit length that is not negative.
    pub(crate) fn len(&mut self, field: &'static str) -> Result<usize, ParseError> {
        let value = self.i32(field)?;
        usize::try_from(value).map_err(|_| self.invalid(field, value))
    }

    /// A 32-bit length of a value, where -1 means NULL.
    pub(crate) fn nullable_len(&mut self, field: &'static str) -> Result<Option<usize>, ParseError> {
        match self.i32(field)? {
            -1 => Ok(None),
            value => usize::try_from(value).map(Some).map_err(|_| self.invalid(field, value)),
        }
    }

    /// A format code.
    pub(crate) fn format(&mut self, field: &'static str) -> Result<Format, ParseError> {
        match self.i16(field)? {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            code => Err(self.invalid(field, code)),
        }
    }

    /// The bytes before the next zero byte, which is passed over.
    pub(crate) fn cstr(&mut self, field: &'static str) -> Result<Bytes, ParseError> {
        match self.rest.iter().position(|&byte| byte == 0) {
            Some(end) => {
                let bytes = self.rest.split_to(end);
                self.rest.advance(1);
                Ok(bytes)
            }
            None => Err(ParseError { message: self.message, reason: Reason::NoTerminator { field } }),
        }
    }

    /// A zero-terminated string that names something, so that it must be exact.
    pub(crate) fn name(&mut self, field: &'static str) -> Result<String, ParseError> {
        let bytes = self.cstr(field)?;
        match std::str::from_utf8(&bytes) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(ParseError { message: self.message, reason: Reason::NotUtf8 { field } }),
        }
    }

    /// A zero-terminated string to show; bytes that are no UTF-8 (a server reports errors in its own encoding before
    /// client_encoding is set) become replacement characters.
    pub(crate) fn lossy(&mut self, field: &'static str) -> Result<String, ParseError> {
        Ok(String::from_utf8_lossy(&self.cstr(field)?).into_owned())
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    /// Ends the message; bytes that are left over are an error.
    pub(crate) fn finish(self) -> Result<(), ParseError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(ParseError { message: self.message, reason: Reason::Leftover { bytes } }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(bytes: &'static [u8]) -> Cursor {
        Cursor::new("Test", Bytes::from_static(bytes))
    }

    #[test]
    fn a_short_read_names_message_and_field() {
        let error = cursor(b"\0\0\0").u32("oid").unwrap_err();
        assert_eq!(error.to_string(), "invalid Test message: it ends inside oid");
        let error = cursor(b"abc").cstr("name").unwrap_err();
        assert_eq!(error.to_string(), "invalid Test message: name has no terminating zero byte");
    }

    #[test]
    fn leftovers_are_an_error() {
        let mut cursor = cursor(b"a\0bc");
        assert_eq!(cursor.name("name").unwrap(), "a");
        assert_eq!(cursor.finish().unwrap_err().to_string(), "invalid Test message: 2 bytes are left over");
    }

    #[test]
    fn a_name_must_be_utf8_and_a_text_to_show_need_not() {
        assert!(cursor(b"caf\xe9\0").name("name").is_err());
        assert_eq!(cursor(b"caf\xe9\0").lossy("text").unwrap(), "caf\u{fffd}");
    }

    #[test]
    fn only_minus_one_is_a_null_length() {
        assert_eq!(cursor(&[0xff; 4]).nullable_len("length").unwrap(), None);
        assert!(cursor(&[0xff, 0xff, 0xff, 0xfe]).nullable_len("length").is_err());
        assert!(cursor(&[0xff; 4]).len("length").is_err());
    }
}

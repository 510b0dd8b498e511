//! Cutting a byte stream into frames: a type byte, a four-byte length that counts itself, and the body.
//!
//! In: a buffer that a transport fills. Out: at most one frame at a time, cut off the buffer's front without copying; `None` while the
//! frame isn't whole. Fails when a declared length is below four or above the cap for its type; nothing is ever allocated for a declared length.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::backend::tag;

/// The bytes before a frame's body: type and length.
pub const HEADER_LEN: usize = 5;

/// One message, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Bytes,
}

/// What a frame's first five bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// The body's length in bytes.
    pub len: usize,
}

impl Header {
    /// The length of the whole frame in bytes.
    pub fn frame_len(&self) -> usize {
        HEADER_LEN + self.len
    }
}

/// The largest body, in bytes, that is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For DataRow, CopyData and FunctionCallResponse: what carries values.
    pub data: usize,
    /// For what a server may make long: errors, notices, notifications and row descriptions.
    pub text: usize,
    /// For everything else.
    pub other: usize,
}

impl Limits {
    /// Before the server has proved who it is. libpq takes 30,000 bytes of error and 2,000 of everything else then; a
    /// ParameterStatus may be as long as the setting.
    pub const LOGIN: Limits = Limits { data: 0, text: 64 << 10, other: 64 << 10 };

    /// In a session. A server builds each message in memory of less than 1 GiB (MaxAllocSize).
    pub const SESSION: Limits = Limits { data: 1 << 30, text: 64 << 20, other: 1 << 20 };

    fn of(&self, tag: u8) -> usize {
        match tag {
            tag::DATA_ROW | tag::COPY_DATA | tag::FUNCTION_CALL_RESPONSE => self.data,
            tag::ERROR_RESPONSE
            | tag::NOTICE_RESPONSE
            | tag::NOTIFICATION_RESPONSE
            | tag::ROW_DESCRIPTION => self.text,
            _ => self.other,
        }
    }
}

/// The stream is no stream of PostgreSQL messages, or not one to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The declared length doesn't even cover itself.
    Length {
        /// The type byte.
        tag: u8,
        /// The length as declared, counting its own four bytes.
        declared: u32,
    },
    /// The declared body is larger than the cap for its type.
    TooLong {
        /// The type byte.
        tag: u8,
        /// The body's length.
        len: usize,
        /// The cap.
        limit: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Length { tag, declared } => {
                write!(f, "invalid length {declared} of a message of type \"{}\"", tag.escape_ascii())
            }
            FrameError::TooLong { tag, len, limit } => write!(
                f,
                "message of type \"{}\" is too long: {len} bytes, at most {limit} are accepted",
                tag.escape_ascii()
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// Reads the header at the front of `buffer`; `None` when it isn't whole yet.
pub fn peek(buffer: &[u8], limits: &Limits) -> Result<Option<Header>, FrameError> {
    let Some((&[tag, a, b, c, d], _)) = buffer.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let declared = u32::from_be_bytes([a, b, c, d]);
    let Some(len) = declared.checked_sub(4) else {
        return Err(FrameError::Length { tag, declared });
    };
    let (len, limit) = (len as usize, limits.of(tag));
    if len > limit {
        return Err(FrameError::TooLong { tag, len, limit });
    }
    Ok(Some(Header { tag, len }))
}

/// Cuts one frame off the front of `buffer`; `None` when it isn't whole yet, and then `buffer` is as it was.
pub fn split(buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Frame>, FrameError> {
    let Some(header) = peek(buffer, limits)? else {
        return Ok(None);
    };
    if buffer.len() < header.frame_len() {
        return Ok(None);
    }
    buffer.advance(HEADER_LEN);
    Ok(Some(Frame { tag: header.tag, body: buffer.split_to(header.len).freeze() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_out_only_when_it_is_whole() {
        let bytes = b"Z\0\0\0\x05I";
        for end in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..end]);
            assert_eq!(split(&mut buffer, &Limits::SESSION), Ok(None));
            assert_eq!(buffer, bytes[..end]);
        }
        let mut buffer = BytesMut::from(&b"Z\0\0\0\x05Irest"[..]);
        let frame = split(&mut buffer, &Limits::SESSION).unwrap().unwrap();
        assert_eq!(frame, Frame { tag: b'Z', body: Bytes::from_static(b"I") });
        assert_eq!(&buffer[..], b"rest");
    }

    #[test]
    fn a_length_that_does_not_cover_itself_is_refused() {
        for declared in 0..4 {
            let error = peek(&[b'Z', 0, 0, 0, declared], &Limits::SESSION).unwrap_err();
            assert_eq!(error, FrameError::Length { tag: b'Z', declared: declared.into() });
        }
        assert_eq!(peek(b"Z\0\0\0\x04", &Limits::SESSION), Ok(Some(Header { tag: b'Z', len: 0 })));
    }

    #[test]
    fn the_header_alone_is_enough_to_refuse_a_frame() {
        for (tag, len) in
            [(b'd', (1 << 30) + 1), (b'E', (64 << 20) + 1), (b'S', (1 << 20) + 1), (b'Z', u32::MAX - 4)]
        {
            let mut bytes = vec![tag];
            bytes.extend((len + 4_u32).to_be_bytes());
            assert!(matches!(peek(&bytes, &Limits::SESSION), Err(FrameError::TooLong { .. })), "{tag}");
        }
    }

    #[test]
    fn no_row_is_accepted_before_login() {
        assert!(peek(b"D\0\0\0\x06", &Limits::LOGIN).is_err());
        assert!(peek(b"D\0\0\0\x06", &Limits::SESSION).is_ok());
    }

    #[test]
    fn a_server_that_is_none_is_refused() {
        let error = peek(b"HTTP/1.1 400 Bad Request", &Limits::LOGIN).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message of type \"H\" is too long: 1414811691 bytes, at most 65536 are accepted"
        );
    }
}

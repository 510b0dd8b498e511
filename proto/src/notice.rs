//! What a server has to say: the fields of ErrorResponse and NoticeResponse.
//!
//! In: the body of either message. Out: [`Notice`]. Text that is no UTF-8 is shown with replacement characters, since a server
//! reports in its own encoding until client_encoding is set. Fields: the manual's "Error and Notice Message Fields".

use std::fmt;

use bytes::Bytes;

use crate::cursor::{Cursor, ParseError};
use crate::sqlstate::SqlState;

/// An error or a notice of a server. `Display` is the severity and the primary message; `Debug` shows no more
/// than that and the SQLSTATE, because a detail may hold values of rows.
#[derive(Clone, PartialEq, Eq)]
pub struct Notice {
    sqlstate: SqlState,
    fields: Vec<(u8, String)>,
}

impl Notice {
    /// Reads the body of an ErrorResponse or NoticeResponse.
    pub fn parse(body: Bytes) -> Result<Notice, ParseError> {
        let mut cursor = Cursor::new("ErrorResponse or NoticeResponse", body);
        let mut fields = Vec::new();
        loop {
            match cursor.u8("field type")? {
                0 => break,
                code => fields.push((code, cursor.lossy("field value")?)),
            }
        }
        cursor.finish()?;
        let mut notice = Notice { sqlstate: SqlState::INTERNAL_ERROR, fields };
        if let Some(sqlstate) = notice.field(b'C').and_then(|code| SqlState::from_bytes(code.as_bytes())) {
            notice.sqlstate = sqlstate;
        }
        Ok(notice)
    }

    fn field(&self, code: u8) -> Option<&str> {
        self.fields.iter().find(|field| field.0 == code).map(|field| field.1.as_str())
    }

    fn number(&self, code: u8) -> Option<u32> {
        self.field(code)?.parse().ok()
    }

    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, `DEBUG`, `INFO` or `LOG`, never translated.
    pub fn severity(&self) -> &str {
        self.field(b'V').or_else(|| self.field(b'S')).unwrap_or("ERROR")
    }

    /// Whether the server ends the session with this error.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity(), "FATAL" | "PANIC")
    }

    /// The SQLSTATE; `XX000` when the server gave none.
    pub fn sqlstate(&self) -> SqlState {
        self.sqlstate
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        self.field(b'M').unwrap_or_default()
    }

    /// The detail, which may hold values of rows.
    pub fn detail(&self) -> Option<&str> {
        self.field(b'D')
    }

    /// What the server suggests.
    pub fn hint(&self) -> Option<&str> {
        self.field(b'H')
    }

    /// Where the error came up: a call stack, or the line of a COPY.
    pub fn context(&self) -> Option<&str> {
        self.field(b'W')
    }

    /// The statement's character, from 1, that the error is about.
    pub fn position(&self) -> Option<u32> {
        self.number(b'P')
    }

    /// Like [`Notice::position`], in [`Notice::internal_query`].
    pub fn internal_position(&self) -> Option<u32> {
        self.number(b'p')
    }

    /// The statement that the server itself had made, for instance inside a function.
    pub fn internal_query(&self) -> Option<&str> {
        self.field(b'q')
    }

    /// The schema of the object concerned.
    pub fn schema(&self) -> Option<&str> {
        self.field(b's')
    }

    /// The table concerned.
    pub fn table(&self) -> Option<&str> {
        self.field(b't')
    }

    /// The column concerned.
    pub fn column(&self) -> Option<&str> {
        self.field(b'c')
    }

    /// The data type concerned.
    pub fn data_type(&self) -> Option<&str> {
        self.field(b'd')
    }

    /// The constraint concerned; an index counts as one.
    pub fn constraint(&self) -> Option<&str> {
        self.field(b'n')
    }

    /// The server's source file, line and function.
    pub fn source_location(&self) -> Option<(&str, u32, &str)> {
        Some((self.field(b'F')?, self.number(b'L')?, self.field(b'R')?))
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:  {}", self.severity(), self.message())
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice")
            .field("severity", &self.severity())
            .field("sqlstate", &self.sqlstate)
            .field("message", &self.message())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a German PostgreSQL 15 sent for a duplicate key.
    const DUPLICATE: &[u8] =
        b"SFEHLER\0VERROR\0C23505\0Mduplicate key value violates unique constraint \"t_pkey\"\0\
        DKey (id)=(1) already exists.\0spublic\0tt\0nt_pkey\0Fnbtinsert.c\0L664\0R_bt_check_unique\0\0";

    #[test]
    fn every_field_is_found_by_its_name() {
        let notice = Notice::parse(Bytes::from_static(DUPLICATE)).unwrap();
        assert_eq!(notice.severity(), "ERROR");
        assert_eq!(notice.sqlstate(), SqlState::UNIQUE_VIOLATION);
        assert_eq!(notice.message(), "duplicate key value violates unique constraint \"t_pkey\"");
        assert_eq!(notice.detail(), Some("Key (id)=(1) already exists."));
        assert_eq!((notice.schema(), notice.table(), notice.column()), (Some("public"), Some("t"), None));
        assert_eq!(notice.constraint(), Some("t_pkey"));
        assert_eq!(notice.source_location(), Some(("nbtinsert.c", 664, "_bt_check_unique")));
        assert_eq!((notice.hint(), notice.context(), notice.position()), (None, None, None));
        assert!(!notice.is_fatal());
    }

    #[test]
    fn debug_output_holds_no_detail() {
        let notice = Notice::parse(Bytes::from_static(DUPLICATE)).unwrap();
        assert!(!format!("{notice:?}").contains("Key"));
    }

    #[test]
    fn text_in_another_encoding_is_shown_as_far_as_it_goes() {
        let notice = Notice::parse(Bytes::from_static(b"SFATAL\0C28P01\0Mf\xfcr\0\0")).unwrap();
        assert_eq!(notice.to_string(), "FATAL:  f\u{fffd}r");
        assert!(notice.is_fatal());
    }

    #[test]
    fn a_missing_or_strange_code_is_an_internal_error() {
        for body in [&b"Mx\0\0"[..], b"C??\0Mx\0\0"] {
            let notice = Notice::parse(Bytes::from_static(body)).unwrap();
            assert_eq!(notice.sqlstate(), SqlState::INTERNAL_ERROR);
        }
    }

    #[test]
    fn a_body_cut_anywhere_is_an_error() {
        for end in 0..DUPLICATE.len() {
            assert!(Notice::parse(Bytes::from_static(&DUPLICATE[..end])).is_err(), "cut at {end}");
        }
    }
}

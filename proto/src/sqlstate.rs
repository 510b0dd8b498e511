//! SQLSTATE, the five-character code of every error and notice.
//!
//! Codes: the manual's appendix "PostgreSQL Error Codes".

use std::fmt;

/// A SQLSTATE: two characters of class and three of condition, digits and upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

macro_rules! codes {
    ($($name:ident $code:literal)*) => {
        impl SqlState {
            $(#[doc = concat!("`", $code, "`")] pub const $name: SqlState = SqlState::from_literal($code);)*
        }
    };
}

codes! {
    SUCCESSFUL_COMPLETION "00000"
    CONNECTION_FAILURE "08006"
    PROTOCOL_VIOLATION "08P01"
    FEATURE_NOT_SUPPORTED "0A000"
    CHARACTER_NOT_IN_REPERTOIRE "22021"
    UNTRANSLATABLE_CHARACTER "22P05"
    NOT_NULL_VIOLATION "23502"
    FOREIGN_KEY_VIOLATION "23503"
    UNIQUE_VIOLATION "23505"
    CHECK_VIOLATION "23514"
    EXCLUSION_VIOLATION "23P01"
    READ_ONLY_SQL_TRANSACTION "25006"
    IN_FAILED_SQL_TRANSACTION "25P02"
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT "25P03"
    INVALID_AUTHORIZATION_SPECIFICATION "28000"
    INVALID_PASSWORD "28P01"
    INVALID_CATALOG_NAME "3D000"
    INVALID_SCHEMA_NAME "3F000"
    SERIALIZATION_FAILURE "40001"
    DEADLOCK_DETECTED "40P01"
    SYNTAX_ERROR "42601"
    INSUFFICIENT_PRIVILEGE "42501"
    UNDEFINED_COLUMN "42703"
    UNDEFINED_OBJECT "42704"
    DUPLICATE_OBJECT "42710"
    DUPLICATE_COLUMN "42701"
    UNDEFINED_FUNCTION "42883"
    UNDEFINED_TABLE "42P01"
    DUPLICATE_DATABASE "42P04"
    DUPLICATE_SCHEMA "42P06"
    DUPLICATE_TABLE "42P07"
    DISK_FULL "53100"
    OUT_OF_MEMORY "53200"
    TOO_MANY_CONNECTIONS "53300"
    CONFIGURATION_LIMIT_EXCEEDED "53400"
    OBJECT_NOT_IN_PREREQUISITE_STATE "55000"
    OBJECT_IN_USE "55006"
    CANT_CHANGE_RUNTIME_PARAM "55P02"
    LOCK_NOT_AVAILABLE "55P03"
    QUERY_CANCELED "57014"
    ADMIN_SHUTDOWN "57P01"
    CRASH_SHUTDOWN "57P02"
    CANNOT_CONNECT_NOW "57P03"
    DATABASE_DROPPED "57P04"
    IDLE_SESSION_TIMEOUT "57P05"
    IO_ERROR "58030"
    UNDEFINED_FILE "58P01"
    INTERNAL_ERROR "XX000"
}

impl SqlState {
    const fn from_literal(code: &str) -> SqlState {
        match code.as_bytes() {
            &[a, b, c, d, e] => SqlState([a, b, c, d, e]),
            _ => panic!("a SQLSTATE has five characters"),
        }
    }

    /// The code in `bytes`, if they are five digits or upper-case letters.
    pub fn from_bytes(bytes: &[u8]) -> Option<SqlState> {
        let code: [u8; 5] = bytes.try_into().ok()?;
        code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()).then_some(SqlState(code))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The first two characters, which group the codes.
    pub fn class(&self) -> &str {
        self.as_str().split_at_checked(2).unwrap_or_default().0
    }

    /// Whether the server ended the session, or refused it for the moment, because it or the session is going away:
    /// a new connection may work (`57P01` to `57P03`, and `57P05`).
    pub fn is_shutdown(&self) -> bool {
        matches!(
            *self,
            SqlState::ADMIN_SHUTDOWN
                | SqlState::CRASH_SHUTDOWN
                | SqlState::CANNOT_CONNECT_NOW
                | SqlState::IDLE_SESSION_TIMEOUT
        )
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_five_digits_or_capitals_are_a_code() {
        assert_eq!(SqlState::from_bytes(b"42P01"), Some(SqlState::UNDEFINED_TABLE));
        for bytes in [&b"42p01"[..], b"42P0", b"42P011", b"", b"42P\xe91"] {
            assert_eq!(SqlState::from_bytes(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_class_is_the_first_two_characters() {
        assert_eq!(SqlState::LOCK_NOT_AVAILABLE.class(), "55");
        assert_eq!(SqlState::LOCK_NOT_AVAILABLE.to_string(), "55P03");
    }

    #[test]
    fn a_dropped_database_is_no_shutdown() {
        assert!(SqlState::CANNOT_CONNECT_NOW.is_shutdown());
        assert!(!SqlState::DATABASE_DROPPED.is_shutdown());
    }
}

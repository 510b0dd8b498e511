//! Settings of a session that make text exact and keep long work alive.

use crate::config::Side;

/// Settings that go into the startup packet, where they outrank those of the role, the database and the connection string's `options`.
///
/// Text of dates, intervals, floats, bytea, arrays and names depends on the session: the same settings on
/// both sides make COPY text and catalog definitions mean the same. All timeouts are off: a copy may take hours. Warnings are asked for, as
/// one of them is all that a server has to say of a publication that is gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    replication: bool,
}

/// Name and value of each setting; every one exists since PostgreSQL 10.
const SESSION: &[(&str, &str)] = &[
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("search_path", ""),
    ("row_security", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("array_nulls", "on"),
    ("client_min_messages", "notice"),
    ("quote_all_identifiers", "off"),
    ("synchronize_seqscans", "off"),
];

impl Settings {
    /// The settings of an ordinary session.
    pub fn session() -> Settings {
        Settings::default()
    }

    /// The settings of a walsender for logical replication.
    pub fn replication() -> Settings {
        Settings { replication: true }
    }

    /// The startup packet's parameters for a server of this side, besides user, database and application name.
    pub(super) fn parameters(&self, side: Side) -> Vec<(&str, &str)> {
        let mut parameters = vec![("client_encoding", "UTF8")];
        parameters.extend_from_slice(SESSION);
        if side == Side::Source {
            // A cutover makes the source's database read-only for everyone else.
            parameters.push(("default_transaction_read_only", "off"));
        }
        if self.replication {
            parameters.push(("replication", "database"));
        }
        parameters
    }

    /// Settings that only some majors know, set by a statement after login: name, value and first major times 10,000.
    pub(super) fn versioned(&self) -> &'static [(&'static str, &'static str, u32)] {
        &[
            ("idle_session_timeout", "0", 140_000),
            // When this process dies, its statements and locks should not outlive it for long.
            ("client_connection_check_interval", "1s", 140_000),
            ("transaction_timeout", "0", 170_000),
        ]
    }
}

//! Settings of a session that make text exact, keep long work alive, and have the server let go of a host that is gone.

use std::borrow::Cow;
use std::time::Duration;

use crate::config::{Config, Side};

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

/// The keepalives that a server is asked to send, where the connection string doesn't say: the system's own would have it keep the sessions of a host that
/// is gone, with their locks and snapshots, for two hours. Half a minute: a part is free again, and another run may begin.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 4;

impl Settings {
    /// The settings of an ordinary session.
    pub fn session() -> Settings {
        Settings::default()
    }

    /// The settings of a walsender for logical replication.
    pub fn replication() -> Settings {
        Settings { replication: true }
    }

    /// Whether the session is a walsender's.
    pub(super) fn is_replication(&self) -> bool {
        self.replication
    }

    /// The startup packet's parameters for a server of this side, besides user, database and application name.
    pub(super) fn parameters(&self, side: Side, config: &Config) -> Vec<(&'static str, Cow<'static, str>)> {
        let mut parameters = vec![("client_encoding", Cow::from("UTF8"))];
        parameters.extend(SESSION.iter().map(|(name, value)| (*name, Cow::from(*value))));
        if side == Side::Source {
            // A cutover makes the source's database read-only for everyone else.
            parameters.push(("default_transaction_read_only", "off".into()));
        }
        if self.replication {
            parameters.push(("replication", "database".into()));
        }
        if let Some((idle, interval, count)) = keepalives(config) {
            parameters.push(("tcp_keepalives_idle", idle.as_secs().to_string().into()));
            parameters.push(("tcp_keepalives_interval", interval.as_secs().to_string().into()));
            parameters.push(("tcp_keepalives_count", count.to_string().into()));
        }
        parameters
    }

    /// Settings that a server of this version has beyond those that all have; set by a statement after login.
    pub(super) fn versioned(
        &self,
        version: u32,
        side: Side,
        config: &Config,
    ) -> Vec<(&'static str, Cow<'static, str>)> {
        let mut settings = Vec::new();
        let unanswered = config.tcp_user_timeout.or_else(|| {
            // What a host that is gone doesn't acknowledge would keep its session for a quarter of an hour, and keepalives don't count meanwhile. Not on the
            // source: it may have to wait long to send the rest, while what it has sent waits for a lock on the target, and would take that for a dead host.
            let (idle, interval, count) = keepalives(config).filter(|_| side == Side::Target)?;
            Some(idle + interval * count)
        });
        if let Some(unanswered) = unanswered.filter(|_| version >= 120_000) {
            settings.push(("tcp_user_timeout", unanswered.as_millis().to_string().into()));
        }
        if version >= 110_000 {
            // To compile a query of catalogs takes longer than to run it, up to a second.
            settings.push(("jit", "off".into()));
        }
        if version >= 140_000 {
            settings.push(("idle_session_timeout", "0".into()));
            // When this process dies, its statements and locks should not outlive it for long.
            settings.push(("client_connection_check_interval", "1s".into()));
        }
        if version >= 170_000 {
            settings.push(("transaction_timeout", "0".into()));
        }
        settings
    }
}

/// Silence before the first keepalive, time between two, and how many may be lost; `None` where the connection string wants none.
fn keepalives(config: &Config) -> Option<(Duration, Duration, u32)> {
    let keepalives = &config.keepalives;
    keepalives.enabled.then(|| {
        (
            keepalives.idle.unwrap_or(KEEPALIVE_IDLE),
            keepalives.interval.unwrap_or(KEEPALIVE_INTERVAL),
            keepalives.count.unwrap_or(KEEPALIVE_COUNT),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, resolve};

    fn timeout(text: &str, version: u32, side: Side) -> Option<String> {
        let config = resolve(text, side, &Environment::empty()).unwrap();
        let settings = Settings::session().versioned(version, side, &config);
        settings
            .into_iter()
            .find(|(name, _)| *name == "tcp_user_timeout")
            .map(|(_, value)| value.into_owned())
    }

    #[test]
    fn unacknowledged_data_ends_a_session_where_that_is_safe_or_asked_for() {
        assert_eq!(timeout("user=u dbname=d host=h", 120_000, Side::Target).as_deref(), Some("30000"));
        assert_eq!(timeout("user=u dbname=d host=h", 110_000, Side::Target), None);
        assert_eq!(timeout("user=u dbname=d host=h", 180_000, Side::Source), None);
        assert_eq!(
            timeout("user=u dbname=d host=h tcp_user_timeout=7000", 180_000, Side::Source).as_deref(),
            Some("7000")
        );
        assert_eq!(timeout("user=u dbname=d host=h keepalives=0", 180_000, Side::Target), None);
        let slow = "user=u dbname=d host=h keepalives_idle=60 keepalives_interval=30 keepalives_count=2";
        assert_eq!(timeout(slow, 180_000, Side::Target).as_deref(), Some("120000"));
    }
}

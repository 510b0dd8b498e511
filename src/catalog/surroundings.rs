//! What surrounds a database: settings of its server, clock, collations' versions, the way there, how much it holds.
//!
//! In: a session of the database. Out: plain facts that a check judges. What may fail: the connection. What the role may not see is not among the facts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::fetch;
use crate::error::{Error, Result};
use crate::wire::Connection;

/// Settings that are read where the role may see them.
const SETTINGS: &str = "'array_nulls', 'backslash_quote', 'data_checksums', 'data_directory', 'default_text_search_config', \
    'lc_numeric', 'lc_time', 'maintenance_work_mem', 'max_wal_size', 'shared_preload_libraries', 'transform_null_equals'";

/// Settings of extensions, which pg_settings doesn't show while their library isn't loaded.
const EXTENSIONS_SETTINGS: &str = "'aiven.pg_security_agent_reserved_roles'";

/// The facts of one side.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Surroundings {
    /// Settings by name, in the unit of pg_settings.
    pub settings: BTreeMap<String, String>,
    /// Size of the database.
    pub bytes: i64,
    /// Number of large objects.
    pub large_objects: i64,
    /// Names of procedural languages.
    pub languages: Vec<String>,
    /// Transactions that are prepared in the database.
    pub prepared: i64,
    /// The session comes from the server's own host.
    pub local: bool,
    /// The session goes through a socket of the server's host, whose files can be looked at.
    pub through_socket: bool,
    /// TLS version of the session, where it has TLS.
    pub tls: Option<String>,
    /// The role's own password is stored as MD5, where that can be seen.
    pub md5_password: bool,
    /// The database's collation has another version than when it was made: the stored and the present one.
    pub stale_database: Option<(String, String)>,
    /// Collations of which the same is true, quoted and qualified.
    pub stale_collations: Vec<String>,
    /// The present version of the database's collation, where it has one.
    pub collation_version: Option<String>,
    /// How far the server's clock is ahead of this host's, in seconds; half a round trip is uncertain.
    #[serde(default)]
    pub clock: f64,
    /// How uncertain that is, in seconds.
    #[serde(default)]
    pub clock_uncertainty: f64,
}

/// Reads the facts of the session's database.
///
/// # Errors
/// The server's.
pub async fn read(connection: &mut Connection) -> Result<Surroundings> {
    let version = connection.version();
    let (stored, actual) = if version >= 150_000 {
        ("d.datcollversion", "pg_catalog.pg_database_collation_actual_version(d.oid)")
    } else {
        ("NULL::text", "NULL::text")
    };
    let authid = super::role::verifiers_readable(connection).await?;
    let md5 = if authid {
        "coalesce((SELECT a.rolpassword ~ '^md5' FROM pg_catalog.pg_authid a WHERE a.rolname = session_user), false)"
    } else {
        "false"
    };
    let sql = format!(
        "SELECT
           (SELECT pg_catalog.json_object_agg(s.name, s.setting) FROM (
               SELECT p.name, p.setting FROM pg_catalog.pg_settings p WHERE p.name IN ({SETTINGS})
               UNION ALL SELECT e.name, pg_catalog.current_setting(e.name, true)
                 FROM pg_catalog.unnest(ARRAY[{EXTENSIONS_SETTINGS}]) e(name)
                 WHERE pg_catalog.current_setting(e.name, true) IS NOT NULL) s) AS settings,
           pg_catalog.pg_database_size(d.oid) AS bytes,
           (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata) AS large_objects,
           (SELECT pg_catalog.json_agg(l.lanname) FROM pg_catalog.pg_language l WHERE l.lanispl) AS languages,
           (SELECT count(*) FROM pg_catalog.pg_prepared_xacts x WHERE x.database = d.datname) AS prepared,
           coalesce(pg_catalog.inet_client_addr() = pg_catalog.inet_server_addr()
             OR pg_catalog.inet_client_addr() <<= '127.0.0.0/8'::inet, true) AS local,
           pg_catalog.inet_server_addr() IS NULL AS through_socket,
           (SELECT t.version FROM pg_catalog.pg_stat_ssl t WHERE t.pid = pg_catalog.pg_backend_pid() AND t.ssl) AS tls,
           {md5} AS md5_password,
           CASE WHEN {stored} <> {actual} THEN pg_catalog.json_build_array({stored}, {actual}) END AS stale_database,
           {actual} AS collation_version,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', n.nspname, c.collname) ORDER BY c.oid), '[]'::json)
             FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
             WHERE (c.oid >= 16384 OR c.oid IN (SELECT a.attcollation FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384))
               AND c.collversion <> pg_catalog.pg_collation_actual_version(c.oid)) AS stale_collations
         FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    );
    let mut rows: Vec<Surroundings> = fetch(connection, &sql).await?;
    let mut facts = rows
        .pop()
        .ok_or_else(|| Error::failed(format!("the database of the {} is gone", connection.side())))?;
    (facts.clock, facts.clock_uncertainty) = clock(connection).await?;
    Ok(facts)
}

/// How far the server's clock is ahead of this host's: the better of two looks.
async fn clock(connection: &mut Connection) -> Result<(f64, f64)> {
    let mut best = (0.0, f64::INFINITY);
    for _ in 0..2 {
        let (begun, here) = (Instant::now(), SystemTime::now());
        let row = connection
            .query_one("SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8", &[])
            .await?;
        let half = begun.elapsed().as_secs_f64() / 2.0;
        let here = here.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64() + half;
        if half < best.1 {
            best = (row.value::<f64>(0)? - here, half);
        }
    }
    Ok(best)
}

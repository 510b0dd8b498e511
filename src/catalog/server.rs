//! Facts of a server and its current database that decide whether a migration may begin.

use std::fmt;

use pgstream_proto::lsn::Lsn;

use super::user_schema;
use crate::error::{Error, Result};
use crate::wire::Connection;

/// Which database of which cluster a session is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// pg_control_system's identifier; copies of a cluster (standbys) share it.
    pub system_identifier: String,
    /// The database's name.
    pub database: String,
    /// pg_database.oid.
    pub oid: u32,
}

/// Who the session's database is.
pub async fn identity(connection: &mut Connection) -> Result<Identity> {
    let row = connection
        .query_one(
            "SELECT s.system_identifier::text, d.datname::text, d.oid::int8 \
             FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
            &[],
        )
        .await?;
    Ok(Identity { system_identifier: row.value(0)?, database: row.value(1)?, oid: row.value(2)? })
}

/// Names of all roles.
pub async fn role_names(connection: &mut Connection) -> Result<Vec<String>> {
    let rows = connection.query("SELECT rolname::text FROM pg_catalog.pg_roles", &[]).await?;
    rows.iter().map(|row| row.value(0)).collect()
}

/// OIDs of large objects.
pub async fn large_objects(connection: &mut Connection) -> Result<Vec<u32>> {
    let rows =
        connection.query("SELECT oid::int8 FROM pg_catalog.pg_largeobject_metadata ORDER BY 1", &[]).await?;
    rows.iter().map(|row| row.value(0)).collect()
}

/// Pages of each of these relations now (pg_class.relpages is as old as the last VACUUM), in the same order.
pub async fn heap_pages(connection: &mut Connection, relations: &[u32]) -> Result<Vec<i64>> {
    if relations.is_empty() {
        return Ok(Vec::new());
    }
    let list = relations.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let rows = connection
        .query(
            &format!(
                "SELECT pg_catalog.pg_relation_size(o::oid) / pg_catalog.current_setting('block_size')::int8 \
                 FROM pg_catalog.unnest('{{{list}}}'::int8[]) WITH ORDINALITY u(o, n) ORDER BY n"
            ),
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(row.optional(0)?.unwrap_or(0))).collect()
}

/// Tables (by OID) which the session's snapshot sees in another file, or under another name, than they are now, as `schema.name`. Functions of
/// the server see what is committed now, a query of the catalogs sees what its snapshot does; a lock on a table keeps both as they are.
pub async fn rewritten(connection: &mut Connection, tables: &[u32]) -> Result<Vec<String>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let list = tables.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let rows = connection
        .query(
            &format!(
                "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid = ANY ('{{{list}}}'::oid[]) AND (pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode \
                   OR pg_catalog.to_regclass(pg_catalog.format('%I.%I', n.nspname, c.relname))::oid IS DISTINCT FROM c.oid) ORDER BY 1"
            ),
            &[],
        )
        .await?;
    rows.iter().map(|row| row.value(0)).collect()
}

/// A session that keeps others from a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The table, `schema.name`.
    pub table: String,
    /// Process ID of the session; `None` for a prepared transaction.
    pub pid: Option<i64>,
    /// Its user.
    pub user: String,
    /// When its transaction began.
    pub since: String,
    /// Its state, such as `idle in transaction`.
    pub state: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => {
                let Blocker { user, since, state, .. } = self;
                write!(f, "process {pid} of user \"{user}\" ({state}) holds it since {since}")
            }
            None => f.write_str("a prepared transaction holds it"),
        }
    }
}

/// Who holds an ACCESS EXCLUSIVE lock on any of these relations (OIDs), or on any relation of users where `None` is given.
pub async fn blockers(connection: &mut Connection, relations: Option<&[u32]>) -> Result<Vec<Blocker>> {
    let wanted = match relations {
        Some(oids) => {
            let list = oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            format!("l.relation::int8 = ANY ('{{{list}}}'::int8[])")
        }
        None => format!("c.relkind IN ('r', 'p', 'm', 'S') AND {}", user_schema("n")),
    };
    let rows = connection
        .query(
            &format!(
                "SELECT n.nspname || '.' || c.relname, l.pid, coalesce(a.usename::text, '?'), \
                        coalesce(a.xact_start::text, '?'), coalesce(a.state, '?') \
                 FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                 WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock' \
                   AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() \
                   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
                   AND {wanted} ORDER BY 1, 2"
            ),
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Blocker {
                table: row.value(0)?,
                pid: row.optional(1)?,
                user: row.value(2)?,
                since: row.value(3)?,
                state: row.value(4)?,
            })
        })
        .collect()
}

/// What decides whether a source can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationFacts {
    /// The setting.
    pub wal_level: String,
    /// The session's role has REPLICATION, is a superuser, or is a member of a provider's role for it.
    pub may_replicate: bool,
    /// Replication slots that are not taken.
    pub slots_free: i64,
    /// WAL senders that are not taken.
    pub senders_free: i64,
    /// The server is a standby.
    pub in_recovery: bool,
    /// Tables (OID, and name as SQL writes it) that the session's role neither owns nor may act for the owner of.
    pub not_owned: Vec<(u32, String)>,
}

/// Reads [`ReplicationFacts`].
pub async fn replication_facts(connection: &mut Connection) -> Result<ReplicationFacts> {
    let row = connection
        .query_one(
            "SELECT pg_catalog.current_setting('wal_level'), \
               (SELECT r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles p WHERE p.rolname = 'rds_replication' \
                  AND pg_catalog.pg_has_role(r.oid, p.oid, 'MEMBER')) FROM pg_catalog.pg_roles r WHERE r.rolname = current_user), \
               pg_catalog.current_setting('max_replication_slots')::int8 - (SELECT count(*) FROM pg_catalog.pg_replication_slots), \
               pg_catalog.current_setting('max_wal_senders')::int8 - (SELECT count(*) FROM pg_catalog.pg_stat_replication), \
               pg_catalog.pg_is_in_recovery()",
            &[],
        )
        .await?;
    let tables = connection
        .query(
            "SELECT c.oid::int8, pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' \
               AND n.nspname NOT IN ('information_schema', 'pgstream') \
               AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') \
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
                 AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 2",
            &[],
        )
        .await?;
    Ok(ReplicationFacts {
        wal_level: row.value(0)?,
        may_replicate: row.is_true(1),
        slots_free: row.value(2)?,
        senders_free: row.value(3)?,
        in_recovery: row.is_true(4),
        not_owned: tables.iter().map(|row| Ok((row.value(0)?, row.value(1)?))).collect::<Result<_>>()?,
    })
}

/// Up to where the server has written its log, or replayed its primary's.
pub async fn current_lsn(connection: &mut Connection) -> Result<Lsn> {
    let row = connection
        .query_one(
            "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
             ELSE pg_catalog.pg_current_wal_lsn() END",
            &[],
        )
        .await?;
    row.value::<String>(0)?.parse().map_err(|e| Error::failed(format!("{e}")))
}

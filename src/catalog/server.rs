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
    /// It does not have the lock yet, and keeps others waiting behind it: the sessions that it waits for, in words.
    pub behind: Option<String>,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => {
                let Blocker { user, since, state, behind, .. } = self;
                match behind {
                    None => write!(f, "process {pid} of user \"{user}\" ({state}) holds it since {since}"),
                    Some(behind) => write!(
                        f,
                        "process {pid} of user \"{user}\" is the next to lock it, since {since}, and waits for {behind}"
                    ),
                }
            }
            None => f.write_str("a prepared transaction holds it"),
        }
    }
}

/// Who holds an ACCESS EXCLUSIVE lock on any of these relations (OIDs), or waits for one, which keeps all that come later waiting too; on any relation
/// of users where `None` is given.
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
                        coalesce(a.xact_start::text, '?'), coalesce(a.state, '?'), \
                        CASE WHEN NOT l.granted THEN coalesce((SELECT pg_catalog.string_agg(CASE WHEN b.pid = 0 THEN 'a prepared transaction' \
                            ELSE pg_catalog.format('process %s of user \"%s\" (%s)', b.pid, coalesce(w.usename, '?'), coalesce(w.state, '?')) END, ', ') \
                          FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) b(pid) \
                          LEFT JOIN pg_catalog.pg_stat_activity w ON w.pid = b.pid), 'others') END \
                 FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                 WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' \
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
                behind: row.optional(5)?,
            })
        })
        .collect()
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

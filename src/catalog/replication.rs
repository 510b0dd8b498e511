//! What logical replication needs of a source, as its catalogs tell it.

use std::collections::HashSet;

use serde::Deserialize;

use super::aiven_extras::{CREATE_PUBLICATION, callable};
use super::{fetch, relation};
use crate::error::Result;
use crate::sql::literal;
use crate::wire::Connection;

/// A source, as the session's role sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ReplicationSource {
    /// `server_version_num`.
    #[serde(default)]
    pub version: u32,
    /// The setting.
    pub wal_level: String,
    /// It is a standby.
    pub in_recovery: bool,
    /// A standby's primary keeps the rows that are still read there (`hot_standby_feedback`).
    pub feeds_back: bool,
    /// A primary of it was named; set by who knows.
    #[serde(skip)]
    pub primary_named: bool,
    /// Slots that may yet be made.
    pub free_slots: i64,
    /// Walsenders that may yet start.
    pub free_senders: i64,
    /// The role may start a walsender and make a slot, as far as its attributes and memberships tell.
    pub may_replicate: bool,
    /// What the server says to the user who opens a replication session, if it refuses; set by who has tried.
    #[serde(skip)]
    pub refused: Option<String>,
    /// The role may make a publication in the database: itself, or by the function of aiven_extras.
    pub may_publish: bool,
    /// The setting in megabytes, where the server has it and it limits what a slot holds back.
    pub slot_keep_megabytes: Option<i64>,
    /// Transactions that write and have been running for a while.
    pub running: Vec<RunningTransaction>,
    /// Prepared transactions, of all databases.
    pub prepared: Vec<PreparedTransaction>,
    /// Subscriptions of the database that are enabled.
    #[serde(default)]
    pub subscriptions: Vec<String>,
    /// There are large objects, which no stream carries.
    pub large_objects: bool,
    /// Timeouts that this session could not switch off: something between it and the server keeps its settings away.
    pub timeouts: Vec<String>,
    /// Tables of users, with what replication makes of them.
    #[serde(default)]
    pub tables: Vec<ReplicationTable>,
}

/// A session's transaction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RunningTransaction {
    /// The session's process ID.
    pub pid: i64,
    /// Its user.
    pub user: Option<String>,
    /// When it began.
    pub since: Option<String>,
}

/// A prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreparedTransaction {
    /// Its name.
    pub gid: String,
    /// Who prepared it.
    pub owner: String,
    /// In which database.
    pub database: String,
    /// When.
    pub since: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReplicationTable {
    /// pg_class.oid.
    pub oid: u32,
    /// The partitioned table that it is a partition of.
    pub partition_of: Option<u32>,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `r`, `p` or `f`, as in `pg_class.relkind`.
    pub kind: String,
    /// It is unlogged: its changes are in no log.
    pub unlogged: bool,
    /// Its changes are not wanted; set by who knows what is selected.
    #[serde(default)]
    pub left_out: bool,
    /// An extension made it, and wants its rows copied.
    pub of_extension: bool,
    /// The role owns it.
    pub owned: bool,
    /// The role may publish it: as its owner, or by the function of aiven_extras.
    pub publishable: bool,
    /// `d`, `n`, `f` or `i`, as in `pg_class.relreplident`.
    pub replica_identity: String,
    /// The identity's index is there: for `d`, and for every partitioned table, that of a primary key.
    pub has_key: bool,
    /// It has generated columns.
    pub generated: bool,
}

impl ReplicationTable {
    /// Whether an UPDATE or DELETE tells which row it was: the server refuses both on a published table where it doesn't.
    pub fn identifies_rows(&self) -> bool {
        match self.replica_identity.as_str() {
            "f" => true,
            "n" => false,
            _ => self.has_key,
        }
    }

    /// The role may publish it as it is, and the application doesn't notice.
    pub fn may_be_published(&self, version: u32) -> bool {
        self.publishable && self.identifies_rows() && !self.refuses_updates(version)
    }

    /// PostgreSQL 18 refuses UPDATE and DELETE where a generated column, which isn't published, is part of the identity.
    pub fn refuses_updates(&self, version: u32) -> bool {
        self.replica_identity == "f" && self.generated && version >= 180_000
    }
}

/// Reads what a stream of the connected database needs.
pub async fn read_replication_source(connection: &mut Connection) -> Result<ReplicationSource> {
    let version = connection.version();
    let keep = match version {
        130_000.. => {
            "(SELECT nullif(setting::int8, -1) FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size')"
        }
        _ => "NULL",
    };
    let sql = format!(
        "SELECT pg_catalog.current_setting('wal_level') AS wal_level, pg_catalog.pg_is_in_recovery() AS in_recovery, \
           pg_catalog.current_setting('hot_standby_feedback')::bool AS feeds_back, \
           pg_catalog.current_setting('max_replication_slots')::int8 - (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS free_slots, \
           pg_catalog.current_setting('max_wal_senders')::int8 - (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS free_senders, \
           (SELECT r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles m \
              WHERE m.rolname IN ('rds_replication', 'rds_superuser', 'azure_pg_admin', 'cloudsqlsuperuser') AND pg_catalog.pg_has_role(m.oid, 'USAGE')) \
            FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) AS may_replicate, \
           pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') OR EXISTS ({by_function}) AS may_publish, {keep} AS slot_keep_megabytes, \
           coalesce((SELECT json_agg(json_build_object('pid', a.pid, 'user', a.usename, 'since', a.xact_start::text) ORDER BY a.xact_start) \
             FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
               AND a.xact_start < pg_catalog.now() - interval '1 minute'), '[]') AS running, \
           coalesce((SELECT json_agg(json_build_object('gid', p.gid, 'owner', p.owner, 'database', p.database, 'since', p.prepared::text) ORDER BY p.prepared) \
             FROM pg_catalog.pg_prepared_xacts p), '[]') AS prepared, \
           EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata) AS large_objects, \
           coalesce((SELECT json_agg(s.name ORDER BY s.name) FROM pg_catalog.pg_settings s WHERE s.setting <> '0' AND s.name IN \
             ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout', 'idle_session_timeout')), '[]') AS timeouts",
        by_function = callable(CREATE_PUBLICATION),
    );
    let mut source: ReplicationSource = fetch(connection, &sql).await?.pop().unwrap_or_default();
    source.version = version;
    source.subscriptions = enabled_subscriptions(connection).await?;
    source.tables = replication_tables(connection).await?;
    Ok(source)
}

/// The database's subscriptions that are enabled: something else writes to it.
pub async fn enabled_subscriptions(connection: &mut Connection) -> Result<Vec<String>> {
    let sql = "SELECT s.subname::text FROM pg_catalog.pg_subscription s WHERE s.subenabled AND s.subdbid = \
               (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) ORDER BY 1";
    connection.query(sql, &[]).await?.iter().map(|row| row.value(0)).collect()
}

/// Reads the tables whose rows are copied, with what replication makes of them.
pub async fn replication_tables(connection: &mut Connection) -> Result<Vec<ReplicationTable>> {
    let generated = match connection.version() {
        120_000.. => {
            "EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped)"
        }
        _ => "false",
    };
    let sql = format!(
        "SELECT c.oid::int8 AS oid, CASE WHEN c.relispartition THEN (SELECT h.inhparent::int8 FROM pg_catalog.pg_inherits h \
             WHERE h.inhrelid = c.oid LIMIT 1) END AS partition_of, \
           n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relpersistence = 'u' AS unlogged, NOT ({own}) AS of_extension, \
           pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned, \
           pg_catalog.pg_has_role(c.relowner, 'USAGE') OR EXISTS ({by_function}) AS publishable, c.relreplident::text AS replica_identity, \
           EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid \
             AND CASE WHEN c.relreplident = 'i' AND c.relkind <> 'p' THEN i.indisreplident ELSE i.indisprimary END) AS has_key, {generated} AS generated \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'f') AND (({own}) OR {configured}) ORDER BY n.nspname, c.relname",
        own = relation::OWN,
        by_function = callable(CREATE_PUBLICATION),
        configured = relation::CONFIGURATION,
    );
    fetch(connection, &sql).await
}

/// OIDs of the tables whose changes a publication sends, as the session's snapshot sees it: those that it names, and the partitions below them.
pub async fn published_tables(connection: &mut Connection, publication: &str) -> Result<HashSet<u32>> {
    let sql = format!(
        "WITH RECURSIVE p(oid) AS (SELECT r.prrelid FROM pg_catalog.pg_publication_rel r \
             JOIN pg_catalog.pg_publication b ON b.oid = r.prpubid WHERE b.pubname = {} \
           UNION SELECT h.inhrelid FROM p JOIN pg_catalog.pg_class c ON c.oid = p.oid AND c.relkind = 'p' \
             JOIN pg_catalog.pg_inherits h ON h.inhparent = p.oid) \
         SELECT p.oid::int8 FROM p",
        literal(publication)
    );
    let rows = connection.query(&sql, &[]).await?;
    rows.iter().map(|row| row.value(0)).collect()
}

//! What a server and the role that is logged in there can do: the facts that a check judges.

use serde::Deserialize;

use super::fetch;
use crate::error::Result;
use crate::wire::Connection;

/// One server, as the session's role sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Server {
    /// `server_version_num`.
    #[serde(default)]
    pub version: u32,
    /// The cluster's system identifier, where the role may read it.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// The database's name.
    pub database: String,
    /// Its encoding.
    pub encoding: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub locale_provider: String,
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
    /// ICU or builtin locale.
    pub locale: Option<String>,
    /// It is a standby.
    pub in_recovery: bool,
    /// Its transactions are read-only, by a setting or because it is a standby.
    pub read_only: bool,
    /// The role that is logged in.
    pub user: String,
    /// SUPERUSER.
    pub superuser: bool,
    /// CREATEROLE.
    pub create_role: bool,
    /// CREATEDB.
    pub create_database: bool,
    /// CREATE on the database.
    pub may_create: bool,
    /// More sessions that the server has room for, for this role and database.
    pub free_connections: i64,
    /// Every role, and whether the session's role is a member of it.
    pub roles: Vec<RoleMembership>,
    /// Extensions that can be created.
    pub extensions: Vec<AvailableExtension>,
    /// Collations that come with the server.
    pub collations: Vec<String>,
    /// Tablespaces.
    pub tablespaces: Vec<String>,
}

/// A role of the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RoleMembership {
    /// Its name.
    pub name: String,
    /// The session's role is a member of it, so it can give objects to it.
    pub member: bool,
}

/// An extension whose files are on the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AvailableExtension {
    /// Its name.
    pub name: String,
    /// The version that CREATE EXTENSION makes.
    pub default_version: String,
    /// Every version that it can make.
    pub versions: Vec<String>,
    /// The version that is in the database already.
    pub installed: Option<String>,
    /// Only a superuser may create its default version, and the server has no list of those that others may (extwlist, RDS) with it.
    pub superuser: bool,
}

/// Reads the facts of the server and database that the session is connected to.
pub async fn read(connection: &mut Connection) -> Result<Server> {
    let version = connection.version();
    let provider = if version >= 150_000 { "d.datlocprovider::text" } else { "'c'" };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL::text",
    };
    let trusted = if version >= 130_000 { "v.superuser AND NOT v.trusted" } else { "v.superuser" };
    let sql = format!(
        "SELECT d.datname AS database, pg_catalog.pg_encoding_to_char(d.encoding) AS encoding,
           {provider} AS locale_provider, d.datcollate AS collate, d.datctype AS ctype, {locale} AS locale,
           pg_catalog.pg_is_in_recovery() AS in_recovery,
           pg_catalog.current_setting('default_transaction_read_only') = 'on'
             OR pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
           r.rolname AS user, r.rolsuper AS superuser, r.rolcreaterole AS create_role,
           r.rolcreatedb AS create_database,
           pg_catalog.has_database_privilege(d.oid, 'CREATE') AS may_create,
           least(
             pg_catalog.current_setting('max_connections')::int8
               - CASE WHEN r.rolsuper THEN 0 ELSE pg_catalog.current_setting('superuser_reserved_connections')::int8 END
               - (SELECT coalesce(sum(s.numbackends), 0) FROM pg_catalog.pg_stat_database s),
             CASE WHEN d.datconnlimit >= 0 AND NOT r.rolsuper
               THEN d.datconnlimit - (SELECT s.numbackends FROM pg_catalog.pg_stat_database s WHERE s.datid = d.oid) END,
             CASE WHEN r.rolconnlimit >= 0 AND NOT r.rolsuper
               THEN r.rolconnlimit - (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid) END
           )::int8 AS free_connections,
           (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', o.rolname, 'member',
                pg_catalog.pg_has_role(o.oid, 'MEMBER')) ORDER BY o.rolname) FROM pg_catalog.pg_roles o) AS roles,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', e.name,
                'default_version', e.default_version, 'versions', v.versions, 'installed', e.installed_version,
                'superuser', coalesce((v.superuser->>e.default_version)::boolean, true)
                  AND NOT coalesce(e.name::text = ANY (w.names), false)) ORDER BY e.name), '[]'::json)
             FROM pg_catalog.pg_available_extensions e
             JOIN (SELECT v.name, pg_catalog.array_agg(v.version) AS versions, 
                     pg_catalog.json_object_agg(v.version, {trusted}) AS superuser
                   FROM pg_catalog.pg_available_extension_versions v GROUP BY v.name) v ON v.name = e.name,
               LATERAL (SELECT pg_catalog.array_agg(pg_catalog.btrim(l.name, ' \"')) AS names
                   FROM (VALUES ('extwlist.extensions'), ('rds.extensions')) s(setting),
                     pg_catalog.regexp_split_to_table(pg_catalog.current_setting(s.setting, true), ',') l(name)) w) AS extensions,
           (SELECT coalesce(pg_catalog.json_agg(DISTINCT l.collname), '[]'::json) FROM pg_catalog.pg_collation l
             WHERE l.collnamespace = 'pg_catalog'::regnamespace AND l.collencoding IN (-1, d.encoding)) AS collations,
           (SELECT pg_catalog.json_agg(t.spcname) FROM pg_catalog.pg_tablespace t) AS tablespaces
         FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
         WHERE d.datname = pg_catalog.current_database() AND r.rolname = current_user"
    );
    let mut servers: Vec<Server> = fetch(connection, &sql).await?;
    let Some(mut server) = servers.pop() else {
        return Err(crate::error::Error::failed(format!(
            "could not read the properties of the {}: its database or role has been dropped",
            connection.side()
        )));
    };
    server.version = version;
    server.system_identifier = system_identifier(connection).await?;
    Ok(server)
}

/// The cluster's system identifier; `None` where the role may not read it. Asked on its own, since a function that may not be
/// executed fails the whole statement.
pub async fn system_identifier(connection: &mut Connection) -> Result<Option<String>> {
    let allowed = connection
        .query_one(
            "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')",
            &[],
        )
        .await?;
    if !allowed.is_true(0) {
        return Ok(None);
    }
    connection
        .query_one("SELECT system_identifier::text FROM pg_catalog.pg_control_system()", &[])
        .await?
        .optional(0)
}

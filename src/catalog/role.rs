//! Roles of the server.

use super::{cluster, fetch, note};
use crate::error::Result;
use crate::schema::role::Role;
use crate::wire::Connection;

/// Which roles are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Roles that own something in the database, are named in its privileges, policies, user mappings or settings, or own the
    /// database itself.
    Database,
    /// Every role.
    Server,
}

/// Whether the session's role may read the password verifiers.
pub async fn verifiers_readable(connection: &mut Connection) -> Result<bool> {
    let row = connection
        .query_one("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')", &[])
        .await?;
    Ok(row.is_true(0))
}

/// The roles of `scope` whose names match none of the regular expressions `exclude`, with the memberships among them and in predefined
/// roles. Password verifiers only where pg_authid may be read.
pub async fn read(connection: &mut Connection, scope: Scope, exclude: &[String]) -> Result<Vec<Role>> {
    let verifier = if verifiers_readable(connection).await? {
        "(SELECT v.rolpassword FROM pg_catalog.pg_authid v WHERE v.oid = r.oid)"
    } else {
        "NULL::text"
    };
    let options = if connection.version() >= 160_000 {
        "'inherit', m.inherit_option, 'set', m.set_option, 'grantor', \
         CASE WHEN m.grantor <> 10 THEN pg_catalog.pg_get_userbyid(m.grantor) END"
    } else {
        "'inherit', NULL, 'set', NULL, 'grantor', NULL"
    };
    let all = scope == Scope::Server;
    let labels =
        note::labels("pg_shseclabel", "l.classoid = 'pg_catalog.pg_authid'::regclass AND l.objoid = r.oid");
    let excluded = cluster::matches_any("r.rolname", exclude);
    let sql = format!(
        "WITH db AS (SELECT d.oid, d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
           named AS (
             SELECT s.refobjid AS oid FROM pg_catalog.pg_shdepend s, db
               WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass
                 AND (s.dbid = db.oid OR s.dbid = 0 AND s.classid = 'pg_catalog.pg_database'::regclass AND s.objid = db.oid)
             UNION SELECT db.datdba FROM db
             UNION SELECT s.setrole FROM pg_catalog.pg_db_role_setting s, db WHERE s.setdatabase = db.oid AND s.setrole <> 0
             UNION SELECT m.umuser FROM pg_catalog.pg_user_mappings m WHERE m.umuser <> 0
             UNION SELECT a.oid FROM pg_catalog.pg_roles a WHERE {all})
         SELECT r.oid::int8 AS oid, r.rolname AS name, r.rolsuper AS superuser, r.rolinherit AS inherit,
           r.rolcreaterole AS create_role, r.rolcreatedb AS create_database, r.rolcanlogin AS login,
           r.rolreplication AS replication, r.rolbypassrls AS bypass_rls, r.rolconnlimit AS connection_limit,
           CASE WHEN r.rolvaliduntil IS NOT NULL THEN r.rolvaliduntil::text END AS valid_until, {verifier} AS verifier,
           coalesce((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = 0 AND s.setrole = r.oid),
             '{{}}') AS settings,
           pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment, {labels} AS labels, r.oid = 10 AS bootstrap,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('role', g.rolname, 'admin', m.admin_option,
                {options}) ORDER BY g.rolname), '[]'::json)
             FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid AND (g.rolname ~ '^pg_' OR g.oid IN (SELECT oid FROM named))) AS memberships
         FROM pg_catalog.pg_roles r WHERE r.oid IN (SELECT oid FROM named) AND NOT {excluded}
         ORDER BY r.rolname"
    );
    fetch(connection, &sql).await
}

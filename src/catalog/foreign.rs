//! Foreign-data wrappers, servers and user mappings.

use super::{Query, acl, not_member};
use crate::schema::foreign::{Server, UserMapping, Wrapper};

/// SQL that yields OPTIONS (…) kept in `column` as a JSON array of `schema::foreign::FdwOption`, in their order.
pub fn options(column: &str) -> String {
    format!(
        "(SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', o.option_name, 'value', o.option_value)
             ORDER BY o.ordinality), '[]'::json)
           FROM pg_catalog.pg_options_to_table({column}) WITH ORDINALITY o(option_name, option_value, ordinality))"
    )
}

/// Foreign-data wrappers.
pub fn wrappers() -> Query<Wrapper> {
    let sql = format!(
        "SELECT w.oid::int8 AS oid, w.fdwname AS name, pg_catalog.pg_get_userbyid(w.fdwowner) AS owner, {} AS acl,
           NULLIF(w.fdwhandler, 0)::regproc::text AS handler, NULLIF(w.fdwvalidator, 0)::regproc::text AS validator,
           {} AS options
         FROM pg_catalog.pg_foreign_data_wrapper w WHERE w.oid >= 16384 AND {} ORDER BY w.fdwname",
        acl::expression("w.fdwacl", "'F'", "w.fdwowner"),
        options("w.fdwoptions"),
        not_member("pg_foreign_data_wrapper", "w.oid"),
    );
    Query::new(sql)
}

/// Foreign servers.
pub fn servers() -> Query<Server> {
    let sql = format!(
        "SELECT s.oid::int8 AS oid, s.srvname AS name, pg_catalog.pg_get_userbyid(s.srvowner) AS owner, {} AS acl,
           w.fdwname AS wrapper, s.srvtype AS kind, s.srvversion AS version, {} AS options
         FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
         WHERE {} ORDER BY s.srvname",
        acl::expression("s.srvacl", "'S'", "s.srvowner"),
        options("s.srvoptions"),
        not_member("pg_foreign_server", "s.oid"),
    );
    Query::new(sql)
}

/// User mappings, through the view that everyone may read; it hides the options of others' mappings from roles that are
/// neither superuser nor the server's owner, and `options` is NULL then.
pub fn user_mappings() -> Query<UserMapping> {
    let sql = format!(
        "SELECT m.umid::int8 AS oid, CASE WHEN m.umuser <> 0 THEN pg_catalog.pg_get_userbyid(m.umuser) END AS role,
           m.srvname AS server, m.srvid::int8 AS server_oid,
           CASE WHEN m.umoptions IS NOT NULL OR r.rolsuper OR m.umuser = r.oid
               OR m.umuser = 0 AND pg_catalog.pg_has_role(s.srvowner, 'USAGE') THEN {} END AS options
         FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid
           JOIN pg_catalog.pg_roles r ON r.rolname = current_user
         WHERE {} ORDER BY m.srvname, 2",
        options("m.umoptions"),
        not_member("pg_user_mapping", "m.umid"),
    );
    Query::new(sql)
}

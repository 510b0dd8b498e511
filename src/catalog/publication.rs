//! Publications and subscriptions.

use super::{Name, Query, not_member};
use crate::schema::publication::{Publication, Subscription};

/// Publications, apart from pgstream's own (`pgstream_…`).
pub fn publications(version: u32) -> Query<Publication> {
    let truncate = if version >= 110_000 { "CASE WHEN p.pubtruncate THEN 'truncate' END" } else { "NULL" };
    let via_root = if version >= 130_000 { "p.pubviaroot" } else { "false" };
    let generated = if version >= 180_000 {
        "CASE p.pubgencols WHEN 's' THEN 'stored' ELSE 'none' END"
    } else {
        "NULL::text"
    };
    let schemas = if version >= 150_000 {
        "(SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('oid', x.oid::int8, 'schema_oid', n.oid::int8,
             'schema', n.nspname) ORDER BY n.nspname), '[]'::json)
           FROM pg_catalog.pg_publication_namespace x JOIN pg_catalog.pg_namespace n ON n.oid = x.pnnspid
           WHERE x.pnpubid = p.oid)"
    } else {
        "'[]'::json"
    };
    let (columns, filter) = if version >= 150_000 {
        (
            "(SELECT pg_catalog.json_agg(a.attname ORDER BY k.i) FROM pg_catalog.unnest(r.prattrs::int2[]) WITH ORDINALITY k(attnum, i)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.attnum)",
            "pg_catalog.pg_get_expr(r.prqual, r.prrelid)",
        )
    } else {
        ("NULL", "NULL")
    };
    let sql = format!(
        "SELECT p.oid::int8 AS oid, p.pubname AS name, pg_catalog.pg_get_userbyid(p.pubowner) AS owner,
           p.puballtables AS all_tables, pg_catalog.array_remove(ARRAY[CASE WHEN p.pubinsert THEN 'insert' END,
             CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END, {truncate}], NULL) AS operations,
           {via_root} AS via_root, {generated} AS generated, {schemas} AS schemas,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('oid', r.oid::int8, 'table_oid', c.oid::int8,
                'schema', n.nspname, 'table', c.relname, 'columns', {columns}, 'filter', {filter})
                ORDER BY n.nspname, c.relname), '[]'::json)
             FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid) AS tables
         FROM pg_catalog.pg_publication p WHERE p.pubname !~ '^pgstream_' AND {} ORDER BY p.pubname",
        not_member("pg_publication", "p.oid"),
    );
    Query::new(sql)
}

/// SQL that says whether the session's role may read subscriptions: their connection strings are for superusers only.
pub const READABLE: &str = "SELECT pg_catalog.has_column_privilege('pg_catalog.pg_subscription', 'subconninfo', 'SELECT') \
     AND pg_catalog.has_table_privilege('pg_catalog.pg_subscription', 'SELECT')";

/// The names of the database's subscriptions, which everyone may read.
pub fn subscription_names() -> Query<Name> {
    Query::new(
        "SELECT s.subname::text AS name FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = pg_catalog.current_database() ORDER BY 1",
    )
}

/// Subscriptions of this database, for a role that may read them ([`READABLE`]).
pub fn subscriptions(version: u32) -> Query<Subscription> {
    let since = |at: u32, column: &'static str, otherwise: &'static str| {
        if version >= at { column } else { otherwise }
    };
    let sql = format!(
        "SELECT s.oid::int8 AS oid, s.subname AS name, pg_catalog.pg_get_userbyid(s.subowner) AS owner,
           s.subconninfo AS connection, s.subpublications AS publications, s.subslotname AS slot,
           s.subsynccommit AS synchronous_commit, {} AS binary, {} AS streaming, {} AS two_phase, {} AS disable_on_error,
           {} AS password_required, {} AS run_as_owner, {} AS origin, {} AS failover
         FROM pg_catalog.pg_subscription s
         WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) AND {}
         ORDER BY s.subname",
        since(140_000, "s.subbinary", "false"),
        match version {
            160_000.. => "s.substream::text",
            140_000.. => "CASE WHEN s.substream THEN 't' ELSE 'f' END",
            _ => "'f'",
        },
        since(150_000, "s.subtwophasestate <> 'd'", "false"),
        since(150_000, "s.subdisableonerr", "false"),
        since(160_000, "s.subpasswordrequired", "true"),
        since(160_000, "s.subrunasowner", "true"),
        since(160_000, "s.suborigin", "NULL::text"),
        since(170_000, "s.subfailover", "false"),
        not_member("pg_subscription", "s.oid"),
    );
    Query::new(sql)
}

//! Functions, procedures, aggregates, event triggers.

use super::{Query, acl, not_member, user_schema};
use crate::schema::function::{Aggregate, EventTrigger, Function};

/// Functions, procedures and window functions. Those that came with a range type are internal to it and stay out.
pub fn functions(version: u32) -> Query<Function> {
    let (kind, aggregate) = if version >= 110_000 {
        ("p.prokind::text", "p.prokind = 'a'")
    } else {
        ("CASE WHEN p.proiswindow THEN 'w' ELSE 'f' END", "p.proisagg")
    };
    let body = if version >= 140_000 { "pg_catalog.pg_get_function_sqlbody(p.oid)" } else { "NULL::text" };
    let support = if version >= 120_000 { "p.prosupport::oid <> 0" } else { "false" };
    let sql = format!(
        "SELECT p.oid::int8 AS oid, n.nspname AS schema, p.proname AS name,
           pg_catalog.pg_get_function_identity_arguments(p.oid) AS identity_arguments, {kind} AS kind,
           pg_catalog.pg_get_userbyid(p.proowner) AS owner, {} AS acl,
           pg_catalog.pg_get_functiondef(p.oid) AS definition, l.lanname AS language, {body} AS body,
           l.lanpltrusted AS trusted, p.proleakproof AS leakproof, {support} AS support
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
           JOIN pg_catalog.pg_language l ON l.oid = p.prolang
         WHERE NOT {aggregate} AND {}
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::regclass
             AND e.objid = p.oid AND e.deptype IN ('e', 'i'))
         ORDER BY n.nspname, p.proname, 4",
        acl::expression("p.proacl", "'f'", "p.proowner"),
        user_schema("n"),
    );
    Query::new(sql)
}

/// Aggregates.
pub fn aggregates(version: u32) -> Query<Aggregate> {
    let (modify, moving_modify) = if version >= 110_000 {
        ("a.aggfinalmodify::text", "a.aggmfinalmodify::text")
    } else {
        ("NULL::text", "NULL::text")
    };
    let function = |column: &str| format!("NULLIF(a.{column}::oid, 0)::regproc::text");
    let sql = format!(
        "SELECT p.oid::int8 AS oid, n.nspname AS schema, p.proname AS name,
           coalesce(NULLIF(pg_catalog.pg_get_function_arguments(p.oid), ''), '*') AS arguments,
           coalesce(NULLIF(pg_catalog.oidvectortypes(p.proargtypes), ''), '*') AS argument_types,
           pg_catalog.pg_get_userbyid(p.proowner) AS owner, {} AS acl, a.aggkind::text AS kind,
           {} AS transition, pg_catalog.format_type(a.aggtranstype, NULL) AS state_type, a.aggtransspace AS state_space,
           a.agginitval AS initial, {} AS final_function, a.aggfinalextra AS final_extra, {modify} AS final_modify,
           {} AS combine, {} AS serialize, {} AS deserialize, {} AS moving_transition, {} AS moving_inverse,
           CASE WHEN a.aggmtranstype <> 0 THEN pg_catalog.format_type(a.aggmtranstype, NULL) END AS moving_state_type,
           a.aggmtransspace AS moving_state_space, a.aggminitval AS moving_initial, {} AS moving_final,
           a.aggmfinalextra AS moving_final_extra, {moving_modify} AS moving_final_modify,
           (SELECT pg_catalog.quote_ident(sn.nspname) || '.' || o.oprname FROM pg_catalog.pg_operator o
             JOIN pg_catalog.pg_namespace sn ON sn.oid = o.oprnamespace WHERE o.oid = a.aggsortop) AS sort_operator,
           p.proparallel::text AS parallel
         FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid
           JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         WHERE {} AND {}
         ORDER BY n.nspname, p.proname, 5",
        acl::expression("p.proacl", "'f'", "p.proowner"),
        function("aggtransfn"),
        function("aggfinalfn"),
        function("aggcombinefn"),
        function("aggserialfn"),
        function("aggdeserialfn"),
        function("aggmtransfn"),
        function("aggminvtransfn"),
        function("aggmfinalfn"),
        user_schema("n"),
        not_member("pg_proc", "p.oid"),
    );
    Query::new(sql)
}

/// Event triggers.
pub fn event_triggers() -> Query<EventTrigger> {
    let sql = format!(
        "SELECT t.oid::int8 AS oid, t.evtname AS name, pg_catalog.pg_get_userbyid(t.evtowner) AS owner, t.evtevent AS event,
           coalesce(t.evttags, '{{}}') AS tags, t.evtfoid::regproc::text AS function, t.evtenabled::text AS enabled
         FROM pg_catalog.pg_event_trigger t WHERE {} ORDER BY t.evtname",
        not_member("pg_event_trigger", "t.oid")
    );
    Query::new(sql)
}

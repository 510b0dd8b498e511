//! Triggers, rules and row-level security policies, as `schema::trigger` models them.

use super::{Query, relation};
use crate::schema::trigger::{Policy, Rule, Trigger};

/// All triggers of tables and views; of those that a partition has from its parent only the ones enabled otherwise there.
pub fn triggers(version: u32) -> Query<Trigger> {
    Query::new(triggers_sql(version))
}

/// All rules other than views' own.
pub fn rules() -> Query<Rule> {
    Query::new(rules_sql())
}

/// All row-level security policies.
pub fn policies() -> Query<Policy> {
    Query::new(policies_sql())
}

fn triggers_sql(version: u32) -> String {
    // How a partition's copy is told from a trigger of its own: 11 and 12 only know by pg_depend, 13 and 14 by tgparentid and tgisinternal,
    // 15 and newer by tgparentid alone.
    let (join, cloned) = match version {
        130000.. => ("LEFT JOIN pg_catalog.pg_trigger u ON u.oid = g.tgparentid", "g.tgparentid <> 0"),
        110000.. => (
            "LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass \
             AND d.objid = g.oid AND d.refclassid = 'pg_catalog.pg_trigger'::pg_catalog.regclass \
             LEFT JOIN pg_catalog.pg_trigger u ON u.oid = d.refobjid",
            "u.oid IS NOT NULL",
        ),
        _ => ("LEFT JOIN pg_catalog.pg_trigger u ON false", "false"),
    };
    let table = relation::name("c", "n");
    format!(
        "SELECT g.oid::int8 AS oid, g.tgname AS name, {table} AS table, pg_catalog.pg_get_userbyid(c.relowner) AS owner, \
         c.relkind = 'f' AS foreign, pg_catalog.pg_get_triggerdef(g.oid) AS definition, \
         g.tgenabled::text AS enabled, {cloned} AS cloned \
         FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace {join} \
         WHERE CASE WHEN {cloned} THEN g.tgenabled <> u.tgenabled AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k \
             WHERE k.oid = g.tgconstraint AND k.contype = 'f') ELSE NOT g.tgisinternal END \
         AND {own} ORDER BY n.nspname, c.relname, g.tgname",
        own = relation::OWN,
    )
}

fn rules_sql() -> String {
    let table = relation::name("c", "n");
    format!(
        "SELECT r.oid::int8 AS oid, r.rulename AS name, {table} AS table, \
         pg_catalog.pg_get_userbyid(c.relowner) AS owner, pg_catalog.pg_get_ruledef(r.oid) AS definition, \
         r.ev_enabled::text AS enabled \
         FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE r.rulename <> '_RETURN' AND {own} ORDER BY n.nspname, c.relname, r.rulename",
        own = relation::OWN,
    )
}

fn policies_sql() -> String {
    let table = relation::name("c", "n");
    format!(
        "SELECT p.oid::int8 AS oid, p.polname AS name, {table} AS table, \
         pg_catalog.pg_get_userbyid(c.relowner) AS owner, p.polpermissive AS permissive, p.polcmd::text AS command, \
         ARRAY(SELECT o.rolname FROM pg_catalog.pg_roles o WHERE o.oid = ANY (p.polroles) ORDER BY o.rolname) AS roles, \
         pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS using, \
         pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS check \
         FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE {own} ORDER BY n.nspname, c.relname, p.polname",
        own = relation::OWN,
    )
}

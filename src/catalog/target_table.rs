//! A table as whoever applies changes to it must know it: its columns, how their values are compared, and what identifies a row.

use serde::Deserialize;

use super::relation;
use crate::error::Result;
use crate::sql::literal;
use crate::wire::Connection;

/// A table that changes are applied to.
#[derive(Debug, Clone, Deserialize)]
pub struct TargetTable {
    /// `r` for a table, `p` for a partitioned table, and others, as in `pg_class.relkind`.
    pub kind: String,
    /// Whether row security applies to this session, so that COPY would be refused.
    pub row_security: bool,
    /// Whether a trigger or rule of it acts in sessions with `session_replication_role = replica` too.
    pub acts_always: bool,
    /// The columns, in their order.
    pub columns: Vec<TargetColumn>,
    /// The columns of its primary key, or else of a unique index that can identify any row; empty when there is none.
    pub key: Vec<String>,
    /// Where it is a partition of which another server holds other rows: through what its changes go.
    pub root: Option<Root>,
    /// How many indexes compare rows with each other: unique ones, and those of exclusion constraints.
    pub unique_indexes: u32,
}

/// The partitioned table at the top of a partition's tree.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Root {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How many tables with rows are below it.
    pub leaves: usize,
}

/// A column of it.
#[derive(Debug, Clone, Deserialize)]
pub struct TargetColumn {
    /// The name.
    pub name: String,
    /// The data type's OID.
    pub type_oid: u32,
    /// The OID of the type under all domains.
    pub base_type: u32,
    /// The type modifier, -1 for none.
    pub type_modifier: i32,
    /// The type, as DDL writes it.
    pub type_name: String,
    /// What turns a text into a value of the type under all domains, as an expression's cast, without a modifier; `None` where a cast would not
    /// read the text as the type's input does.
    pub cast: Option<String>,
    /// Whether it is generated from other columns.
    pub generated: bool,
    /// Whether it is an identity column that only the system gives values to (`GENERATED ALWAYS AS IDENTITY`).
    pub identity_always: bool,
    /// Whether its collation may find different strings equal, or is one that isn't built in, which may.
    pub collated: bool,
    /// The type's equality operator as SQL text, such as `OPERATOR(pg_catalog.=)`; `None` when it has none.
    pub equality: Option<String>,
}

/// A table of a list.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    table: TargetTable,
}

/// The tables of a schema of the connected database by their names: the first `limit` from `first` on, in the order of their bytes.
pub async fn read_target_tables(
    connection: &mut Connection,
    schema: &str,
    first: &str,
    limit: usize,
) -> Result<Vec<(String, TargetTable)>> {
    let generated = if connection.version() >= 120_000 { "a.attgenerated <> ''" } else { "false" };
    let key_columns = if connection.version() >= 110_000 { "i.indnkeyatts" } else { "i.indnatts" };
    let sql = format!(
        "SELECT c.relkind::text AS kind, c.relname AS name, pg_catalog.row_security_active(c.oid) AS row_security, \
         EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND g.tgenabled IN ('A', 'R')) \
           OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled IN ('A', 'R')) AS acts_always, \
         {root} AS root, \
         (SELECT count(*) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)) AS unique_indexes, \
         coalesce((SELECT json_agg(json_build_object('name', a.attname, 'type_oid', a.atttypid::int8, \
            'base_type', b.type::int8, 'type_modifier', a.atttypmod, \
            'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod), 'generated', {generated}, \
            'cast', CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = 25 AND x.casttarget = b.type \
               AND x.castmethod <> 'b') THEN pg_catalog.format_type(b.type, -1) END, \
            'identity_always', a.attidentity = 'a', 'collated', a.attcollation NOT IN (0, 100, 950, 951), \
            'equality', {EQUALITY}) ORDER BY a.attnum) \
          FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL ({BASE_TYPE}) b JOIN pg_catalog.pg_type t ON t.oid = b.type \
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns, \
         coalesce((SELECT (SELECT json_agg(a.attname ORDER BY k.place) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.place <= {key_columns}) \
            FROM pg_catalog.pg_index i \
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attnotnull AND a.attnum = ANY (i.indkey)) \
            ORDER BY i.indisprimary DESC, i.indnatts, i.indexrelid LIMIT 1), '[]') AS key \
         FROM (SELECT t.oid, t.relkind, t.relname, t.relispartition FROM pg_catalog.pg_class t WHERE t.relname >= {} AND t.relkind IN ('r', 'p', 'f', 'v') \
           AND t.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = {}) ORDER BY t.relname LIMIT {limit}) c",
        literal(first),
        literal(schema),
        root = root(connection.version()),
    );
    let tables: Vec<Named> = super::fetch(connection, &sql).await?;
    Ok(tables.into_iter().map(|Named { name, table }| (name, table)).collect())
}

/// JSON of [`Root`] of the table `c`; NULL where any server puts the same rows into it. Between databases of two encodings, a hash of text puts them elsewhere,
/// too: that isn't known here.
fn root(version: u32) -> String {
    format!(
        "CASE WHEN c.relispartition THEN (WITH RECURSIVE up(oid, height) AS (\
             SELECT h.inhparent, 1 FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid \
             UNION ALL SELECT h.inhparent, up.height + 1 FROM up JOIN pg_catalog.pg_class x ON x.oid = up.oid AND x.relispartition \
               JOIN pg_catalog.pg_inherits h ON h.inhrelid = up.oid), \
           top AS (SELECT up.oid FROM up WHERE EXISTS (SELECT FROM up WHERE {placed_by} = 'server') ORDER BY up.height DESC LIMIT 1), \
           below(oid) AS (SELECT top.oid FROM top UNION ALL \
             SELECT h.inhrelid FROM below JOIN pg_catalog.pg_inherits h ON h.inhparent = below.oid) \
         SELECT json_build_object('schema', rn.nspname, 'name', r.relname, 'leaves', \
           (SELECT count(*) FROM below JOIN pg_catalog.pg_class l ON l.oid = below.oid WHERE l.relkind <> 'p')) \
         FROM top JOIN pg_catalog.pg_class r ON r.oid = top.oid JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace) END",
        placed_by = relation::placed_by("up.oid", version)
    )
}

/// The type under all domains of column `a`.
const BASE_TYPE: &str = "WITH RECURSIVE d(type) AS (SELECT a.atttypid UNION ALL \
     SELECT t.typbasetype FROM d JOIN pg_catalog.pg_type t ON t.oid = d.type WHERE t.typtype = 'd') \
     SELECT d.type FROM d JOIN pg_catalog.pg_type t ON t.oid = d.type WHERE t.typtype <> 'd'";

/// The equality operator of type `t`: that of its default B-tree or hash operator class, which for arrays, enums, ranges and
/// composite types is the class of the pseudo-type, and for others may be that of a type with the same bytes. The class is chosen first: the planner
/// would look at the operators of all classes for each column.
const EQUALITY: &str = "(SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) \
     FROM (SELECT k.opcfamily, k.opcintype, CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END AS equal \
       FROM pg_catalog.pg_opclass k JOIN pg_catalog.pg_am m ON m.oid = k.opcmethod AND m.amname IN ('btree', 'hash') \
       WHERE k.opcdefault AND (k.opcintype = t.oid \
         OR k.opcintype = pg_catalog.to_regtype(CASE WHEN t.typtype = 'e' THEN 'anyenum' WHEN t.typtype = 'r' THEN 'anyrange' \
              WHEN t.typtype = 'm' THEN 'anymultirange' WHEN t.typtype = 'c' THEN 'record' WHEN t.typcategory = 'A' THEN 'anyarray' END) \
         OR EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = t.oid AND x.casttarget = k.opcintype \
              AND x.castmethod = 'b' AND x.castcontext = 'i')) \
       ORDER BY k.opcintype = t.oid DESC, m.amname LIMIT 1) k \
     JOIN pg_catalog.pg_amop p ON p.amopfamily = k.opcfamily AND p.amoplefttype = k.opcintype AND p.amoprighttype = k.opcintype \
       AND p.amopstrategy = k.equal \
     JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace)";

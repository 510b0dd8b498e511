//! What of PostgreSQL itself the objects of a database use, and what of that another server doesn't have.
//!
//! In: the source's catalogs, its stored expressions too. Out: each use that the target's catalogs know nothing of. Both servers are asked, so no
//! list of what came and went with which major can go stale. What may fail: the connections.

use serde::{Deserialize, Serialize};

use super::{Query, fetch};
use crate::error::{Error, Result};
use crate::schema::Class;
use crate::sql::literal;
use crate::wire::Connection;

/// An object's use of something that comes with the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Use {
    /// The catalog of the object, or of the table that it belongs to.
    pub class: Class,
    /// Its OID there.
    pub oid: u32,
    /// The object, as the server describes it: `view app.orders`.
    pub object: String,
    /// What is used.
    pub kind: UseKind,
    /// Its name; of a column, with its relation's.
    pub name: String,
    /// Names of the argument types; of an operator, two, with an empty one where it has no such side.
    pub arguments: Vec<String>,
}

/// What is used, and so how the other server is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UseKind {
    /// A type.
    Type,
    /// A function that is called: one of this name that takes so many arguments will do.
    Call,
    /// A function that is named with its argument types: by an aggregate, an operator, a cast.
    Function,
    /// A function that has to be immutable, for an index is made of its results.
    Immutable,
    /// An operator: one of this name whose operands are these, or of a polymorphic type, will do.
    Operator,
    /// A system catalog or view.
    Relation,
    /// A column of one.
    Column,
    /// A configuration parameter.
    Setting,
}

/// The uses of what comes with the server, in objects that are users' own.
fn uses(version: u32) -> Query<Use> {
    let own = |class: &str, oid: &str| {
        format!(
            "{oid} >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.{class}'::regclass
               AND e.objid = {oid} AND e.deptype = 'e')"
        )
    };
    let described = |class: &str, oid: &str, sub: &str| {
        format!("pg_catalog.pg_describe_object('pg_catalog.{class}'::regclass, {oid}, {sub})")
    };
    let indexes = format!(
        "SELECT 'pg_class', i.indrelid, {}, coalesce(i.indexprs::text, '') || coalesce(i.indpred::text, '') FROM pg_catalog.pg_index i
         WHERE (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) AND {}",
        described("pg_class", "i.indexrelid", "0"),
        own("pg_class", "i.indrelid")
    );
    let mut expressions = vec![
        format!(
            "SELECT 'pg_class', r.ev_class, CASE r.rulename WHEN '_RETURN' THEN {} ELSE {} END, r.ev_action::text || coalesce(r.ev_qual::text, '')
             FROM pg_catalog.pg_rewrite r WHERE {}",
            described("pg_class", "r.ev_class", "0"),
            described("pg_rewrite", "r.oid", "0"),
            own("pg_class", "r.ev_class")
        ),
        format!(
            "SELECT 'pg_class', d.adrelid, {}, d.adbin::text FROM pg_catalog.pg_attrdef d WHERE {}",
            described("pg_attrdef", "d.oid", "0"),
            own("pg_class", "d.adrelid")
        ),
        format!(
            "SELECT CASE WHEN c.conrelid = 0 THEN 'pg_type' ELSE 'pg_class' END, CASE WHEN c.conrelid = 0 THEN c.contypid ELSE c.conrelid END, {}, c.conbin::text FROM pg_catalog.pg_constraint c WHERE c.conbin IS NOT NULL AND {} AND {}",
            described("pg_constraint", "c.oid", "0"),
            own("pg_class", "CASE WHEN c.conrelid = 0 THEN c.oid ELSE c.conrelid END"),
            own("pg_constraint", "c.oid")
        ),
        "SELECT x.class, x.oid, x.object, x.tree FROM index_expression x".to_owned(),
        format!(
            "SELECT 'pg_class', p.polrelid, {}, coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '') FROM pg_catalog.pg_policy p WHERE {}",
            described("pg_policy", "p.oid", "0"),
            own("pg_class", "p.polrelid")
        ),
        format!(
            "SELECT 'pg_class', t.tgrelid, {}, t.tgqual::text FROM pg_catalog.pg_trigger t WHERE t.tgqual IS NOT NULL AND {}",
            described("pg_trigger", "t.oid", "0"),
            own("pg_class", "t.tgrelid")
        ),
        format!(
            "SELECT 'pg_proc', p.oid, {}, p.proargdefaults::text FROM pg_catalog.pg_proc p WHERE p.proargdefaults IS NOT NULL AND {}",
            described("pg_proc", "p.oid", "0"),
            own("pg_proc", "p.oid")
        ),
    ];
    if version >= 140_000 {
        expressions.push(format!(
            "SELECT 'pg_proc', p.oid, {}, p.prosqlbody::text FROM pg_catalog.pg_proc p WHERE p.prosqlbody IS NOT NULL AND {}",
            described("pg_proc", "p.oid", "0"),
            own("pg_proc", "p.oid")
        ));
    }
    let types = [
        format!(
            "SELECT 'pg_class', c.oid, {}, a.atttypid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
             WHERE c.relkind IN ('r', 'p', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped AND {}",
            described("pg_class", "c.oid", "a.attnum"),
            own("pg_class", "c.oid")
        ),
        format!(
            "SELECT 'pg_proc', p.oid, {}, pg_catalog.unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype)
             FROM pg_catalog.pg_proc p WHERE {}",
            described("pg_proc", "p.oid", "0"),
            own("pg_proc", "p.oid")
        ),
        format!(
            "SELECT 'pg_type', t.oid, {}, t.typbasetype FROM pg_catalog.pg_type t WHERE t.typtype = 'd' AND {}",
            described("pg_type", "t.oid", "0"),
            own("pg_type", "t.oid")
        ),
        format!(
            "SELECT 'pg_proc', a.aggfnoid::oid, {}, a.aggtranstype FROM pg_catalog.pg_aggregate a WHERE {}",
            described("pg_proc", "a.aggfnoid", "0"),
            own("pg_proc", "a.aggfnoid")
        ),
    ];
    let functions = [
        format!(
            "SELECT 'pg_proc', a.aggfnoid::oid, {}, pg_catalog.unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
               a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[]) FROM pg_catalog.pg_aggregate a WHERE {}",
            described("pg_proc", "a.aggfnoid", "0"),
            own("pg_proc", "a.aggfnoid")
        ),
        format!(
            "SELECT 'pg_operator', o.oid, {}, o.oprcode::oid FROM pg_catalog.pg_operator o WHERE {}",
            described("pg_operator", "o.oid", "0"),
            own("pg_operator", "o.oid")
        ),
        format!(
            "SELECT 'pg_cast', c.oid, {}, c.castfunc FROM pg_catalog.pg_cast c WHERE {}",
            described("pg_cast", "c.oid", "0"),
            own("pg_cast", "c.oid")
        ),
        format!(
            "SELECT 'pg_opfamily', p.amprocfamily, {}, p.amproc::oid FROM pg_catalog.pg_amproc p WHERE {}",
            described("pg_opfamily", "p.amprocfamily", "0"),
            own("pg_opfamily", "p.amprocfamily")
        ),
        format!(
            "SELECT 'pg_class', t.tgrelid, {}, t.tgfoid FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal AND {}",
            described("pg_trigger", "t.oid", "0"),
            own("pg_class", "t.tgrelid")
        ),
    ];
    // Sets of columns are kept as bits from the lowest system column on (FirstLowInvalidHeapAttributeNumber).
    let lowest = if version >= 120_000 { 7 } else { 8 };
    let argument_types =
        "ARRAY(SELECT t.typname::text FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY a(oid, n)
             JOIN pg_catalog.pg_type t ON t.oid = a.oid ORDER BY a.n)";
    Query::new(format!(
        "WITH index_expression(class, oid, object, tree) AS ({indexes}),
           expression(class, oid, object, tree) AS ({}),
           used_type(class, holder, object, oid) AS ({}),
           named_function(class, holder, object, oid) AS ({}),
           indexed(class, holder, object, oid) AS (
             SELECT e.class, e.oid, e.object, m[1]::oid FROM index_expression e,
               pg_catalog.regexp_matches(e.tree, ':(?:funcid|opfuncid) (\\d+)', 'g') m
             UNION ALL SELECT e.class, e.oid, e.object, t.typoutput::oid FROM index_expression e,
               pg_catalog.regexp_matches(e.tree, '\\{{COERCEVIAIO :arg \\{{[A-Z]+ [^{{}}]*?:(?:var|funcresult|opresult)type (\\d+)', 'g') m
               JOIN pg_catalog.pg_type t ON t.oid = m[1]::oid),
           relation(class, holder, object, oid, columns) AS (SELECT e.class, e.oid, e.object, m[1]::oid, m[2] FROM expression e,
             pg_catalog.regexp_matches(e.tree, ':relid (\\d+)[^{{}}]*?:selectedCols \\(b([0-9 ]*)\\)', 'g') m)
         SELECT u.class, u.holder::int8 AS oid, u.object, 'type' AS kind, t.typname::text AS name, '{{}}'::text[] AS arguments
           FROM used_type u JOIN pg_catalog.pg_type t ON t.oid = u.oid AND t.oid < 16384
         UNION SELECT e.class, e.oid::int8, e.object, 'call', p.proname::text, {argument_types} FROM expression e,
             pg_catalog.regexp_matches(e.tree, ':(?:funcid|aggfnoid|winfnoid) (\\d+)', 'g') m
             JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid AND p.oid < 16384
         UNION SELECT n.class, n.holder::int8, n.object, 'function', p.proname::text, {argument_types}
           FROM named_function n JOIN pg_catalog.pg_proc p ON p.oid = n.oid AND p.oid < 16384
         UNION SELECT i.class, i.holder::int8, i.object, 'immutable', p.proname::text, {argument_types}
           FROM indexed i JOIN pg_catalog.pg_proc p ON p.oid = i.oid AND p.oid < 16384 AND p.provolatile = 'i'
         UNION SELECT e.class, e.oid::int8, e.object, 'operator', o.oprname::text, ARRAY[coalesce(l.typname, '')::text, coalesce(r.typname, '')::text]
           FROM expression e, pg_catalog.regexp_matches(e.tree, ':opno (\\d+)', 'g') m
             JOIN pg_catalog.pg_operator o ON o.oid = m[1]::oid AND o.oid < 16384
             LEFT JOIN pg_catalog.pg_type l ON l.oid = o.oprleft LEFT JOIN pg_catalog.pg_type r ON r.oid = o.oprright
         UNION SELECT r.class, r.holder::int8, r.object, 'relation', c.relname::text, '{{}}' FROM relation r JOIN pg_catalog.pg_class c
             ON c.oid = r.oid AND c.oid < 16384 AND c.relnamespace = 'pg_catalog'::regnamespace
         UNION SELECT r.class, r.holder::int8, r.object, 'column', c.relname || '.' || a.attname, '{{}}'
           FROM relation r JOIN pg_catalog.pg_class c ON c.oid = r.oid AND c.oid < 16384 AND c.relnamespace = 'pg_catalog'::regnamespace,
             pg_catalog.regexp_split_to_table(pg_catalog.btrim(r.columns), ' +') b
             JOIN pg_catalog.pg_attribute a ON b <> '' AND a.attnum = NULLIF(b, '')::int - {lowest}
           WHERE a.attrelid = c.oid AND a.attnum > 0
         UNION SELECT 'pg_proc', p.oid::int8, {}, 'setting', pg_catalog.split_part(c.setting, '=', 1), '{{}}'
           FROM pg_catalog.pg_proc p, pg_catalog.unnest(p.proconfig) c(setting) WHERE {}
         ORDER BY 3, 4, 5, 6",
        expressions.join("\n UNION ALL "),
        types.join("\n UNION ALL "),
        functions.join("\n UNION ALL "),
        described("pg_proc", "p.oid", "0"),
        own("pg_proc", "p.oid"),
    ))
}

/// The uses of what comes with the source's server and is not to be found on the target.
pub async fn missing(source: &mut Connection, target: &mut Connection) -> Result<Vec<Use>> {
    let uses = uses(source.version()).run(source).await?;
    if uses.is_empty() {
        return Ok(uses);
    }
    let asked = serde_json::to_string(&uses)
        .map_err(|e| Error::failed(format!("could not ask the target for what the source uses: {e}")))?;
    let system = "'pg_catalog'::regnamespace, 'information_schema'::regnamespace";
    // Settings with a dot belong to extensions, which may not be loaded yet.
    let sql = format!(
        "SELECT u.class, u.oid, u.object, u.kind, u.name, u.arguments
         FROM pg_catalog.json_to_recordset({}) u(class text, oid int8, object text, kind text, name text, arguments text[])
         WHERE NOT CASE u.kind
           WHEN 'type' THEN EXISTS (SELECT FROM pg_catalog.pg_type t
             WHERE t.typname = u.name AND t.typnamespace IN ({system}))
           WHEN 'call' THEN EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = u.name
             AND p.pronamespace IN ({system}) AND (p.provariadic <> 0
               OR pg_catalog.cardinality(u.arguments) BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs))
           WHEN 'function' THEN EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = u.name
             AND p.pronamespace IN ({system})
             AND ARRAY(SELECT t.typname::text FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY a(oid, n)
               JOIN pg_catalog.pg_type t ON t.oid = a.oid ORDER BY a.n) = u.arguments)
           WHEN 'immutable' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = u.name
             AND p.pronamespace IN ({system}) AND p.provolatile <> 'i'
             AND ARRAY(SELECT t.typname::text FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY a(oid, n)
               JOIN pg_catalog.pg_type t ON t.oid = a.oid ORDER BY a.n) = u.arguments)
           WHEN 'operator' THEN EXISTS (SELECT FROM pg_catalog.pg_operator o
             LEFT JOIN pg_catalog.pg_type l ON l.oid = o.oprleft LEFT JOIN pg_catalog.pg_type r ON r.oid = o.oprright
             WHERE o.oprname = u.name AND o.oprnamespace = 'pg_catalog'::regnamespace
               AND (coalesce(l.typname, '') = u.arguments[1] OR u.arguments[1] <> '' AND l.typtype = 'p')
               AND (coalesce(r.typname, '') = u.arguments[2] OR u.arguments[2] <> '' AND r.typtype = 'p'))
           WHEN 'relation' THEN EXISTS (SELECT FROM pg_catalog.pg_class c
             WHERE c.relname = u.name AND c.relnamespace = 'pg_catalog'::regnamespace)
           WHEN 'column' THEN EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
             WHERE c.relnamespace = 'pg_catalog'::regnamespace AND NOT a.attisdropped AND c.relname || '.' || a.attname = u.name)
           ELSE u.name ~ '\\.' OR EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE pg_catalog.lower(s.name) = pg_catalog.lower(u.name))
         END",
        literal(&asked)
    );
    fetch(target, &sql).await
}

//! What belongs to a database as a whole, or to the cluster: properties and roles.

use super::{by_name, facts};
use crate::harness::Database;

/// Properties of the database that differ: encoding, locale, comment, grants, settings.
pub(crate) fn properties(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    // The owner's own grants stand where nothing was granted: both are the same.
    const SQL: &str = "
SELECT fact.name, fact.value FROM pg_catalog.pg_database d CROSS JOIN LATERAL (VALUES
    ('encoding', pg_catalog.pg_encoding_to_char(d.encoding)),
    ('collation', d.datcollate),
    ('character type', d.datctype),
    ('owner', pg_catalog.pg_get_userbyid(d.datdba)),
    ('connection limit', d.datconnlimit::text),
    ('comment', pg_catalog.shobj_description(d.oid, 'pg_database')),
    ('grants', (SELECT pg_catalog.string_agg(item::text, ' ' ORDER BY item::text)
                FROM unnest(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) item))
) AS fact (name, value) WHERE d.datname = current_database()
UNION ALL
SELECT format('settings of role %s', coalesce(pg_catalog.pg_get_userbyid(nullif(s.setrole, 0)), '(all)')),
    (SELECT pg_catalog.string_agg(setting, ', ' ORDER BY setting) FROM unnest(s.setconfig) setting)
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
WHERE d.datname = current_database()";
    facts("database's", &by_name(source, SQL), &by_name(target, SQL))
}

/// The fixture's roles (`pgs…`) that differ: attributes, password, settings, memberships, comment.
pub(crate) fn roles(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    let old = source.cluster().major().min(target.cluster().major()) < 16;
    // From 16 on each membership says whether it inherits; before, the role does.
    let options = if old { "''" } else { "format(', inherit %s, set %s', m.inherit_option, m.set_option)" };
    let sql = format!(
        "
SELECT format('%I', a.rolname), format('%s', ROW(a.rolsuper, a.rolinherit, a.rolcreaterole, a.rolcreatedb,
    a.rolcanlogin, a.rolreplication, a.rolbypassrls, a.rolconnlimit, a.rolpassword, a.rolvaliduntil AT TIME ZONE 'UTC',
    pg_catalog.shobj_description(a.oid, 'pg_authid'),
    (SELECT pg_catalog.array_agg(setting ORDER BY setting) FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) setting
     WHERE s.setrole = a.oid AND s.setdatabase = 0)))
FROM pg_catalog.pg_authid a WHERE a.rolname LIKE 'pgs%'
UNION ALL
SELECT format('%s in %s', member.rolname, granted.rolname), format('admin %s', bool_or(m.admin_option)) || max({options})
FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_authid granted ON granted.oid = m.roleid
JOIN pg_catalog.pg_authid member ON member.oid = m.member WHERE granted.rolname LIKE 'pgs%'
GROUP BY member.rolname, granted.rolname"
    );
    facts("role", &by_name(source, &sql), &by_name(target, &sql))
}

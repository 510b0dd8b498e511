//! Access control lists as rows instead of `aclitem` text.

/// SQL that yields the JSON of `schema::Acl` for the `aclitem[]` in `column`. `kind` is the SQL of acldefault's kind, quotes
/// included (`'r'`, `'s'`, `'f'`, `'n'`, …), `owner` the SQL of the owner's OID.
pub fn expression(column: &str, kind: &str, owner: &str) -> String {
    difference(column, &format!("pg_catalog.acldefault({kind}, {owner})"))
}

/// The same for a column of a table, which nobody has privileges on by default.
pub fn column_expression(column: &str) -> String {
    difference(column, "'{}'::aclitem[]")
}

/// The same where an object starts with the privileges `base`, an `aclitem[]`, instead of the kind's default.
pub fn difference(column: &str, base: &str) -> String {
    format!(
        "CASE WHEN {column} IS NULL THEN pg_catalog.json_build_object('current', NULL, 'default', '[]'::json) \
         ELSE pg_catalog.json_build_object('current', {}, 'default', {}) END",
        exploded(column),
        exploded(base)
    )
}

/// The privileges in the order of the array, as a JSON array of `schema::Grant`.
fn exploded(acl: &str) -> String {
    format!(
        "(SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(\
         'grantor', pg_catalog.pg_get_userbyid(e.grantor), \
         'grantee', CASE WHEN e.grantee <> 0 THEN pg_catalog.pg_get_userbyid(e.grantee) END, \
         'privilege', e.privilege_type, 'grantable', e.is_grantable) ORDER BY e.ordinality), '[]'::json) \
         FROM pg_catalog.aclexplode(nullif({acl}, '{{}}'::aclitem[])) WITH ORDINALITY e(grantor, grantee, privilege_type, is_grantable, ordinality))"
    )
}

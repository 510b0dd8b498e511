//! GRANT and REVOKE: the difference between what an object has and what it was born with.

use super::{Context, Item, Plan, Section};
use crate::schema::table::Column;
use crate::schema::{Acl, Class, Grant, ObjectId};
use crate::sql::{ident, qualified};

/// The object that privileges are granted on.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The object.
    pub id: ObjectId,
    /// GRANT's word for its kind: `TABLE`, `SEQUENCE`, `FUNCTION`, `SCHEMA`, …
    pub kind: &'a str,
    /// Its schema, for kinds that have one.
    pub schema: Option<&'a str>,
    /// Its name within the schema, for the item's name: `film`, `f(integer)`.
    pub name: &'a str,
    /// Its quoted and qualified name, with arguments for functions.
    pub identity: &'a str,
    /// Owning role.
    pub owner: &'a str,
}

/// Adds the item that brings the object's privileges, or those of one of its columns (right after the object's), if they differ
/// from what a new object has.
pub fn add(context: &Context<'_>, plan: &mut Plan, subject: Subject<'_>, column: Option<&str>, acl: &Acl) {
    if !context.options.privileges {
        return;
    }
    let on = format!("{} {}", subject.kind, subject.identity);
    let privileges = Privileges::of(context, subject.kind, column);
    let create = statements(&privileges, &on, "", subject.owner, acl);
    if create.is_empty() {
        return;
    }
    // REVOKE on a table takes its columns' privileges away, too: all of them are one item, the table's own first.
    if let Some(item) = plan.items.last_mut().filter(|item| item.kind == "ACL" && item.id == subject.id) {
        item.create.extend(create);
        return;
    }
    let name = format!("{} {}", subject.kind, subject.name);
    let mut item = Item::new(subject.id, "ACL", Section::Privileges, subject.schema, name);
    item.owner = Some(subject.owner.to_owned());
    item.requires = vec![subject.id];
    item.create = create;
    plan.items.push(item);
}

/// Adds the privileges of tables, views, sequences and their columns.
pub fn relations(context: &Context<'_>, plan: &mut Plan) {
    let database = context.database;
    let mut relation = |oid, kind, schema: &str, name: &str, owner: &str, acl: &Acl, columns: &[Column]| {
        let id = ObjectId::new(Class::Relation, oid);
        let identity = qualified(schema, name);
        let subject = Subject { id, kind, schema: Some(schema), name, identity: &identity, owner };
        add(context, plan, subject, None, acl);
        for column in columns {
            add(context, plan, subject, Some(&column.name), &column.acl);
        }
    };
    // What belongs to an extension is among the changed privileges.
    for t in database.tables.iter().filter(|t| t.configuration.is_none()) {
        relation(t.oid, "TABLE", &t.schema, &t.name, &t.owner, &t.acl, &t.columns);
    }
    for v in &database.views {
        relation(v.oid, "TABLE", &v.schema, &v.name, &v.owner, &v.acl, &v.columns);
    }
    for s in database.sequences.iter().filter(|s| !s.configuration) {
        relation(s.oid, "SEQUENCE", &s.schema, &s.name, &s.owner, &s.acl, &[]);
    }
}

/// The privileges that a kind of object can have, and how one statement names them. `ALL` is written where the list holds
/// everything that the target knows: a GRANT of less must not grow into what a newer server has beyond, nor a REVOKE take from an
/// owner what the older server let every owner do (MAINTAIN, from 17 on).
#[derive(Debug, Clone)]
pub struct Privileges {
    every: Vec<&'static str>,
    column: Option<String>,
}

impl Privileges {
    /// Those of GRANT's `kind` (also the plural of ALTER DEFAULT PRIVILEGES).
    pub fn of(context: &Context<'_>, kind: &str, column: Option<&str>) -> Privileges {
        let every = every(kind, column.is_some(), context.target_version);
        Privileges { every, column: column.map(ident) }
    }

    /// Those of large objects, which are the same on every server.
    pub fn of_large_objects() -> Privileges {
        Privileges { every: every("LARGE OBJECT", false, 0), column: None }
    }

    fn list(&self, privileges: &[&str]) -> String {
        let column = self.column.as_ref().map(|c| format!("({c})")).unwrap_or_default();
        if self.every.iter().all(|p| privileges.contains(p)) {
            return format!("ALL{column}");
        }
        privileges.iter().map(|p| format!("{p}{column}")).collect::<Vec<_>>().join(", ")
    }
}

/// All privileges of a kind of object on a server of `version`.
fn every(kind: &str, column: bool, version: u32) -> Vec<&'static str> {
    let mut every = match kind {
        "TABLE" | "TABLES" if column => return vec!["SELECT", "INSERT", "UPDATE", "REFERENCES"],
        "TABLE" | "TABLES" => {
            vec!["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
        }
        "SEQUENCE" | "SEQUENCES" => vec!["USAGE", "SELECT", "UPDATE"],
        "FUNCTION" | "FUNCTIONS" | "PROCEDURE" => vec!["EXECUTE"],
        "SCHEMA" | "SCHEMAS" => vec!["USAGE", "CREATE"],
        "DATABASE" => vec!["CREATE", "TEMPORARY", "CONNECT"],
        "LARGE OBJECT" | "LARGE OBJECTS" => vec!["SELECT", "UPDATE"],
        _ => vec!["USAGE"],
    };
    if matches!(kind, "TABLE" | "TABLES") && version >= 170_000 {
        every.push("MAINTAIN");
    }
    every
}

/// What one grantor gave one grantee.
#[derive(Debug, PartialEq, Eq)]
struct Given<'a> {
    grantor: &'a str,
    grantee: Option<&'a str>,
    plain: Vec<&'a str>,
    grantable: Vec<&'a str>,
}

fn group(grants: &[Grant]) -> Vec<Given<'_>> {
    let mut given: Vec<Given<'_>> = Vec::new();
    for grant in grants {
        let (grantor, grantee) = (grant.grantor.as_str(), grant.grantee.as_deref());
        let index =
            given.iter().position(|g| g.grantor == grantor && g.grantee == grantee).unwrap_or_else(|| {
                given.push(Given { grantor, grantee, plain: Vec::new(), grantable: Vec::new() });
                given.len() - 1
            });
        let list = if grant.grantable { &mut given[index].grantable } else { &mut given[index].plain };
        list.push(&grant.privilege);
        list.sort_unstable();
    }
    given
}

/// Statements that turn the privileges `acl.default` into `acl.current`. `on` is what follows ON, `prefix` what comes before
/// GRANT or REVOKE. A grant by another role than the owner runs under that role.
pub fn statements(privileges: &Privileges, on: &str, prefix: &str, owner: &str, acl: &Acl) -> Vec<String> {
    let Some(current) = &acl.current else { return Vec::new() };
    let (current, default) = (group(current), group(&acl.default));
    let mut statements = Vec::new();
    for given in default.iter().filter(|g| !current.contains(g)) {
        let from = grantee(given.grantee);
        if !given.plain.is_empty() {
            let list = privileges.list(&given.plain);
            statements.push(format!("{prefix}REVOKE {list} ON {on} FROM {from}"));
        }
        if !given.grantable.is_empty() {
            let list = privileges.list(&given.grantable);
            statements.push(format!("{prefix}REVOKE GRANT OPTION FOR {list} ON {on} FROM {from}"));
        }
    }
    for given in current.iter().filter(|g| !default.contains(g)) {
        let foreign = prefix.is_empty() && given.grantor != owner;
        if foreign {
            statements.push(format!("SET ROLE {}", ident(given.grantor)));
        }
        let to = grantee(given.grantee);
        if !given.plain.is_empty() {
            let list = privileges.list(&given.plain);
            statements.push(format!("{prefix}GRANT {list} ON {on} TO {to}"));
        }
        if !given.grantable.is_empty() {
            let list = privileges.list(&given.grantable);
            statements.push(format!("{prefix}GRANT {list} ON {on} TO {to} WITH GRANT OPTION"));
        }
        if foreign {
            statements.push("RESET ROLE".to_owned());
        }
    }
    statements
}

fn grantee(role: Option<&str>) -> String {
    role.map_or_else(|| "PUBLIC".to_owned(), ident)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(grantor: &str, grantee: Option<&str>, privilege: &str, grantable: bool) -> Grant {
        Grant {
            grantor: grantor.to_owned(),
            grantee: grantee.map(str::to_owned),
            privilege: privilege.to_owned(),
            grantable,
        }
    }

    fn privileges(kind: &str, target: u32, column: Option<&str>) -> Privileges {
        Privileges { every: every(kind, column.is_some(), target), column: column.map(ident) }
    }

    #[test]
    fn unchanged_privileges_need_no_statement() {
        let owner = vec![grant("o", Some("o"), "USAGE", false)];
        let acl = Acl { current: Some(owner.clone()), default: owner };
        assert!(statements(&privileges("TYPE", 150_000, None), "TYPE x", "", "o", &acl).is_empty());
        let acl = Acl { current: None, default: vec![grant("o", None, "USAGE", false)] };
        assert!(statements(&privileges("TYPE", 150_000, None), "TYPE x", "", "o", &acl).is_empty());
    }

    #[test]
    fn what_public_lost_is_revoked_and_what_others_granted_is_granted_under_their_role() {
        let acl = Acl {
            current: Some(vec![
                grant("o", Some("a"), "EXECUTE", true),
                grant("a", Some("b"), "EXECUTE", false),
            ]),
            default: vec![grant("o", None, "EXECUTE", false)],
        };
        assert_eq!(
            statements(&privileges("FUNCTION", 150_000, None), "FUNCTION f()", "", "o", &acl),
            [
                "REVOKE ALL ON FUNCTION f() FROM PUBLIC",
                "GRANT ALL ON FUNCTION f() TO \"a\" WITH GRANT OPTION",
                "SET ROLE \"a\"",
                "GRANT ALL ON FUNCTION f() TO \"b\"",
                "RESET ROLE",
            ]
        );
    }

    #[test]
    fn all_privileges_of_an_older_server_do_not_grow_with_the_target() {
        let all = every("TABLE", false, 160_000);
        let grants =
            |grantee: &str| all.iter().map(|p| grant("o", Some(grantee), p, false)).collect::<Vec<_>>();
        let acl = Acl { current: Some(grants("a")), default: grants("o") };
        let mut list = all.clone();
        list.sort_unstable();
        let list = list.join(", ");
        assert_eq!(
            statements(&privileges("TABLE", 170_000, None), "TABLE t", "", "o", &acl),
            [format!("REVOKE {list} ON TABLE t FROM \"o\""), format!("GRANT {list} ON TABLE t TO \"a\"")]
        );
    }

    #[test]
    fn a_column_is_named_after_each_privilege() {
        let acl = Acl {
            current: Some(vec![
                grant("o", Some("a"), "SELECT", false),
                grant("o", Some("a"), "UPDATE", false),
            ]),
            default: Vec::new(),
        };
        assert_eq!(
            statements(&privileges("TABLE", 180_000, Some("c d")), "TABLE t", "", "o", &acl),
            ["GRANT SELECT(\"c d\"), UPDATE(\"c d\") ON TABLE t TO \"a\""]
        );
    }
}

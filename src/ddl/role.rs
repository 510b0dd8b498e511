//! Roles: the ones that a database refers to and the target doesn't have.

use std::collections::HashSet;

use super::setting::set_clause;
use super::{Item, Section};
use crate::schema::role::{Membership, Role};
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal};

/// Names of roles that belong to a provider of managed servers, by their beginning.
const PROVIDERS: [&str; 12] = [
    "rds", "cloudsql", "azure", "_aiven", "aiven", "avnadmin", "neon_", "supabase", "alloydb", "doadmin",
    "crunchy_", "tsdb",
];

/// Whether a role comes with the server or its provider, so that it is never created.
pub fn is_provided(role: &Role) -> bool {
    role.bootstrap || is_provided_name(&role.name)
}

fn is_provided_name(name: &str) -> bool {
    name.starts_with("pg_") || PROVIDERS.iter().any(|p| name.starts_with(p))
}

/// Items that create the roles not in `existing`, then their memberships and settings. Roles that exist are left as they are. The
/// statements that hold a password verifier are marked secret.
pub fn items(roles: &[Role], existing: &HashSet<String>, target_version: u32) -> Vec<Item> {
    let missing: Vec<&Role> =
        roles.iter().filter(|r| !is_provided(r) && !existing.contains(&r.name)).collect();
    let mut items: Vec<Item> = missing.iter().map(|role| create(role)).collect();
    for role in &missing {
        for membership in &role.memberships {
            // Predefined roles come and go with versions; a membership in one that the target lacks fails by itself.
            let known = existing.contains(&membership.role)
                || membership.role.starts_with("pg_")
                || missing.iter().any(|r| r.name == membership.role);
            if known {
                items.push(grant(role, membership, target_version));
            }
        }
    }
    items
}

fn create(role: &Role) -> Item {
    let name = ident(&role.name);
    let mut item =
        Item::new(ObjectId::new(Class::Role, role.oid), "ROLE", Section::PreData, None, &role.name);
    let mut sql = format!("CREATE ROLE {name}");
    for (set, unset, is_set) in [
        ("LOGIN", "NOLOGIN", role.login),
        ("INHERIT", "NOINHERIT", role.inherit),
        ("CREATEROLE", "NOCREATEROLE", role.create_role),
        ("CREATEDB", "NOCREATEDB", role.create_database),
    ] {
        sql.push_str(&format!(" {}", if is_set { set } else { unset }));
    }
    if role.connection_limit != -1 {
        sql.push_str(&format!(" CONNECTION LIMIT {}", role.connection_limit));
    }
    if let Some(until) = &role.valid_until {
        sql.push_str(&format!(" VALID UNTIL {}", literal(until)));
    }
    item.create.push(sql);
    // Only a superuser may give these, so that each fails on its own.
    for (attribute, is_set) in
        [("SUPERUSER", role.superuser), ("REPLICATION", role.replication), ("BYPASSRLS", role.bypass_rls)]
    {
        if is_set {
            item.decorate.push(format!("ALTER ROLE {name} {attribute}"));
        }
    }
    if let Some(verifier) = &role.verifier {
        item.decorate.push(format!("ALTER ROLE {name} PASSWORD {}", literal(&verifier.0)));
        item.secret = true;
    }
    for setting in role.settings.iter().filter_map(|s| set_clause(s)) {
        item.decorate.push(format!("ALTER ROLE {name} {setting}"));
    }
    if let Some(comment) = &role.comment {
        item.decorate.push(format!("COMMENT ON ROLE {name} IS {}", literal(comment)));
    }
    item
}

fn grant(role: &Role, membership: &Membership, target_version: u32) -> Item {
    let tag = format!("{} TO {}", membership.role, role.name);
    let id = ObjectId::new(Class::Role, role.oid);
    let mut item = Item::new(id, "ROLE MEMBERSHIP", Section::PreData, None, tag);
    let mut options = Vec::new();
    if membership.admin {
        options.push(if target_version >= 160_000 { "ADMIN TRUE" } else { "ADMIN OPTION" });
    }
    if target_version >= 160_000 {
        // A membership of an older server inherits as its role does, which is what INHERIT's default means, too.
        match membership.inherit {
            Some(true) => options.push("INHERIT TRUE"),
            Some(false) => options.push("INHERIT FALSE"),
            None => {}
        }
        if membership.set == Some(false) {
            options.push("SET FALSE");
        }
    }
    let with = if options.is_empty() { String::new() } else { format!(" WITH {}", options.join(", ")) };
    item.create.push(format!("GRANT {} TO {}{with}", ident(&membership.role), ident(&role.name)));
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Role {
        Role {
            oid: 1,
            name: name.to_owned(),
            superuser: false,
            inherit: true,
            create_role: false,
            create_database: false,
            login: true,
            replication: false,
            bypass_rls: false,
            connection_limit: -1,
            valid_until: None,
            verifier: None,
            settings: Vec::new(),
            comment: None,
            bootstrap: false,
            memberships: Vec::new(),
        }
    }

    #[test]
    fn only_missing_roles_that_no_provider_made_are_created() {
        let roles = [role("app"), role("rds_superuser"), role("pg_monitor"), role("there")];
        let items = items(&roles, &HashSet::from(["there".to_owned()]), 180_000);
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].create, ["CREATE ROLE \"app\" LOGIN INHERIT NOCREATEROLE NOCREATEDB"]);
    }

    #[test]
    fn membership_options_follow_the_target_version() {
        let mut member = role("m");
        let app = Membership {
            role: "app".to_owned(),
            admin: true,
            inherit: Some(false),
            set: None,
            grantor: None,
        };
        member.memberships = vec![app];
        let roles = [role("app"), member];
        let sql = |version| items(&roles, &HashSet::new(), version)[2].create[0].clone();
        assert_eq!(sql(150_000), "GRANT \"app\" TO \"m\" WITH ADMIN OPTION");
        assert_eq!(sql(180_000), "GRANT \"app\" TO \"m\" WITH ADMIN TRUE, INHERIT FALSE");
    }
}

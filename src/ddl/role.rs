//! Roles: the ones that a database refers to and the target doesn't have.

use std::collections::HashSet;

use super::note::security_label;
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

/// Whether a role of this name comes with the server or its provider.
pub fn is_provided_name(name: &str) -> bool {
    name.starts_with("pg_") || PROVIDERS.iter().any(|p| name.starts_with(p))
}

/// What the target is, as far as roles are concerned.
#[derive(Debug, Clone)]
pub struct Target {
    /// Names of the roles that it has.
    pub existing: HashSet<String>,
    /// `server_version_num`.
    pub version: u32,
    /// The role that makes the others is a superuser, and may grant in the name of others.
    pub superuser: bool,
}

/// Items that create the roles which the target doesn't have, then their memberships, granted by whom they are on the source where that
/// is possible. Roles that exist are left as they are. The statements that hold a password verifier are marked secret.
pub fn items(roles: &[Role], target: &Target) -> Vec<Item> {
    let missing: Vec<&Role> =
        roles.iter().filter(|r| !is_provided(r) && !target.existing.contains(&r.name)).collect();
    let mut items: Vec<Item> = missing.iter().map(|role| create(role, target.version)).collect();
    // Predefined roles come and go with versions; a membership in one that the target lacks fails by itself.
    let known = |name: &str| {
        target.existing.contains(name) || name.starts_with("pg_") || missing.iter().any(|r| r.name == name)
    };
    let mut memberships: Vec<(&Role, &Membership)> = missing
        .iter()
        .flat_map(|role| role.memberships.iter().map(move |membership| (*role, membership)))
        .filter(|(_, membership)| known(&membership.role))
        .collect();
    // Who grants a role must have been given its ADMIN option before.
    let mut admins: HashSet<(&str, &str)> = HashSet::new();
    while !memberships.is_empty() {
        let (mut ready, waiting): (Vec<_>, Vec<_>) = memberships.into_iter().partition(|(_, m)| {
            m.grantor.as_deref().is_none_or(|grantor| {
                !known(grantor)
                    || target.existing.contains(grantor)
                    || admins.contains(&(m.role.as_str(), grantor))
            })
        });
        memberships = waiting;
        if ready.is_empty() {
            // Grantors whose own right doesn't come along: the target says so for each.
            ready = std::mem::take(&mut memberships);
        }
        for (role, membership) in ready {
            if membership.admin {
                admins.insert((&membership.role, &role.name));
            }
            let grantor = membership.grantor.as_deref().filter(|name| target.superuser && known(name));
            items.push(grant(role, membership, grantor, target.version));
        }
    }
    items
}

fn create(role: &Role, target_version: u32) -> Item {
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
    for setting in role.settings.iter().filter_map(|s| set_clause(s, target_version)) {
        item.decorate.push(format!("ALTER ROLE {name} {setting}"));
    }
    if let Some(comment) = &role.comment {
        item.decorate.push(format!("COMMENT ON ROLE {name} IS {}", literal(comment)));
    }
    let subject = format!("ROLE {name}");
    item.decorate.extend(role.labels.iter().map(|label| security_label(&subject, label)));
    item
}

fn grant(role: &Role, membership: &Membership, grantor: Option<&str>, target_version: u32) -> Item {
    // From 16 on a role may be granted more than once, each time by another one.
    let by = grantor.map(|grantor| format!(" GRANTED BY {}", ident(grantor))).unwrap_or_default();
    let tag = format!("{} TO {}{by}", membership.role, role.name);
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
    item.create.push(format!("GRANT {} TO {}{with}{by}", ident(&membership.role), ident(&role.name)));
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
            labels: Vec::new(),
            bootstrap: false,
            memberships: Vec::new(),
        }
    }

    fn target(version: u32, existing: &[&str]) -> Target {
        Target { existing: existing.iter().map(|&name| name.to_owned()).collect(), version, superuser: true }
    }

    fn member_of(role: &str, admin: bool, grantor: &str) -> Membership {
        let grantor = Some(grantor.to_owned());
        Membership { role: role.to_owned(), admin, inherit: Some(false), set: None, grantor }
    }

    #[test]
    fn only_missing_roles_that_no_provider_made_are_created() {
        let roles = [role("app"), role("rds_superuser"), role("pg_monitor"), role("there")];
        let items = items(&roles, &target(180_000, &["there"]));
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].create, ["CREATE ROLE \"app\" LOGIN INHERIT NOCREATEROLE NOCREATEDB"]);
    }

    #[test]
    fn membership_options_follow_the_target_version() {
        let mut member = role("m");
        member.memberships = vec![member_of("app", true, "gone")];
        let roles = [role("app"), member];
        let sql = |version| items(&roles, &target(version, &[]))[2].create[0].clone();
        assert_eq!(sql(150_000), "GRANT \"app\" TO \"m\" WITH ADMIN OPTION");
        assert_eq!(sql(180_000), "GRANT \"app\" TO \"m\" WITH ADMIN TRUE, INHERIT FALSE");
    }

    #[test]
    fn who_grants_is_given_the_right_first() {
        let (mut a, mut z) = (role("a"), role("z"));
        a.memberships = vec![member_of("app", false, "z")];
        z.memberships = vec![Membership { grantor: None, ..member_of("app", true, "") }];
        let roles = [role("app"), a, z];
        let grants = |superuser| {
            let items = items(&roles, &Target { superuser, ..target(160_000, &[]) });
            items[3..].iter().map(|item| item.create[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            grants(true),
            [
                "GRANT \"app\" TO \"z\" WITH ADMIN TRUE, INHERIT FALSE",
                "GRANT \"app\" TO \"a\" WITH INHERIT FALSE GRANTED BY \"z\"",
            ]
        );
        assert!(grants(false).iter().all(|grant| !grant.contains("GRANTED BY")));
    }
}

//! Judges what the roles may do: read on the source, create and give away on the target.

use std::collections::BTreeSet;

use super::{Facts, Finding, Severity};
use crate::catalog;
use crate::ddl::role::is_provided;
use crate::migrate::roles::Passwords;
use crate::schema::role::Role;
use crate::sql::ident;

use Severity::{Blocker, Info, Warning};

/// Roles that own something or are granted something, and that the target doesn't have.
pub(super) fn roles(facts: &Facts) -> Vec<Finding> {
    if !facts.options.owners && !facts.options.privileges {
        return Vec::new();
    }
    let target = &facts.target;
    let may_create = target.superuser || target.create_role;
    let missing = facts.roles.iter().filter(|role| !target.roles.iter().any(|known| known.name == role.name));
    missing
        .map(|role| {
            let object = format!("role \"{}\"", role.name);
            if is_provided(role) {
                Finding::new(Warning, object, "comes with the source's server and does not exist on the target: what it owns or is granted stays behind")
                    .with_hint("Run with --no-owner and --no-privileges, or create the role on the target.")
            } else if may_create {
                Finding::new(Info, object, "does not exist on the target and will be created there")
            } else {
                Finding::new(
                    Warning,
                    object,
                    format!("does not exist on the target, and role \"{}\" may not create it", target.user),
                )
                .with_hint(format!(
                    "As a role with CREATEROLE on the target: CREATE ROLE {}; or run with --no-owner and --no-privileges.",
                    ident(&role.name)
                ))
            }
        })
        .collect()
}

/// Superusers of the source whose names the target's provider keeps for itself.
pub(super) fn reserved_roles(facts: &Facts) -> Vec<Finding> {
    const SETTING: &str = "aiven.pg_security_agent_reserved_roles";
    let Some(list) = facts.target_surroundings.settings.get(SETTING) else { return Vec::new() };
    let reserved: BTreeSet<&str> = list.split(',').map(str::trim).collect();
    let taken = facts.roles.iter().filter(|role| role.superuser && reserved.contains(role.name.as_str()));
    taken
        .map(|role| {
            Finding::new(
                Blocker,
                format!("role \"{}\"", role.name),
                "is a superuser on the source, and its name is reserved on the target",
            )
            .with_hint(format!(
                "On the source: ALTER ROLE {} NOSUPERUSER; or leave it out with --exclude-role.",
                ident(&role.name)
            ))
        })
        .collect()
}

/// What happens to passwords.
pub(super) fn passwords(facts: &Facts) -> Vec<Finding> {
    let missing =
        |role: &&Role| !is_provided(role) && !facts.target.roles.iter().any(|known| known.name == role.name);
    let created: Vec<&Role> = facts.roles.iter().filter(missing).filter(|role| role.login).collect();
    let md5 = created.iter().filter(|r| r.verifier.as_ref().is_some_and(|v| v.0.starts_with("md5"))).count();
    let mut findings = Vec::new();
    if md5 > 0 {
        findings.push(
            Finding::new(
                Info,
                "passwords",
                format!("of {md5} roles are stored as MD5 and stay so: a target that asks for scram-sha-256 refuses them"),
            )
            .with_hint("Set them anew on the target, or ask for md5 in its pg_hba.conf until then."),
        );
    }
    let hidden = !facts.verifiers_readable && facts.passwords == Passwords::Keep;
    if (hidden || facts.passwords == Passwords::Placeholder) && !created.is_empty() {
        findings.push(
            Finding::new(Info, "passwords", format!("of {} roles become random placeholders", created.len()))
                .with_hint("--role-password-file or --show-passwords tells them."),
        );
    }
    findings
}

/// Owners whose role the target's role can't take on.
pub(super) fn owners(facts: &Facts) -> Vec<Finding> {
    let target = &facts.target;
    if !facts.options.owners || target.superuser {
        return Vec::new();
    }
    let owners: BTreeSet<&String> = facts.plan.items.iter().filter_map(|item| item.owner.as_ref()).collect();
    let foreign = target.roles.iter().filter(|role| !role.member && owners.contains(&role.name));
    foreign
        .map(|role| {
            Finding::new(
                Warning,
                format!("role \"{}\"", role.name),
                format!(
                    "owns objects of the source, and role \"{}\" can't give them to it on the target",
                    target.user
                ),
            )
            .with_hint(format!(
                "Grant it on the target: GRANT {} TO {}; or run with --no-owner.",
                ident(&role.name),
                ident(&target.user)
            ))
        })
        .collect()
}

/// What the target's role may not create.
pub(super) fn unprivileged(facts: &Facts) -> Vec<Finding> {
    let items = facts.unprivileged.iter();
    items
        .map(|(&item, reason)| {
            let item = &facts.plan.items[item];
            let object = format!("source {}", item.key());
            let what = format!("{reason}; role \"{}\" of the target is none", facts.target.user);
            let by_hand = match item.kind {
                "EXTENSION" => format!("As a superuser of the target: {}; or run", item.create.join("; ")),
                _ => "Run".to_owned(),
            };
            Finding::new(Blocker, object, what).with_hint(format!(
                "{by_hand} with --skip-unprivileged to leave it out with all that needs it, or migrate as a superuser of the target."
            ))
        })
        .collect()
}

pub(super) fn unreadable(facts: &Facts) -> Vec<Finding> {
    let user = &facts.source.user;
    let mut findings: Vec<Finding> = facts
        .unreadable
        .iter()
        .map(|relation| {
            let object = format!("source {} \"{}.{}\"", relation.kind, relation.schema, relation.name);
            let (schema, role) = (ident(&relation.schema), ident(user));
            let kind = if relation.kind == "sequence" { "SEQUENCES" } else { "TABLES" };
            if relation.schema_denied {
                // The same for each of its relations, and said once.
                let object = format!("source schema \"{}\"", relation.schema);
                Finding::new(Blocker, object, format!("role \"{user}\" has no USAGE right on it"))
                    .with_hint(format!("Grant it: GRANT USAGE ON SCHEMA {schema} TO {role};"))
            } else if relation.denied {
                Finding::new(Blocker, object, format!("role \"{user}\" has no SELECT right on it"))
                    .with_hint(format!("Grant it: GRANT SELECT ON ALL {kind} IN SCHEMA {schema} TO {role};"))
            } else {
                Finding::new(Blocker, object, format!("row-level security hides rows from role \"{user}\""))
                    .with_hint(format!(
                        "Use the table's owner or a superuser, or on the source: ALTER ROLE {role} BYPASSRLS;"
                    ))
            }
        })
        .collect();
    if facts.unreadable_large_objects > 0 {
        findings.push(
            Finding::new(
                Blocker,
                "source large objects",
                format!("role \"{user}\" has no SELECT right on {} of them", facts.unreadable_large_objects),
            )
            .with_hint("Grant SELECT on each of them to the role, or use their owner or a superuser."),
        );
    }
    findings
}

/// Relations that other sessions keep locked against everything.
pub(super) fn locked(blockers: &[catalog::server::Blocker]) -> Vec<Finding> {
    blockers
        .iter()
        .map(|blocker| {
            let object = format!("source table \"{}\"", blocker.table);
            Finding::new(
                Blocker,
                object,
                format!("is locked against reading, so nothing more was checked: {blocker}"),
            )
            .with_hint(
                "Wait for that transaction to end, or end it with pg_terminate_backend or ROLLBACK PREPARED.",
            )
        })
        .collect()
}

//! Judges what is to be made against what the target has and can have.

use std::collections::BTreeSet;

use super::super::scope;
use super::{Facts, Finding, Severity};
use crate::ddl;
use crate::schema::table::{Persistence, TableKind};
use crate::state::Phase;

use Severity::{Blocker, Info, Warning};

/// Objects of the same trouble that are named one by one; the rest are counted.
const NAMED: usize = 20;

/// `public`, extensions and languages, which may well be there, and pgstream's own schema.
fn is_in_every_database((group, name): &ddl::Name) -> bool {
    match *group {
        "extension" | "language" => true,
        "schema" => ["public", crate::state::SCHEMA].contains(&name.as_str()),
        _ => name.strip_prefix(crate::state::SCHEMA).is_some_and(|rest| rest.starts_with('.')),
    }
}

pub(super) fn state(facts: &Facts) -> Vec<Finding> {
    let migration = match &facts.migration {
        Err(finding) => return vec![finding.clone()],
        Ok(None) => return Vec::new(),
        Ok(Some(migration)) => migration,
    };
    let same_cluster =
        facts.source.system_identifier.as_ref().is_none_or(|id| *id == migration.source_system_identifier);
    if !same_cluster || migration.source_database != facts.source.database {
        return vec![
            Finding::new(
                Blocker,
                "target",
                format!(
                    "the database holds a migration from another source, database \"{}\" of cluster {}",
                    migration.source_database, migration.source_system_identifier
                ),
            )
            .with_hint("Name that source, choose another target database, or end that migration with pgstream cleanup."),
        ];
    }
    let what = match migration.phase {
        Phase::Done => "the database holds a migration from this source that is done".to_owned(),
        phase => format!(
            "the database holds a migration from this source in phase {phase}; pgstream migrate resumes it"
        ),
    };
    vec![Finding::new(Info, "target", what)]
}

/// Without state of ours, what has the same name was not made by us.
pub(super) fn objects_in_the_way(facts: &Facts) -> Vec<Finding> {
    if !matches!(facts.migration, Ok(None)) {
        return Vec::new();
    }
    let wanted = facts.plan.names();
    let there: Vec<&ddl::Name> =
        wanted.intersection(&facts.present).filter(|name| !is_in_every_database(name)).collect();
    let hint = "Choose an empty target database, or drop what is in the way.";
    let mut findings: Vec<Finding> = there
        .iter()
        .take(NAMED)
        .map(|(group, name)| {
            Finding::new(
                Blocker,
                format!("target {group} \"{name}\""),
                "exists already, and pgstream did not make it",
            )
            .with_hint(hint)
        })
        .collect();
    if facts.taken_large_objects > 0 {
        let what = format!("{} of the source's OIDs are taken there", facts.taken_large_objects);
        findings.push(Finding::new(Blocker, "target large objects", what).with_hint(hint));
    }
    if there.len() > NAMED {
        let what = format!("{} more objects of the same names exist already", there.len() - NAMED);
        findings.push(Finding::new(Blocker, "target", what).with_hint(hint));
    }
    findings
}

/// Collations of the system that columns name: initdb makes them from the host's locales, so they differ between hosts.
pub(super) fn collations(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &facts.database.tables {
        for column in &table.columns {
            let Some(collation) = column.collation.as_deref().and_then(system_collation) else { continue };
            if !facts.target.collations.contains(&collation) {
                findings.push(
                    Finding::new(
                        Blocker,
                        format!("collation \"{collation}\""),
                        format!(
                            "is used by column \"{}\" of table \"{}.{}\" and does not exist on the target",
                            column.name, table.schema, table.name
                        ),
                    )
                    .with_hint("Install the locale on the target's host, then run SELECT pg_import_system_collations('pg_catalog');"),
                );
            }
        }
    }
    findings
}

/// The name behind `pg_catalog.`, without quotes.
fn system_collation(qualified: &str) -> Option<String> {
    let name = qualified.strip_prefix("pg_catalog.").or_else(|| qualified.strip_prefix("\"pg_catalog\"."))?;
    let bare = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')).unwrap_or(name);
    Some(bare.replace("\"\"", "\""))
}

pub(super) fn tablespaces(facts: &Facts) -> Vec<Finding> {
    let database = &facts.database;
    let tables = database.tables.iter().filter_map(|table| table.tablespace.as_ref());
    let indexes = database.indexes.iter().filter_map(|index| index.tablespace.as_ref());
    let views = database.views.iter().filter_map(|view| view.tablespace.as_ref());
    let created = facts.created.as_ref().map(|_| &database.properties.tablespace);
    let used: BTreeSet<&str> = tables
        .chain(indexes)
        .chain(views)
        .chain(created)
        .filter_map(|name| facts.options.tablespace(name))
        .collect();
    used.into_iter()
        .filter(|name| !facts.target.tablespaces.iter().any(|there| there == name))
        .map(|name| {
            Finding::new(Blocker, format!("tablespace \"{name}\""), "does not exist on the target").with_hint(
                "Create it there, name another one with --tablespace-mapping, or run with --no-tablespaces to put everything into the default one.",
            )
        })
        .collect()
}

/// Which providers a server has loaded can't be asked.
pub(super) fn security_labels(facts: &Facts) -> Vec<Finding> {
    if !facts.options.security_labels {
        return Vec::new();
    }
    let objects = facts.database.security_labels.iter().map(|label| &label.label.provider);
    let database = facts.database.properties.labels.iter().map(|label| &label.provider);
    let roles = facts.roles.iter().flat_map(|role| role.labels.iter().map(|label| &label.provider));
    let providers: BTreeSet<&String> = objects.chain(database).chain(roles).collect();
    let finding = |provider| {
        Finding::new(
            Warning,
            format!("security label provider \"{provider}\""),
            "labels come only where the target's server has loaded the provider's library",
        )
        .with_hint("Add it to the target's shared_preload_libraries, or run with --no-security-labels.")
    };
    providers.into_iter().map(finding).collect()
}

pub(super) fn not_copied(facts: &Facts) -> Vec<Finding> {
    let left = facts.plan.not_copied.iter();
    left.map(|left| {
        Finding::new(
            Warning,
            format!("source {} \"{}\"", left.kind.to_lowercase(), left.name),
            format!("is not copied: {}", left.reason),
        )
    })
    .collect()
}

/// What the selection leaves without something that it needs.
pub(super) fn dangling(facts: &Facts) -> Vec<Finding> {
    let lacking = scope::lacking(&facts.dangling, &facts.present);
    lacking
        .into_iter()
        .map(|(item, needs)| {
            let item = &facts.plan.items[item];
            let (severity, what) = if scope::holds_contents(item.kind) {
                (Blocker, format!("needs {needs}, which is neither selected nor on the target"))
            } else {
                let what =
                    format!("is not copied: it needs {needs}, which is neither selected nor on the target");
                (Warning, what)
            };
            Finding::new(severity, format!("source {}", item.key()), what)
                .with_hint("Select that too, or make it on the target first.")
        })
        .collect()
}

pub(super) fn particular_tables(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &facts.database.tables {
        let what = match (table.kind, table.persistence) {
            (TableKind::Foreign, _) => {
                "is a foreign table: its definition is copied, its rows stay where they are"
            }
            (TableKind::Ordinary, Persistence::Unlogged) if facts.source.in_recovery => {
                "is unlogged, so the source, a standby, doesn't have its rows"
            }
            _ => continue,
        };
        let severity = if table.kind == TableKind::Foreign { Info } else { Warning };
        let object = format!("source table \"{}.{}\"", table.schema, table.name);
        findings.push(Finding::new(severity, object, what));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collation_of_the_system_is_known_by_its_schema() {
        assert_eq!(system_collation(r#""pg_catalog"."de_DE""#).as_deref(), Some("de_DE"));
        assert_eq!(system_collation(r#"pg_catalog."a""b""#).as_deref(), Some("a\"b"));
        assert_eq!(system_collation(r#""public"."mine""#), None);
    }
}

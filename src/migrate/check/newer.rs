//! Judges what the target's newer major no longer has.

use std::collections::HashMap;

use super::{Facts, Finding, Severity};
use crate::catalog::builtin::{Use, UseKind};
use crate::schema::table::{Persistence, Table, TableKind};
use crate::schema::{ObjectId, newer};

use Severity::{Blocker, Info, Warning};

/// What to use in place of what is gone, by the name of what is gone.
const REPLACED: &[(&str, &str)] = &[
    ("abstime", "timestamp with time zone"),
    ("_abstime", "timestamp with time zone"),
    ("reltime", "interval"),
    ("_reltime", "interval"),
    ("tinterval", "tstzrange"),
    ("_tinterval", "tstzrange"),
    ("opaque", "the pseudo-type that is meant: trigger, event_trigger, internal or cstring"),
    ("array_append", "an aggregate over anycompatible and anycompatiblearray"),
    ("array_prepend", "an aggregate over anycompatible and anycompatiblearray"),
    ("array_cat", "an aggregate over anycompatiblearray"),
    ("!", "factorial()"),
    ("!!", "factorial()"),
    ("@", "<@"),
    ("~", "@>"),
    ("pg_start_backup", "pg_backup_start()"),
    ("pg_stop_backup", "pg_backup_stop()"),
    ("pg_proc.proisagg", "prokind"),
    ("pg_proc.proiswindow", "prokind"),
    ("pg_attrdef.adsrc", "pg_get_expr(adbin, adrelid)"),
    ("pg_constraint.consrc", "pg_get_constraintdef(oid)"),
];

/// What objects use of the source's server and the target's doesn't have.
pub(super) fn missing(facts: &Facts) -> Vec<Finding> {
    let major = facts.target.version / 10_000;
    let finding = |used: &Use| {
        let what = match used.kind {
            UseKind::Immutable => {
                format!("uses {}, which is not immutable in PostgreSQL {major}", name(used))
            }
            _ => format!("uses {}, which PostgreSQL {major} does not have", name(used)),
        };
        let hint = match REPLACED.iter().find(|(gone, _)| *gone == used.name) {
            _ if used.kind == UseKind::Setting => {
                format!("On the source: ALTER FUNCTION … RESET {}; or leave it out.", used.name)
            }
            Some((_, instead)) => format!("Change it on the source to {instead}, or leave it out."),
            None => "Change it on the source so that it does without, or leave it out.".to_owned(),
        };
        Finding::new(severity(facts), format!("source {}", used.object), what)
            .with_hint(format!("{hint} With --keep-going it is tried, and left out where it fails."))
    };
    let finds_array_functions = newer::find_array_functions(&facts.database, facts.target.version);
    let is_missing = |used: &&Use| match used.kind {
        UseKind::Setting => newer::setting(&used.name, facts.target.version) == Some(&used.name),
        UseKind::Function => !finds_array_functions(ObjectId::new(used.class, used.oid)),
        _ => true,
    };
    facts.missing.iter().filter(is_missing).map(finding).collect()
}

/// What comes in another form, because the target's major has it so.
pub(super) fn changed(facts: &Facts) -> Vec<Finding> {
    let changes = newer::changes(&facts.database, facts.target.version);
    let finding = |change: newer::Change| {
        let severity = if change.what == newer::What::Compatible { Warning } else { Info };
        Finding::new(severity, format!("source {}", change.object), change.what.to_string())
    };
    changes.into_iter().map(finding).collect()
}

/// Tables of a kind that the target's major refuses.
pub(super) fn tables(facts: &Facts) -> Vec<Finding> {
    let refused = facts.database.tables.iter().filter(|table| {
        table.kind == TableKind::Partitioned
            && table.persistence == Persistence::Unlogged
            && facts.target.version >= 180_000
    });
    refused
        .map(|table| {
            let object = format!("source table \"{}.{}\"", table.schema, table.name);
            Finding::new(
                Warning,
                object,
                "is partitioned and unlogged, which PostgreSQL 18 does not have: it comes as a logged one, its partitions as they are",
            )
        })
        .collect()
}

/// Encoding conversions by users' own functions, which servers from 14 on call in another way.
pub(super) fn conversions(facts: &Facts) -> Vec<Finding> {
    if facts.database.version >= 140_000 || facts.target.version < 140_000 {
        return Vec::new();
    }
    // Functions of the system stand there without their schema.
    let own = facts.database.conversions.iter().filter(|conversion| conversion.function.contains('.'));
    own.map(|conversion| {
        let object = format!("source conversion \"{}.{}\"", conversion.schema, conversion.name);
        let what = format!(
            "calls {}, and PostgreSQL from 14 on passes one argument more and wants the number of bytes back",
            conversion.function
        );
        Finding::new(severity(facts), object, what).with_hint(
            "Drop it on the source, and make it on the target with a function of the new form; or leave it out by --keep-going.",
        )
    })
    .collect()
}

/// Generated columns over a parent's plain ones.
pub(super) fn generated_children(facts: &Facts) -> Vec<Finding> {
    if facts.target.version < 160_000 {
        return Vec::new();
    }
    let parents: HashMap<u32, &Table> =
        facts.database.tables.iter().map(|table| (table.oid, table)).collect();
    let over_plain = |table: &&Table| {
        let inherited = |name: &str| {
            let parents = table.parents.iter().filter_map(|parent| parents.get(&parent.oid));
            parents.flat_map(|parent| &parent.columns).any(|c| c.name == name && !c.is_generated())
        };
        table.columns.iter().any(|column| column.is_generated() && inherited(&column.name))
    };
    let refused = facts.database.tables.iter().filter(over_plain);
    refused
        .map(|table| {
            let object = format!("source table \"{}.{}\"", table.schema, table.name);
            let what = "has a generated column that is a plain one of its parent, which PostgreSQL from 16 on does not have";
            Finding::new(severity(facts), object, what)
                .with_hint("Generate the parent's column too, or end the inheritance, on the source; or leave the table out.")
        })
        .collect()
}

fn severity(facts: &Facts) -> Severity {
    if facts.keep_going { Warning } else { Blocker }
}

fn name(used: &Use) -> String {
    let Use { kind, name, arguments, .. } = used;
    match kind {
        UseKind::Type => format!("type {name}"),
        UseKind::Call | UseKind::Function | UseKind::Immutable => {
            format!("function {name}({})", arguments.join(", "))
        }
        UseKind::Operator => {
            let operands: Vec<&str> =
                arguments.iter().map(|a| if a.is_empty() { "NONE" } else { a.as_str() }).collect();
            format!("operator {name} ({})", operands.join(", "))
        }
        UseKind::Relation => format!("system relation {name}"),
        UseKind::Column => format!("system column {name}"),
        UseKind::Setting => format!("setting {name}"),
    }
}

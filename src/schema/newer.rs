//! What a newer major has under another name or no longer needs: a definition brought into its form, so that it means there what it meant.
//!
//! In: a database of an older major, the target's version. Out: the database as the target takes it, and what was changed. What has no
//! such form is not touched: `check` asks both servers for that.

use std::fmt;

use super::function::Aggregate;
use super::operator::Operator;
use super::{Class, Database, ObjectId};

/// From this version on the functions below take elements and arrays that are only compatible.
const COMPATIBLE_ARRAYS: u32 = 140_000;

/// Functions over `anyarray` and `anyelement` that became ones over `anycompatiblearray` and `anycompatible`.
const OF_ARRAYS: [&str; 8] = [
    "array_append",
    "array_cat",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
    "width_bucket",
];

/// Polymorphic types and what takes their place, as the server renders them when it quotes all identifiers.
const POLYMORPHIC: [(&str, &str); 3] = [
    ("\"anyarray\"", "\"anycompatiblearray\""),
    ("\"anyelement\"", "\"anycompatible\""),
    ("\"anynonarray\"", "\"anycompatiblenonarray\""),
];

/// Settings that are gone since a version, and of which nothing depends there: the behaviour that they chose is the only one, or what they
/// tuned is not there to be tuned. With each the name that it has now, if it has one.
const SETTINGS: [(&str, u32, Option<&str>); 6] = [
    ("replacement_sort_tuples", 110_000, None),
    ("default_with_oids", 120_000, None),
    ("operator_precedence_warning", 140_000, None),
    ("vacuum_cleanup_index_scale_factor", 140_000, None),
    ("force_parallel_mode", 160_000, Some("debug_parallel_query")),
    ("trace_recovery_messages", 170_000, None),
];

/// How an object comes to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The object.
    pub id: ObjectId,
    /// Its kind and name, as messages call it.
    pub object: String,
    /// What is different.
    pub what: What,
}

/// What is different on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Takes `anycompatible` and `anycompatiblearray` in place of `anyelement` and `anyarray`.
    Compatible,
    /// Comes without a setting.
    Without(String),
    /// Comes with a setting under its new name.
    Renamed(String, &'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Compatible => f.write_str(
                "comes with anycompatible and anycompatiblearray in place of anyelement and anyarray, as the functions that it uses",
            ),
            What::Without(name) => write!(f, "comes without setting {name}, which has no meaning any more"),
            What::Renamed(name, now) => write!(f, "comes with setting {now} in place of {name}"),
        }
    }
}

/// What a setting is on a server of that version: its name there, or nothing where it is gone without a trace.
pub fn setting(name: &str, version: u32) -> Option<&str> {
    let gone = SETTINGS.iter().find(|(old, since, _)| old.eq_ignore_ascii_case(name) && *since <= version);
    gone.map_or(Some(name), |(_, _, now)| *now)
}

/// What would be changed for a server of that version.
pub fn changes(database: &Database, version: u32) -> Vec<Change> {
    let mut changes = Vec::new();
    if compatible_arrays(database, version) {
        let aggregates = database.aggregates.iter().filter(|aggregate| is_over_arrays(aggregate));
        changes.extend(aggregates.filter(|a| is_polymorphic(&a.arguments)).map(|aggregate| Change {
            id: ObjectId::new(Class::Function, aggregate.oid),
            object: format!("aggregate \"{}.{}\"", aggregate.schema, aggregate.name),
            what: What::Compatible,
        }));
        let operators = database.operators.iter().filter(|operator| calls_of_arrays(operator));
        changes.extend(operators.map(|operator| Change {
            id: ObjectId::new(Class::Operator, operator.oid),
            object: format!("operator \"{}.{}\"", operator.schema, operator.name),
            what: What::Compatible,
        }));
    }
    for function in &database.functions {
        for name in function.definition.lines().take_while(|line| !is_body(line)).filter_map(set_name) {
            let now = setting(name, version);
            let what = match now {
                Some(now) if now == name => continue,
                Some(_) => SETTINGS.iter().find(|(old, ..)| *old == name).and_then(|(.., now)| *now),
                None => None,
            };
            changes.push(Change {
                id: ObjectId::new(Class::Function, function.oid),
                object: format!("function \"{}.{}\"", function.schema, function.name),
                what: what.map_or_else(
                    || What::Without(name.to_owned()),
                    |now| What::Renamed(name.to_owned(), now),
                ),
            });
        }
    }
    changes
}

/// Brings the database into the form that a server of that version takes.
pub fn adapt(database: &mut Database, version: u32) {
    for change in changes(database, version) {
        match (&change.what, change.id.class) {
            (What::Compatible, _) => make_compatible(database, change.id),
            (What::Without(name), _) => change_setting(database, change.id.oid, name, None),
            (What::Renamed(name, now), _) => change_setting(database, change.id.oid, name, Some(now)),
        }
    }
}

/// Objects over arrays that find their functions on a server of that version, although these take other types there: aggregates and
/// operators that are changed along, and aggregates over a type of their own, which is compatible.
pub fn find_array_functions(database: &Database, version: u32) -> impl Fn(ObjectId) -> bool {
    let mut found = std::collections::HashSet::new();
    if compatible_arrays(database, version) {
        let aggregates = database.aggregates.iter().filter(|aggregate| is_over_arrays(aggregate));
        found.extend(aggregates.map(|aggregate| ObjectId::new(Class::Function, aggregate.oid)));
        let operators = database.operators.iter().filter(|operator| calls_of_arrays(operator));
        found.extend(operators.map(|operator| ObjectId::new(Class::Operator, operator.oid)));
    }
    move |id| found.contains(&id)
}

fn compatible_arrays(database: &Database, version: u32) -> bool {
    database.version < COMPATIBLE_ARRAYS && version >= COMPATIBLE_ARRAYS
}

fn is_of_arrays(function: &str) -> bool {
    OF_ARRAYS.contains(&function.trim_matches('"'))
}

/// Every function of the aggregate is one of those that were changed: then its state may be changed with them.
fn is_over_arrays(aggregate: &Aggregate) -> bool {
    let others = [
        &aggregate.final_function,
        &aggregate.combine,
        &aggregate.serialize,
        &aggregate.deserialize,
        &aggregate.moving_transition,
        &aggregate.moving_inverse,
        &aggregate.moving_final,
    ];
    is_of_arrays(&aggregate.transition) && others.into_iter().flatten().all(|function| is_of_arrays(function))
}

fn calls_of_arrays(operator: &Operator) -> bool {
    operator.function.as_deref().is_some_and(is_of_arrays)
}

fn is_polymorphic(types: &str) -> bool {
    POLYMORPHIC.iter().any(|(old, _)| types.contains(old))
}

fn compatible(types: &str) -> String {
    POLYMORPHIC.iter().fold(types.to_owned(), |types, (old, new)| types.replace(old, new))
}

fn make_compatible(database: &mut Database, id: ObjectId) {
    let change = |types: &mut String| *types = compatible(types);
    if id.class == Class::Operator {
        for operator in database.operators.iter_mut().filter(|operator| operator.oid == id.oid) {
            operator.left.iter_mut().chain(&mut operator.right).for_each(change);
        }
    }
    for aggregate in database.aggregates.iter_mut().filter(|a| id == ObjectId::new(Class::Function, a.oid)) {
        change(&mut aggregate.arguments);
        change(&mut aggregate.argument_types);
        change(&mut aggregate.state_type);
        aggregate.moving_state_type.iter_mut().for_each(change);
    }
    database.comments.iter_mut().filter(|c| c.id == id).for_each(|c| change(&mut c.subject));
    database.security_labels.iter_mut().filter(|l| l.id == id).for_each(|l| change(&mut l.subject));
}

/// Whether a function's definition, as pg_get_functiondef writes it, goes on with its body here.
fn is_body(line: &str) -> bool {
    line.starts_with("AS ") || line.starts_with("BEGIN ATOMIC") || line.starts_with("RETURN ")
}

/// The setting of a line ` SET "name" TO 'value'`.
fn set_name(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix(" SET ")?.split_once(" TO ")?;
    Some(name.trim_matches('"'))
}

fn change_setting(database: &mut Database, function: u32, name: &str, now: Option<&str>) {
    for function in database.functions.iter_mut().filter(|f| f.oid == function) {
        let mut in_head = true;
        let mut definition = String::with_capacity(function.definition.len());
        for line in function.definition.split_inclusive('\n') {
            in_head &= !is_body(line);
            match (in_head && set_name(line) == Some(name), now) {
                (true, None) => {}
                (true, Some(now)) => definition.push_str(&line.replacen(name, now, 1)),
                (false, _) => definition.push_str(line),
            }
        }
        function.definition = definition;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_keeps_its_name_until_it_gets_another_one_or_goes() {
        assert_eq!(setting("force_parallel_mode", 150_018), Some("force_parallel_mode"));
        assert_eq!(setting("force_parallel_mode", 160_000), Some("debug_parallel_query"));
        assert_eq!(setting("Operator_Precedence_Warning", 180_000), None);
        assert_eq!(setting("work_mem", 180_000), Some("work_mem"));
    }

    #[test]
    fn only_the_head_of_a_function_sets() {
        assert_eq!(set_name(" SET \"work_mem\" TO '1MB'\n"), Some("work_mem"));
        assert_eq!(set_name("SET x TO 1"), None);
        assert!(is_body("AS $function$\n") && is_body("RETURN 1") && !is_body(" IMMUTABLE STRICT"));
    }
}

//! Definitions on both sides, compared as the statements that would make them; pure.

use std::collections::BTreeMap;

use super::form::{self, Majors};
use super::until_cutover::UntilCutover;
use super::{Difference, Report};
use crate::ddl::{Item, Plan};

/// Compares what the source's plan makes with what a plan of the target would make, both written for the target's version. What differs is added to the report.
pub(super) fn compare(
    source: &Plan,
    target: &Plan,
    majors: Majors,
    until_cutover: &UntilCutover,
    report: &mut Report,
) {
    let mut there: BTreeMap<String, &Item> =
        items(target).map(|item| (form::key(item, majors), item)).collect();
    let differences = &mut report.differences;
    for item in items(source) {
        match there.remove(&form::key(item, majors)) {
            None if form::comes_with_the_major(item, majors) => {}
            None => match until_cutover.makes(item) {
                Some(later) => report.until_cutover.push(later),
                None => differences.push(Difference::new(item.key(), "is missing on the target")),
            },
            Some(twin) => differences.extend(differing(item, twin, majors)),
        }
    }
    let alone = there.into_values().filter(|item| !form::comes_with_the_major(item, majors));
    differences.extend(alone.map(|item| Difference::new(item.key(), "is on the target only")));
}

fn items(plan: &Plan) -> impl Iterator<Item = &Item> {
    plan.items.iter().filter(|item| !is_ours(item))
}

/// The state tables are in the target alone.
fn is_ours(item: &Item) -> bool {
    let schema = crate::state::SCHEMA;
    item.schema.as_deref() == Some(schema)
        || item.schema.is_none() && (item.name == schema || item.name == format!("SCHEMA {schema}"))
}

fn differing(source: &Item, target: &Item, majors: Majors) -> Option<Difference> {
    if form::equal(source, target, majors) {
        return None;
    }
    let mut difference = Difference::new(source.key(), "is defined differently");
    if !source.secret && !target.secret {
        let (here, there) = (statements(source), statements(target));
        let at = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
        let statement = |all: &[&String]| all.get(at).map_or("(nothing)".to_owned(), |sql| (*sql).clone());
        difference.definitions = Some((statement(&here), statement(&there)));
    }
    Some(difference)
}

fn statements(item: &Item) -> Vec<&String> {
    item.create.iter().chain(&item.decorate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddl::Section;
    use crate::schema::{Class, ObjectId};

    const SAME: Majors = Majors { source: 15, target: 15 };

    fn plan(tables: &[(&str, &str)]) -> Plan {
        let id = ObjectId::new(Class::Relation, 1);
        let item = |&(name, sql): &(&str, &str)| {
            let mut item = Item::new(id, "TABLE", Section::PreData, Some("s"), name);
            item.create.push(sql.to_owned());
            item
        };
        Plan { items: tables.iter().map(item).collect(), ..Plan::default() }
    }

    fn differences(source: &Plan, target: &Plan) -> Vec<Difference> {
        let mut report = Report::default();
        compare(source, target, SAME, &UntilCutover::default(), &mut report);
        report.differences
    }

    #[test]
    fn every_difference_is_named() {
        let source = plan(&[("a", "x"), ("b", "x"), ("c", "x")]);
        let target = plan(&[("b", "y"), ("c", "x"), ("d", "x")]);
        let found: Vec<String> =
            differences(&source, &target).iter().map(|d| format!("{} {}", d.object, d.what)).collect();
        assert_eq!(
            found,
            [
                "TABLE s.a is missing on the target",
                "TABLE s.b is defined differently",
                "TABLE s.d is on the target only"
            ]
        );
    }

    #[test]
    fn definitions_with_secrets_are_not_shown() {
        let (mut source, target) = (plan(&[("a", "password x")]), plan(&[("a", "password y")]));
        source.items[0].secret = true;
        let found = differences(&source, &target);
        assert_eq!((found.len(), found[0].definitions.clone()), (1, None));
    }

    #[test]
    fn the_state_of_pgstream_is_no_difference() {
        let mut target = plan(&[]);
        let id = ObjectId::new(Class::Namespace, 1);
        target.items.push(Item::new(id, "SCHEMA", Section::PreData, None, "pgstream"));
        target.items.push(Item::new(id, "COMMENT", Section::PreData, None, "SCHEMA pgstream"));
        target.items.push(Item::new(id, "TABLE", Section::PreData, Some("pgstream"), "part"));
        assert!(differences(&plan(&[]), &target).is_empty());
    }
}

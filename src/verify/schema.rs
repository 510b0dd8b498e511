//! Definitions on both sides, compared as the statements that would make them; pure.

use std::collections::BTreeMap;

use super::Difference;
use crate::ddl::{Item, Plan};

/// Compares what the source's plan makes with what a plan of the target would make, both written for the target's version.
pub(super) fn compare(
    source: &Plan,
    target: &Plan,
    source_version: u32,
    target_version: u32,
) -> Vec<Difference> {
    let same_major = source_version / 10_000 == target_version / 10_000;
    let mut there: BTreeMap<String, &Item> = items(target).map(|item| (item.key(), item)).collect();
    let mut differences = Vec::new();
    for item in items(source) {
        let key = item.key();
        match there.remove(&key) {
            None => differences.push(Difference::new(key, "is missing on the target")),
            Some(twin) => differences.extend(differing(item, twin, same_major)),
        }
    }
    differences.extend(there.into_keys().map(|key| Difference::new(key, "is on the target only")));
    differences
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

fn differing(source: &Item, target: &Item, same_major: bool) -> Option<Difference> {
    let statements = |item: &Item| -> Vec<String> {
        let all = item.create.iter().chain(&item.decorate);
        if same_major { all.cloned().collect() } else { all.map(|sql| plain(sql)).collect() }
    };
    let (here, there) = (statements(source), statements(target));
    if here == there {
        return None;
    }
    let mut difference = Difference::new(source.key(), "is defined differently");
    if !source.secret && !target.secret {
        let at = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
        let statement = |all: &[String]| all.get(at).cloned().unwrap_or_else(|| "(nothing)".to_owned());
        difference.definitions = Some((statement(&here), statement(&there)));
    }
    Some(difference)
}

/// A statement without what servers of different majors write differently though it means the same: white space, and
/// parentheses around expressions.
fn plain(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    for word in sql.split_whitespace() {
        text.push_str(word);
        text.push(' ');
    }
    text.retain(|c| c != '(' && c != ')');
    text
}

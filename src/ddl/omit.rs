//! What of a plan can't be made: which of its items need an object that is not selected, and a plan without some of its items.
//!
//! In: plans, and the names that the target has. Out: the items concerned, by their place in the plan. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Item, NotCopied, Options, Plan, plan};
use crate::error::Result;
use crate::schema::{Database, ObjectId};

/// A name together with the group of kinds in which it can be used once.
pub type Name = (&'static str, String);

/// An item of a plan that needs what the plan doesn't make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    /// The item's place in the plan.
    pub item: usize,
    /// What it needs, as [`Item::key`] writes it.
    pub needs: String,
    /// The name by which that would be found on the target; `None` for what only comes with another object.
    pub name: Option<Name>,
}

/// The items of `selected` that need something of `whole`, the database that the selection was made of, which was not selected.
pub fn dangling(
    whole: &Database,
    options: &Options,
    target_version: u32,
    selected: &Plan,
) -> Result<Vec<Dangling>> {
    let whole = plan(whole, options, target_version)?;
    let places: HashMap<String, usize> =
        selected.items.iter().enumerate().map(|(place, item)| (item.key(), place)).collect();
    let keys: Vec<String> = whole.items.iter().map(Item::key).collect();
    let mut dangling = Vec::new();
    for (key, needs) in keys.iter().zip(&whole.needs) {
        let Some(&item) = places.get(key) else { continue };
        for &need in needs.iter().filter(|&&need| !places.contains_key(&keys[need])) {
            let name = name(&whole.items[need]);
            dangling.push(Dangling { item, needs: keys[need].clone(), name });
        }
    }
    Ok(dangling)
}

impl Plan {
    /// Takes items out, each for its reason, and with them all that need them. What is taken out is noted in `not_copied`; the objects that
    /// are not made are returned.
    pub fn leave_out(&mut self, reasons: &BTreeMap<usize, String>) -> HashSet<ObjectId> {
        let mut out: Vec<bool> = Vec::with_capacity(self.items.len());
        let mut gone = HashSet::new();
        for (place, item) in self.items.iter().enumerate() {
            let needed = self.needs[place].iter().find(|&&need| out[need]);
            let reason = match (reasons.get(&place), needed) {
                (Some(reason), _) => Some(reason.clone()),
                (None, Some(&need)) => Some(format!("needs {}, which is left out", self.items[need].key())),
                (None, None) => None,
            };
            out.push(reason.is_some());
            let Some(reason) = reason else { continue };
            // Privileges are of an object that is named itself.
            if item.kind != "ACL" {
                gone.insert(item.id);
                gone.extend(&item.provides);
                let name = qualified_name(item);
                self.not_copied.push(NotCopied { kind: item.kind.to_owned(), name, reason });
            }
        }
        let mut stays = out.iter().map(|out| !out);
        self.items.retain(|_| stays.next().unwrap_or(true));
        let places: Vec<usize> = out
            .iter()
            .scan(0, |next, out| {
                let place = *next;
                *next += usize::from(!out);
                Some(place)
            })
            .collect();
        let needs = std::mem::take(&mut self.needs).into_iter().zip(&out).filter(|(_, out)| !**out);
        self.needs = needs.map(|(needs, _)| needs.into_iter().map(|need| places[need]).collect()).collect();
        self.not_copied.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
        gone
    }

    /// The names of all that the plan makes, and of what every database has.
    pub fn names(&self) -> BTreeSet<Name> {
        self.items.iter().filter_map(name).collect()
    }
}

fn name(item: &Item) -> Option<Name> {
    Some((group(item.kind)?, qualified_name(item)))
}

fn qualified_name(item: &Item) -> String {
    match &item.schema {
        Some(schema) => format!("{schema}.{}", item.name),
        None => item.name.clone(),
    }
}

/// The group of kinds in which a name can be used once; `None` for items that only come with another one.
fn group(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "TABLE" | "VIEW" | "MATERIALIZED VIEW" | "SEQUENCE" | "FOREIGN TABLE" | "INDEX" => "relation",
        "TYPE" | "DOMAIN" | "SHELL TYPE" => "type",
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => "function",
        "SCHEMA" => "schema",
        "EXTENSION" => "extension",
        "PROCEDURAL LANGUAGE" => "language",
        "OPERATOR" => "operator",
        "OPERATOR CLASS" => "operator class",
        "OPERATOR FAMILY" => "operator family",
        "COLLATION" => "collation",
        "CONVERSION" => "conversion",
        "TEXT SEARCH CONFIGURATION" => "text search configuration",
        "TEXT SEARCH DICTIONARY" => "text search dictionary",
        "TEXT SEARCH PARSER" => "text search parser",
        "TEXT SEARCH TEMPLATE" => "text search template",
        "FOREIGN DATA WRAPPER" => "foreign-data wrapper",
        "SERVER" => "server",
        "EVENT TRIGGER" => "event trigger",
        "PUBLICATION" => "publication",
        "SUBSCRIPTION" => "subscription",
        "ACCESS METHOD" => "access method",
        "STATISTICS" => "statistics",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Section;
    use super::*;
    use crate::schema::Class;

    fn item(oid: u32, kind: &'static str, name: &str) -> Item {
        Item::new(ObjectId::new(Class::Relation, oid), kind, Section::PreData, Some("s"), name)
    }

    #[test]
    fn what_is_left_out_takes_along_all_that_needs_it() {
        let items = vec![
            item(1, "TYPE", "a"),
            item(2, "TYPE", "b"),
            item(3, "TABLE", "t"),
            item(4, "VIEW", "v"),
            item(3, "ACL", "t"),
        ];
        let mut plan =
            Plan { items, needs: vec![vec![], vec![], vec![0], vec![1, 2], vec![2]], ..Plan::default() };
        let gone = plan.leave_out(&BTreeMap::from([(0, "no room".to_owned())]));
        assert_eq!(plan.items.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(plan.needs, [Vec::<usize>::new()]);
        assert_eq!(gone.len(), 3);
        let left: Vec<_> =
            plan.not_copied.iter().map(|n| format!("{} {}: {}", n.kind, n.name, n.reason)).collect();
        assert_eq!(
            left,
            [
                "TABLE s.t: needs TYPE s.a, which is left out",
                "TYPE s.a: no room",
                "VIEW s.v: needs TABLE s.t, which is left out"
            ]
        );
    }

    #[test]
    fn what_stays_keeps_its_needs() {
        let items = vec![item(1, "TYPE", "a"), item(2, "TYPE", "b"), item(3, "TABLE", "t")];
        let mut plan = Plan { items, needs: vec![vec![], vec![], vec![1]], ..Plan::default() };
        plan.leave_out(&BTreeMap::from([(0, String::new())]));
        assert_eq!(plan.needs, [vec![], vec![0]]);
    }
}

//! What becomes of a run whose target refuses an item: it stops there, or goes on without the item and all that needs it.
//!
//! In: the edges of the plan. Out: for each item whether something that it needs is missing. Shared by all sessions of a run; it holds nothing
//! that outlives it: the state tables say what failed, and the next run tries it again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ddl::{Item, Plan, Section};
use crate::schema::ObjectId;

/// How a run bears failures, and which there have been.
#[derive(Debug, Default)]
pub struct Failures {
    /// Keys of the items that each item needs.
    needs: HashMap<String, Vec<String>>,
    policy: Policy,
    failed: Mutex<HashSet<String>>,
}

/// When an item's failure stops the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Always, but for privileges and what comes after them, which nothing needs.
    Stop,
    /// Where rows would have no place: a stream of changes can't leave a table out.
    KeepContainers,
    /// Never.
    #[default]
    Continue,
}

impl Failures {
    /// For the items of a plan.
    pub fn new(plan: &Plan, policy: Policy) -> Failures {
        let keys: Vec<String> = plan.items.iter().map(Item::key).collect();
        let needs = keys.iter().zip(&plan.needs).filter(|(_, needs)| !needs.is_empty());
        let needs =
            needs.map(|(key, needs)| (key.clone(), needs.iter().map(|&need| keys[need].clone()).collect()));
        Failures { needs: needs.collect(), policy, failed: Mutex::default() }
    }

    /// Everything could be made so far.
    pub fn is_empty(&self) -> bool {
        self.failed().is_empty()
    }

    /// Something that the item needs, as [`Item::key`] writes it, which could not be made.
    pub(super) fn missing_for(&self, item: &Item) -> Option<String> {
        let failed = self.failed();
        if failed.is_empty() {
            return None;
        }
        let needs = self.needs.get(&item.key())?;
        needs.iter().find(|need| failed.contains(*need)).cloned()
    }

    /// The item could not be made.
    pub fn add(&self, item: &Item) {
        self.failed().insert(item.key());
    }

    /// The objects of the plan that are not there because of failures.
    pub fn objects(&self, plan: &Plan) -> HashSet<ObjectId> {
        let failed = self.failed();
        let items = plan.items.iter().filter(|item| item.kind != "ACL" && failed.contains(&item.key()));
        items.flat_map(|item| item.provides.iter().copied().chain([item.id])).collect()
    }

    /// Whether the failure of this item ends the run.
    pub(super) fn stops_at(&self, item: &Item) -> bool {
        match self.policy {
            Policy::Stop => matches!(item.section, Section::PreData | Section::PostData),
            Policy::KeepContainers => {
                matches!(item.kind, "SCHEMA" | "EXTENSION" | "TYPE" | "DOMAIN" | "SEQUENCE" | "TABLE")
            }
            Policy::Continue => false,
        }
    }

    /// All that needs this item, directly or not, in the order of names.
    pub(super) fn dependents(&self, item: &Item) -> Vec<String> {
        let mut found = HashSet::from([item.key()]);
        let mut last = 0;
        while found.len() > last {
            last = found.len();
            let more: Vec<&String> = self
                .needs
                .iter()
                .filter(|(key, needs)| !found.contains(*key) && needs.iter().any(|need| found.contains(need)))
                .map(|(key, _)| key)
                .collect();
            found.extend(more.into_iter().cloned());
        }
        found.remove(&item.key());
        let mut dependents: Vec<String> = found.into_iter().filter(|key| !key.starts_with("ACL ")).collect();
        dependents.sort_unstable();
        dependents
    }

    fn failed(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set of names is whole after every insertion.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Class;

    #[test]
    fn what_needs_a_failed_item_is_known() {
        let item = |oid, kind, name: &str| {
            Item::new(ObjectId::new(Class::Relation, oid), kind, Section::PreData, None, name)
        };
        let items =
            vec![item(1, "TYPE", "a"), item(2, "TABLE", "t"), item(3, "VIEW", "v"), item(4, "VIEW", "w")];
        let plan = Plan { items, needs: vec![vec![], vec![0], vec![1], vec![]], ..Plan::default() };
        let failures = Failures::new(&plan, Policy::Continue);
        assert_eq!(failures.missing_for(&plan.items[1]), None);
        assert_eq!(failures.dependents(&plan.items[0]), ["TABLE t", "VIEW v"]);
        failures.add(&plan.items[0]);
        assert_eq!(failures.missing_for(&plan.items[1]).as_deref(), Some("TYPE a"));
        assert_eq!(failures.missing_for(&plan.items[3]), None);
    }
}

//! The order of a plan's items: topological, by pg_depend, with pg_dump's priorities of kinds and then names as tie-break.
//!
//! In: items as the families wrote them. Out: the items sorted, with what each one needs; or the parts that have to be made on
//! their own because they close a loop. What may fail: a loop that none of the repairs breaks; it names the objects.
//!
//! The repairs, each by its name, after pg_dump_sort.c:
//! - *shell type*: a type and its functions need each other: the functions get the type's shell.
//! - *column default*: a table's default uses a function that uses the table: ALTER TABLE … SET DEFAULT comes later.
//! - *check constraint*: the same of a table's or domain's CHECK.
//! - *view rule*: views that use each other: a stand-in with the same columns comes first, its query later.
//! - *function body*: functions in SQL's own form that use each other: each comes without its body first.
//! - *postponed to post-data*: what needs a primary key (a view that groups by it) waits for post-data, and so does what
//!   needs that.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

use super::{Context, Item, Plan};
use crate::error::{Error, Result};
use crate::schema::view::View;
use crate::schema::{Class, Database, ObjectId};

/// Which item makes an object.
#[derive(Debug)]
pub struct Index {
    items: HashMap<ObjectId, usize>,
    internal: HashMap<ObjectId, ObjectId>,
}

impl Index {
    /// Indexes the items by their ids and by what they provide. Privileges and comments name the object they are on, but don't make it.
    pub fn new(database: &Database, items: &[Item]) -> Index {
        let mut by_id = HashMap::with_capacity(items.len() * 3);
        for (i, item) in items.iter().enumerate().filter(|(_, item)| !matches!(item.kind, "ACL" | "COMMENT"))
        {
            by_id.entry(item.id).or_insert(i);
        }
        for (i, item) in items.iter().enumerate() {
            for id in &item.provides {
                by_id.entry(*id).or_insert(i);
            }
        }
        let internal = database
            .dependencies
            .iter()
            .filter(|d| d.kind == 'i' && !by_id.contains_key(&d.object))
            .map(|d| (d.object, d.referenced))
            .collect();
        Index { items: by_id, internal }
    }

    /// The item that makes `id`, be it as part of a greater object: array types come with their element type.
    pub fn item(&self, id: ObjectId) -> Option<usize> {
        let mut id = id;
        // Internal dependencies are a few levels deep: array of a row type of a table.
        for _ in 0..8 {
            if let Some(item) = self.items.get(&id) {
                return Some(*item);
            }
            id = *self.internal.get(&id)?;
        }
        None
    }
}

/// One item needs another, because of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    to: usize,
    via: ObjectId,
}

/// Sorts the plan's items. Returns the parts that must be made on their own first; then the items are as they were.
pub fn sort(context: &Context<'_>, plan: &mut Plan) -> Result<BTreeSet<ObjectId>> {
    let mut edges = edges(context.database, &plan.items);
    let mut repairs = use_shells(context, &plan.items, &mut edges);
    repairs.extend(postpone(context, &mut plan.items, &edges));
    if !repairs.is_empty() {
        return Ok(repairs);
    }
    let order = topological(&plan.items, &edges);
    if order.len() < plan.items.len() {
        return repair_loops(context, &plan.items, &edges);
    }
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(position, item)| place[*item] = position);
    let mut items: Vec<Option<Item>> = std::mem::take(&mut plan.items).into_iter().map(Some).collect();
    plan.items = order.iter().filter_map(|i| items[*i].take()).collect();
    plan.needs = order
        .iter()
        .map(|i| {
            let mut needs: Vec<usize> = edges[*i].iter().map(|e| place[e.to]).collect();
            needs.sort_unstable();
            needs.dedup();
            needs
        })
        .collect();
    Ok(BTreeSet::new())
}

fn edges(database: &Database, items: &[Item]) -> Vec<Vec<Edge>> {
    let index = Index::new(database, items);
    let mut edges: Vec<Vec<Edge>> = vec![Vec::new(); items.len()];
    for dependency in &database.dependencies {
        let (Some(mut from), Some(to)) = (index.item(dependency.object), index.item(dependency.referenced))
        else {
            continue;
        };
        // A function's head names types; what else it needs is its body's, where that is apart.
        if dependency.object.class == Class::Function
            && !matches!(dependency.referenced.class, Class::Type | Class::Language | Class::Namespace)
            && let Some(body) = index.item(ObjectId::new(Class::FunctionBody, dependency.object.oid))
        {
            from = body;
        }
        // CREATE EXTENSION makes its members, whatever they need; its own needs have rows of their own.
        let is_member = items[from].kind == "EXTENSION" && items[from].id != dependency.object;
        // OWNED BY is an item of its own, after both: the column's default needs the sequence first.
        let owned_sequence = items[from].kind == "SEQUENCE"
            && matches!(dependency.kind, 'a' | 'i')
            && dependency.referenced.class == Class::Relation;
        if from != to && !is_member && !owned_sequence {
            edges[from].push(Edge { to, via: dependency.object });
        }
    }
    for (from, item) in items.iter().enumerate() {
        for id in &item.requires {
            edges[from].extend(index.item(*id).filter(|to| *to != from).map(|to| Edge { to, via: item.id }));
        }
    }
    for list in &mut edges {
        list.sort_unstable();
        list.dedup();
    }
    edges
}

/// *Shell type*: where a type needs a function that needs the type, the function gets the shell instead. Types that
/// have none yet are returned.
fn use_shells(context: &Context<'_>, items: &[Item], edges: &mut [Vec<Edge>]) -> BTreeSet<ObjectId> {
    let mut wanted = BTreeSet::new();
    let shells: HashMap<u32, usize> = (items.iter().enumerate())
        .filter(|(_, item)| item.id.class == Class::ShellType)
        .map(|(i, item)| (item.id.oid, i))
        .collect();
    let types: Vec<usize> = (0..items.len()).filter(|i| items[*i].id.class == Class::Type).collect();
    for data_type in types {
        let functions: Vec<usize> = edges[data_type]
            .iter()
            .map(|e| e.to)
            .filter(|f| items[*f].id.class == Class::Function && edges[*f].iter().any(|e| e.to == data_type))
            .collect();
        let id = items[data_type].id;
        for function in functions {
            match shells.get(&id.oid) {
                Some(shell) => {
                    edges[function].iter_mut().filter(|e| e.to == data_type).for_each(|e| e.to = *shell)
                }
                None if !context.separate.contains(&id) => {
                    wanted.insert(id);
                }
                None => {}
            }
        }
    }
    wanted
}

/// *Postponed to post-data*: an item can't be in an earlier section than what it needs. One that only needs it for a separable
/// part gives the part up; others move.
fn postpone(context: &Context<'_>, items: &mut [Item], edges: &[Vec<Edge>]) -> BTreeSet<ObjectId> {
    let mut repairs = BTreeSet::new();
    let mut moved = true;
    while moved {
        moved = false;
        for from in 0..items.len() {
            for edge in &edges[from] {
                let section = items[edge.to].section;
                if section <= items[from].section {
                    continue;
                }
                if is_separable(context, &items[from], edge.via) {
                    repairs.insert(edge.via);
                } else {
                    items[from].section = section;
                    moved = true;
                }
            }
        }
        if !repairs.is_empty() {
            return repairs;
        }
    }
    repairs
}

/// Whether the object is a part of the item that can be made on its own.
fn is_separable(context: &Context<'_>, item: &Item, part: ObjectId) -> bool {
    let separable = matches!(part.class, Class::ColumnDefault | Class::Constraint | Class::Rule);
    // What was asked for and is still there (a generation expression) can't be made apart.
    let separable = separable && part != item.id && !context.separate.contains(&part);
    separable && matches!(item.kind, "TABLE" | "FOREIGN TABLE" | "DOMAIN" | "VIEW")
}

/// Kahn's algorithm with a heap: among the items that have all they need, the smallest comes first. Shorter than the items
/// where there is a loop.
fn topological(items: &[Item], edges: &[Vec<Edge>]) -> Vec<usize> {
    let mut waits_for: Vec<usize> = vec![0; items.len()];
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    for (from, list) in edges.iter().enumerate() {
        let needs: HashSet<usize> = list.iter().map(|e| e.to).collect();
        waits_for[from] = needs.len();
        needs.into_iter().for_each(|to| dependents[to].push(from));
    }
    let rank = ranks(items);
    let mut heap: BinaryHeap<_> =
        (0..items.len()).filter(|i| waits_for[*i] == 0).map(|i| Reverse((rank[i], i))).collect();
    let mut order = Vec::with_capacity(items.len());
    while let Some(Reverse((_, next))) = heap.pop() {
        order.push(next);
        for &dependent in &dependents[next] {
            waits_for[dependent] -= 1;
            if waits_for[dependent] == 0 {
                heap.push(Reverse((rank[dependent], dependent)));
            }
        }
    }
    order
}

/// The place of each item when nothing depends on anything: by section, kind, schema and name.
fn ranks(items: &[Item]) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..items.len()).collect();
    sorted.sort_by_key(|i| {
        let item = &items[*i];
        let place = (item.section, priority(item.kind), stand_in(item).is_none(), stand_in(item));
        (place, item.schema.as_deref(), item.name.as_str(), item.kind, item.id)
    });
    let mut ranks = vec![0; items.len()];
    sorted.into_iter().enumerate().for_each(|(rank, i)| ranks[i] = rank);
    ranks
}

/// A view that stands there without its query for now: such views are made in the order of their age, since that is how pg_dump chooses them.
fn stand_in(item: &Item) -> Option<u32> {
    let is_whole = item.provides.iter().any(|id| id.class == Class::Rule);
    (item.kind == "VIEW" && !is_whole).then_some(item.id.oid)
}

/// pg_dump's order of kinds (dbObjectTypePriority).
fn priority(kind: &str) -> usize {
    const KINDS: [&str; 46] = [
        "SCHEMA",
        "PROCEDURAL LANGUAGE",
        "COLLATION",
        "TRANSFORM",
        "EXTENSION",
        "SHELL TYPE",
        "TYPE",
        "DOMAIN",
        "FUNCTION",
        "PROCEDURE",
        "FUNCTION BODY",
        "AGGREGATE",
        "ACCESS METHOD",
        "OPERATOR",
        "OPERATOR FAMILY",
        "OPERATOR CLASS",
        "CAST",
        "CONVERSION",
        "TEXT SEARCH PARSER",
        "TEXT SEARCH TEMPLATE",
        "TEXT SEARCH DICTIONARY",
        "TEXT SEARCH CONFIGURATION",
        "FOREIGN DATA WRAPPER",
        "SERVER",
        "USER MAPPING",
        "TABLE",
        "FOREIGN TABLE",
        "VIEW",
        "MATERIALIZED VIEW",
        "SEQUENCE",
        "SEQUENCE OWNED BY",
        "TABLE ATTACH",
        "DEFAULT",
        "INDEX",
        "CONSTRAINT",
        "CHECK CONSTRAINT",
        "INDEX ATTACH",
        "STATISTICS",
        "RULE",
        "TRIGGER",
        "FK CONSTRAINT",
        "ROW SECURITY",
        "POLICY",
        "PUBLICATION",
        "PUBLICATION TABLE",
        "PUBLICATION TABLES IN SCHEMA",
    ];
    KINDS.iter().position(|k| *k == kind).unwrap_or(KINDS.len())
}

/// Names the parts whose making apart breaks every loop; an error when a loop has none.
fn repair_loops(context: &Context<'_>, items: &[Item], edges: &[Vec<Edge>]) -> Result<BTreeSet<ObjectId>> {
    let mut repairs = BTreeSet::new();
    let functions = context.database.functions.iter().filter(|function| function.body.is_some());
    let with_bodies: BTreeSet<ObjectId> = functions
        .map(|function| ObjectId::new(Class::Function, function.oid))
        .filter(|id| !context.separate.contains(id))
        .collect();
    for group in strongly_connected(edges) {
        let inside: HashSet<usize> = group.iter().copied().collect();
        let parts = |class: Class| -> BTreeSet<ObjectId> {
            group
                .iter()
                .flat_map(|from| edges[*from].iter().map(move |edge| (*from, edge)))
                .filter(|(from, edge)| {
                    inside.contains(&edge.to)
                        && edge.via.class == class
                        && is_separable(context, &items[*from], edge.via)
                })
                .map(|(_, edge)| edge.via)
                .collect()
        };
        // The least intrusive first: column default, check constraint, view rule, function body.
        let bodies: BTreeSet<ObjectId> = with_bodies.intersection(&ids(items, &group)).copied().collect();
        // One view at a time, as pg_dump does: the oldest. What is left of the loop is looked at again.
        let rules = parts(Class::Rule);
        let views = context.database.views.iter().filter(|view| rules.contains(&view.rule_id()));
        let oldest = views.min_by_key(|view| view.oid).map(View::rule_id);
        let repair = [Class::ColumnDefault, Class::Constraint]
            .into_iter()
            .map(parts)
            .chain([oldest.into_iter().collect(), bodies])
            .find(|parts| !parts.is_empty());
        match repair {
            Some(parts) => repairs.extend(parts),
            None => {
                let mut names: Vec<_> = group.iter().map(|i| items[*i].key()).collect();
                names.sort_unstable();
                return Err(Error::failed(
                    "could not put the objects of the source in order: they depend on each other in a loop",
                )
                .with_detail(format!("The loop is made of {}.", names.join(", "))));
            }
        }
    }
    Ok(repairs)
}

fn ids(items: &[Item], group: &[usize]) -> BTreeSet<ObjectId> {
    group.iter().map(|&item| items[item].id).collect()
}

/// Tarjan's algorithm without recursion; only components of two and more, which are loops.
fn strongly_connected(edges: &[Vec<Edge>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let n = edges.len();
    let (mut number, mut low, mut on_stack) = (vec![UNSEEN; n], vec![0; n], vec![false; n]);
    let (mut stack, mut groups, mut next) = (Vec::new(), Vec::new(), 0);
    for root in 0..n {
        if number[root] != UNSEEN {
            continue;
        }
        let mut path: Vec<(usize, usize)> = vec![(root, 0)];
        while let Some((node, edge)) = path.pop() {
            if edge == 0 {
                number[node] = next;
                low[node] = next;
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            } else {
                // Back from the edge before.
                let child = edges[node][edge - 1].to;
                if on_stack[child] {
                    low[node] = low[node].min(low[child]);
                }
            }
            if let Some(next_edge) = edges[node].get(edge) {
                path.push((node, edge + 1));
                if number[next_edge.to] == UNSEEN {
                    path.push((next_edge.to, 0));
                }
                continue;
            }
            if low[node] == number[node] {
                let mut group = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    group.push(member);
                    if member == node {
                        break;
                    }
                }
                if group.len() > 1 {
                    group.sort_unstable();
                    groups.push(group);
                }
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddl::{Options, Section};

    fn id(oid: u32) -> ObjectId {
        ObjectId::new(Class::Function, oid)
    }

    fn item(oid: u32, kind: &'static str, section: Section, name: &str, requires: &[u32]) -> Item {
        let mut item = Item::new(id(oid), kind, section, Some("s"), name);
        item.requires = requires.iter().map(|oid| id(*oid)).collect();
        item
    }

    fn sorted(items: Vec<Item>) -> Result<Plan> {
        let (database, options, separate) = (Database::default(), Options::default(), BTreeSet::new());
        let context =
            Context { database: &database, options: &options, target_version: 180_000, separate: &separate };
        let mut plan = Plan { items, ..Plan::default() };
        let repairs = sort(&context, &mut plan)?;
        assert!(repairs.is_empty(), "{repairs:?}");
        Ok(plan)
    }

    #[test]
    fn kinds_and_names_decide_where_nothing_depends() {
        let plan = sorted(vec![
            item(1, "TABLE", Section::PreData, "a", &[]),
            item(2, "FUNCTION", Section::PreData, "z", &[]),
            item(3, "FUNCTION", Section::PreData, "y", &[]),
            item(4, "SCHEMA", Section::PostData, "s", &[]),
        ]);
        let names: Vec<_> = plan.unwrap().items.into_iter().map(|i| i.name).collect();
        assert_eq!(names, ["y", "z", "a", "s"]);
    }

    #[test]
    fn an_item_comes_after_what_it_needs_and_says_so() {
        let plan = sorted(vec![
            item(1, "FUNCTION", Section::PreData, "a", &[2]),
            item(2, "TABLE", Section::PreData, "t", &[]),
        ])
        .unwrap();
        assert_eq!(plan.items[0].name, "t");
        assert_eq!(plan.needs, [vec![], vec![0]]);
    }

    #[test]
    fn what_needs_post_data_moves_there_with_all_that_needs_it() {
        let plan = sorted(vec![
            item(1, "FUNCTION", Section::PreData, "f", &[2]),
            item(2, "FUNCTION", Section::PreData, "g", &[3]),
            item(3, "CONSTRAINT", Section::PostData, "key", &[]),
        ])
        .unwrap();
        let order: Vec<_> = plan.items.iter().map(|i| (i.name.as_str(), i.section)).collect();
        assert_eq!(order, [("key", Section::PostData), ("g", Section::PostData), ("f", Section::PostData)]);
    }

    #[test]
    fn a_loop_that_no_repair_breaks_names_its_objects() {
        let error = sorted(vec![
            item(1, "FUNCTION", Section::PreData, "one", &[2]),
            item(2, "FUNCTION", Section::PreData, "two", &[3]),
            item(3, "FUNCTION", Section::PreData, "three", &[1]),
            item(4, "FUNCTION", Section::PreData, "outside", &[1]),
        ])
        .unwrap_err();
        assert_eq!(
            error.detail(),
            Some("The loop is made of FUNCTION s.one, FUNCTION s.three, FUNCTION s.two.")
        );
    }
}

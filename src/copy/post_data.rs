//! Which post-data item may run now: indexes, constraints and what follows them, as their tables become complete.
//!
//! In: items in an order that one session could follow, what each needs, and the tables whose rows are complete. Out: work for many sessions at once. Pure:
//! workers ask [`PostData::take`], and report [`PostData::finish`].

use std::collections::{HashMap, HashSet};

use crate::ddl::Item;

/// The post-data items of a run and how far they are.
#[derive(Debug, Default)]
pub struct PostData {
    items: Vec<Entry>,
    incomplete: HashSet<u32>,
    /// How many items that aren't cheap may be in the making at once.
    most_dear: usize,
    /// How many are.
    dear: usize,
}

#[derive(Debug)]
struct Entry {
    item: Item,
    /// Tables with rows that must be complete before: partitioned tables stand for their leaves.
    tables: Vec<u32>,
    /// Positions of earlier items that must be made before.
    after: Vec<usize>,
    /// Rough cost, in bytes of table: the largest are begun first.
    cost: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Taken,
    Made,
}

/// Items that read no more than this of a table share a transaction.
const CHEAP: u64 = 1024 * 1024;

/// How many cheap items one worker takes at a time.
const CHEAP_BATCH: usize = 50;

/// What a worker is to do.
#[derive(Debug)]
pub enum Work {
    /// Make these items (by position), in this order.
    Make(Vec<usize>),
    /// Nothing can be begun before another worker has finished something.
    Wait,
    /// Everything is made.
    Done,
}

impl PostData {
    /// At most `most_dear` items that read much are given out at once. `needs` has for each item the positions of those that must be made before; `leaves` names the tables with rows below each partitioned table; `sizes` are the bytes of tables; tables in
    /// `incomplete` still lack rows.
    pub fn new(
        items: Vec<Item>,
        needs: Vec<Vec<usize>>,
        leaves: &HashMap<u32, Vec<u32>>,
        sizes: &HashMap<u32, u64>,
        incomplete: HashSet<u32>,
        most_dear: usize,
    ) -> PostData {
        let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
        // For each table, the items so far that touch it.
        let mut touching: HashMap<u32, Vec<usize>> = HashMap::new();
        for (position, (item, mut after)) in items.into_iter().zip(needs).enumerate() {
            for table in &item.tables {
                let earlier = touching.entry(*table).or_default();
                // Builds of plain indexes share a table; everything else locks it against the others.
                after.extend(earlier.iter().filter(|&&p| !(is_index(&item) && is_index(&entries[p].item))));
                earlier.push(position);
            }
            after.sort_unstable();
            after.dedup();
            let mut tables: Vec<u32> = item
                .tables
                .iter()
                .flat_map(|table| leaves.get(table).cloned().unwrap_or_else(|| vec![*table]))
                .collect();
            tables.sort_unstable();
            tables.dedup();
            let reads_rows = is_index(&item) || item.kind.contains("CONSTRAINT");
            let size = |table: &u32| sizes.get(table).copied().unwrap_or(0);
            let cost = if reads_rows { item.tables.iter().map(size).max().unwrap_or(0) } else { 0 };
            entries.push(Entry { item, tables, after, cost, state: State::Waiting });
        }
        PostData { items: entries, incomplete, most_dear, dear: 0 }
    }

    /// Every row of `table` is there.
    pub fn complete(&mut self, table: u32) {
        self.incomplete.remove(&table);
    }

    /// The next work: the most expensive item that may begin, or a batch of cheap ones.
    pub fn take(&mut self) -> Work {
        let ready: Vec<usize> = (0..self.items.len()).filter(|&p| self.is_ready(p)).collect();
        let dearest = ready.iter().copied().filter(|&p| self.is_dear(p));
        let dearest = dearest.max_by_key(|&p| (self.items[p].cost, std::cmp::Reverse(p)));
        let taken: Vec<usize> = match dearest {
            Some(dearest) if self.dear < self.most_dear => {
                self.dear += 1;
                vec![dearest]
            }
            _ => ready.into_iter().filter(|&p| !self.is_dear(p)).take(CHEAP_BATCH).collect(),
        };
        if taken.is_empty() {
            let done = self.items.iter().all(|entry| entry.state == State::Made);
            return if done { Work::Done } else { Work::Wait };
        }
        for &position in &taken {
            self.items[position].state = State::Taken;
        }
        Work::Make(taken)
    }

    fn is_dear(&self, position: usize) -> bool {
        self.items[position].cost > CHEAP
    }

    fn is_ready(&self, position: usize) -> bool {
        let entry = &self.items[position];
        entry.state == State::Waiting
            && entry.tables.iter().all(|table| !self.incomplete.contains(table))
            && entry.after.iter().all(|&earlier| self.items[earlier].state == State::Made)
    }

    /// The item at a position.
    pub fn item(&self, position: usize) -> &Item {
        &self.items[position].item
    }

    /// The items at these positions have not been begun after all.
    pub fn give_back(&mut self, positions: &[usize]) {
        for &position in positions {
            self.items[position].state = State::Waiting;
            self.dear -= usize::from(self.is_dear(position));
        }
    }

    /// The items at these positions have been made, or recorded as failed.
    pub fn finish(&mut self, positions: &[usize]) {
        for &position in positions {
            self.items[position].state = State::Made;
            self.dear -= usize::from(self.is_dear(position));
        }
    }
}

fn is_index(item: &Item) -> bool {
    item.kind == "INDEX"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddl::Section;
    use crate::schema::{Class, ObjectId};

    fn item(kind: &'static str, name: &str, tables: &[u32]) -> Item {
        Item {
            id: ObjectId::new(Class::Relation, 0),
            kind,
            schema: None,
            name: name.to_owned(),
            owner: None,
            section: Section::PostData,
            provides: Vec::new(),
            requires: Vec::new(),
            tables: tables.to_vec(),
            create: Vec::new(),
            decorate: Vec::new(),
            secret: false,
        }
    }

    fn taken(work: Work) -> Vec<usize> {
        match work {
            Work::Make(positions) => positions,
            Work::Wait | Work::Done => Vec::new(),
        }
    }

    #[test]
    fn items_wait_for_their_tables_and_for_each_other() {
        let items = vec![
            item("INDEX", "a1", &[1]),
            item("INDEX", "a2", &[1]),
            item("CONSTRAINT", "b pkey", &[2]),
            item("FK CONSTRAINT", "a b", &[1, 2]),
            item("VIEW", "late", &[]),
        ];
        let big = HashMap::from([(1, CHEAP * 3), (2, CHEAP * 2)]);
        let needs = vec![vec![], vec![], vec![], vec![2], vec![2]];
        let mut post = PostData::new(items, needs, &HashMap::new(), &big, HashSet::from([1, 2]), 3);
        assert!(matches!(post.take(), Work::Wait));
        post.complete(1);
        assert_eq!(taken(post.take()), [0]);
        assert_eq!(taken(post.take()), [1], "plain indexes of one table are built side by side");
        assert!(matches!(post.take(), Work::Wait));
        post.complete(2);
        assert_eq!(taken(post.take()), [2]);
        post.finish(&[0, 1]);
        assert!(matches!(post.take(), Work::Wait), "the foreign key waits for the primary key");
        post.finish(&[2]);
        assert_eq!(taken(post.take()), [3]);
        assert_eq!(taken(post.take()), [4], "a view waits for the key that it needs, and for nothing else");
        post.finish(&[3, 4]);
        assert!(matches!(post.take(), Work::Done));
    }

    #[test]
    fn a_partitioned_table_is_complete_when_its_leaves_are() {
        let leaves = HashMap::from([(1, vec![2, 3])]);
        let mut post = PostData::new(
            vec![item("INDEX", "i", &[1])],
            vec![vec![]],
            &leaves,
            &HashMap::new(),
            HashSet::from([2, 3]),
            1,
        );
        post.complete(2);
        assert!(matches!(post.take(), Work::Wait));
        post.complete(3);
        assert_eq!(taken(post.take()), [0]);
    }

    #[test]
    fn more_sessions_than_may_build_large_indexes_get_what_is_cheap() {
        let items = vec![item("INDEX", "a", &[1]), item("INDEX", "b", &[2]), item("TRIGGER", "t", &[3])];
        let big = HashMap::from([(1, CHEAP * 3), (2, CHEAP * 2)]);
        let mut post = PostData::new(items, vec![Vec::new(); 3], &HashMap::new(), &big, HashSet::new(), 1);
        assert_eq!(taken(post.take()), [0]);
        assert_eq!(taken(post.take()), [2]);
        assert!(matches!(post.take(), Work::Wait));
        post.finish(&[0]);
        assert_eq!(taken(post.take()), [1]);
        post.give_back(&[1]);
        assert_eq!(taken(post.take()), [1]);
        post.finish(&[1, 2]);
        assert!(matches!(post.take(), Work::Done));
    }

    #[test]
    fn cheap_items_are_taken_together() {
        let items = (0..60).map(|n| item("TRIGGER", "t", &[n])).collect::<Vec<_>>();
        let needs = vec![Vec::new(); 60];
        let mut post = PostData::new(items, needs, &HashMap::new(), &HashMap::new(), HashSet::new(), 1);
        assert_eq!(taken(post.take()).len(), CHEAP_BATCH);
        assert_eq!(taken(post.take()).len(), 10);
    }
}

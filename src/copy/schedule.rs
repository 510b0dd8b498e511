//! Which item may be made now: what needs another one after it, indexes and constraints as their tables become complete.
//!
//! In: items in an order that one session could follow, what each needs, and the tables whose rows are complete. Out: work for many sessions at once. Pure:
//! workers ask [`Schedule::take`], and report [`Schedule::finish`].

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ddl::Item;

/// The items of a run that several sessions make, and how far they are.
#[derive(Debug, Default)]
pub struct Schedule {
    items: Vec<Entry>,
    /// Positions of cheap items that may begin.
    cheap: BTreeSet<usize>,
    /// Costs and positions of the others that may.
    dear: BTreeSet<(u64, Reverse<usize>)>,
    /// Positions of the items that wait for the rows of a table.
    incomplete: HashMap<u32, Vec<usize>>,
    /// How many cheap items one session takes at a time.
    batch: usize,
    /// How many items that aren't cheap may be in the making at once.
    most_dear: usize,
    /// How many are.
    dear_taken: usize,
    /// Items in the making.
    taken: usize,
}

#[derive(Debug)]
struct Entry {
    item: Item,
    /// How many items and tables it still waits for.
    waits_for: usize,
    /// Positions of later items that wait for it.
    awaited_by: Vec<usize>,
    /// Rough cost, in bytes of table: the largest are begun first.
    cost: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Taken,
    Made,
    /// Left to another pass, and all that needs it with it.
    SetAside,
}

/// Items that read no more than this of a table share a transaction.
const CHEAP: u64 = 1024 * 1024;

/// How many items of post-data share one.
const POST_DATA_BATCH: usize = 50;

/// Tables as post-data sees them.
#[derive(Debug, Default)]
pub struct Tables<'a> {
    /// The tables with rows below each partitioned table.
    pub leaves: HashMap<u32, Vec<u32>>,
    /// Their bytes.
    pub sizes: HashMap<u32, u64>,
    /// Those that still lack rows.
    pub incomplete: &'a [u32],
}

/// What a worker is to do.
#[derive(Debug)]
pub enum Work {
    /// Make these items (by position), in this order.
    Make(Vec<usize>),
    /// Nothing can be begun before another worker has finished something.
    Wait,
    /// Everything is made, or set aside.
    Done,
}

impl Schedule {
    /// Items that read no rows, `batch` of them at a time. `needs` has for each item the positions of those that must be made before.
    pub fn new(items: Vec<Item>, needs: Vec<Vec<usize>>, batch: usize) -> Schedule {
        let nothing = |_: &Item| (0, Vec::new());
        Schedule::with(items, needs, nothing, batch, usize::MAX)
    }

    /// Items of post-data: each waits for the rows of its tables, and for the items before it that lock one of them. At most `most_dear` items that
    /// read much are given out at once.
    pub fn post_data(
        items: Vec<Item>,
        mut needs: Vec<Vec<usize>>,
        tables: &Tables<'_>,
        most_dear: usize,
    ) -> Schedule {
        // For each table, the items so far that touch it.
        let mut touching: HashMap<u32, Vec<usize>> = HashMap::new();
        for (position, item) in items.iter().enumerate() {
            for table in &item.tables {
                let earlier = touching.entry(*table).or_default();
                // Builds of plain indexes share a table; everything else locks it against the others.
                needs[position].extend(earlier.iter().filter(|&&p| !(is_index(item) && is_index(&items[p]))));
                earlier.push(position);
            }
        }
        let incomplete: HashSet<u32> = tables.incomplete.iter().copied().collect();
        let rows = |item: &Item| {
            let leaves = |table: &u32| tables.leaves.get(table).cloned().unwrap_or_else(|| vec![*table]);
            let mut lacking: Vec<u32> =
                item.tables.iter().flat_map(leaves).filter(|table| incomplete.contains(table)).collect();
            lacking.sort_unstable();
            lacking.dedup();
            let size = |table: &u32| tables.sizes.get(table).copied().unwrap_or(0);
            let reads_rows = is_index(item) || item.kind.contains("CONSTRAINT");
            (if reads_rows { item.tables.iter().map(size).max().unwrap_or(0) } else { 0 }, lacking)
        };
        Schedule::with(items, needs, rows, POST_DATA_BATCH, most_dear)
    }

    /// `rows` gives an item's cost, and the tables that it waits for.
    fn with(
        items: Vec<Item>,
        needs: Vec<Vec<usize>>,
        rows: impl Fn(&Item) -> (u64, Vec<u32>),
        batch: usize,
        most_dear: usize,
    ) -> Schedule {
        let mut schedule = Schedule { batch, most_dear, ..Schedule::default() };
        for (position, (item, mut needs)) in items.into_iter().zip(needs).enumerate() {
            needs.sort_unstable();
            needs.dedup();
            let (cost, lacking) = rows(&item);
            let waits_for = needs.len() + lacking.len();
            for need in needs {
                schedule.items[need].awaited_by.push(position);
            }
            for table in lacking {
                schedule.incomplete.entry(table).or_default().push(position);
            }
            let state = State::Waiting;
            schedule.items.push(Entry { item, waits_for, awaited_by: Vec::new(), cost, state });
            schedule.offer(position);
        }
        schedule
    }

    /// Every row of `table` is there.
    pub fn complete(&mut self, table: u32) {
        for position in self.incomplete.remove(&table).unwrap_or_default() {
            self.meet(position);
        }
    }

    /// The next work: the most expensive item that may begin, or a batch of cheap ones.
    pub fn take(&mut self) -> Work {
        let taken = match self.dear.last() {
            Some(&(_, Reverse(position))) if self.dear_taken < self.most_dear => {
                self.dear.pop_last();
                self.dear_taken += 1;
                vec![position]
            }
            _ => self.take_cheap(),
        };
        if taken.is_empty() {
            // What waits after the last one was finished waits for what is set aside.
            let more = self.taken > 0 || !self.incomplete.is_empty();
            return if more { Work::Wait } else { Work::Done };
        }
        for &position in &taken {
            self.items[position].state = State::Taken;
        }
        self.taken += taken.len();
        Work::Make(taken)
    }

    /// The first cheap items; one that waits for items of this batch only goes along behind them.
    fn take_cheap(&mut self) -> Vec<usize> {
        let mut taken = Vec::new();
        let mut met = HashMap::<usize, usize>::new();
        while taken.len() < self.batch
            && let Some(position) = self.cheap.pop_first()
        {
            taken.push(position);
            for &later in &self.items[position].awaited_by {
                let met = met.entry(later).or_default();
                *met += 1;
                if *met == self.items[later].waits_for && !self.is_dear(later) {
                    self.cheap.insert(later);
                }
            }
        }
        for (&position, _) in met.iter().filter(|(position, _)| self.items[**position].waits_for > 0) {
            self.cheap.remove(&position);
        }
        taken
    }

    /// The item at a position.
    pub fn item(&self, position: usize) -> &Item {
        &self.items[position].item
    }

    /// The items at these positions have not been begun after all.
    pub fn give_back(&mut self, positions: &[usize]) {
        for &position in positions {
            self.leave(position, State::Waiting);
            self.offer(position);
        }
    }

    /// The items at these positions have been made, or recorded as failed.
    pub fn finish(&mut self, positions: &[usize]) {
        for &position in positions {
            self.leave(position, State::Made);
            for later in std::mem::take(&mut self.items[position].awaited_by) {
                self.meet(later);
            }
        }
    }

    /// The item is not made in this pass, nor is what needs it.
    pub fn set_aside(&mut self, position: usize) {
        self.leave(position, State::SetAside);
    }

    /// Positions of the items that are not made.
    pub fn left(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.items.len()).filter(|&position| self.items[position].state != State::Made)
    }

    fn leave(&mut self, position: usize, state: State) {
        self.items[position].state = state;
        self.taken -= 1;
        self.dear_taken -= usize::from(self.is_dear(position));
    }

    /// One thing that the item waits for is there.
    fn meet(&mut self, position: usize) {
        self.items[position].waits_for -= 1;
        self.offer(position);
    }

    /// Lets the item be taken, if it waits for nothing.
    fn offer(&mut self, position: usize) {
        let entry = &self.items[position];
        if entry.state != State::Waiting || entry.waits_for > 0 {
            return;
        }
        if self.is_dear(position) {
            self.dear.insert((entry.cost, Reverse(position)));
        } else {
            self.cheap.insert(position);
        }
    }

    fn is_dear(&self, position: usize) -> bool {
        self.items[position].cost > CHEAP
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
        let tables = Tables { sizes: big, incomplete: &[1, 2], ..Tables::default() };
        let mut post = Schedule::post_data(items, needs, &tables, 3);
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
        let tables = Tables { leaves, incomplete: &[2, 3], ..Tables::default() };
        let mut post = Schedule::post_data(vec![item("INDEX", "i", &[1])], vec![vec![]], &tables, 1);
        post.complete(2);
        assert!(matches!(post.take(), Work::Wait));
        post.complete(3);
        assert_eq!(taken(post.take()), [0]);
    }

    #[test]
    fn more_sessions_than_may_build_large_indexes_get_what_is_cheap() {
        let items = vec![item("INDEX", "a", &[1]), item("INDEX", "b", &[2]), item("TRIGGER", "t", &[3])];
        let big = HashMap::from([(1, CHEAP * 3), (2, CHEAP * 2)]);
        let tables = Tables { sizes: big, ..Tables::default() };
        let mut post = Schedule::post_data(items, vec![Vec::new(); 3], &tables, 1);
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
        let mut post = Schedule::post_data(items, vec![Vec::new(); 60], &Tables::default(), 1);
        assert_eq!(taken(post.take()).len(), POST_DATA_BATCH);
        assert_eq!(taken(post.take()).len(), 10);
    }

    #[test]
    fn what_needs_only_items_of_the_same_batch_goes_along_behind_them() {
        let items = (0..5).map(|_| item("VIEW", "v", &[])).collect::<Vec<_>>();
        let needs = vec![vec![], vec![], vec![0], vec![1, 2], vec![3]];
        let mut schedule = Schedule::new(items.clone(), needs.clone(), 4);
        assert_eq!(taken(schedule.take()), [0, 1, 2, 3]);
        assert!(matches!(schedule.take(), Work::Wait), "the last one needs what another session makes");
        schedule.finish(&[0, 1, 2, 3]);
        assert_eq!(taken(schedule.take()), [4]);

        let mut schedule = Schedule::new(items, needs, 1);
        assert_eq!(taken(schedule.take()), [0]);
        assert_eq!(taken(schedule.take()), [1], "what the batch has no room for waits until it is finished");
        assert!(matches!(schedule.take(), Work::Wait));
    }

    #[test]
    fn what_is_set_aside_is_left_with_all_that_needs_it() {
        let items = (0..4).map(|_| item("VIEW", "v", &[])).collect::<Vec<_>>();
        let mut schedule = Schedule::new(items, vec![vec![], vec![0], vec![], vec![1]], 10);
        assert_eq!(taken(schedule.take()), [0, 1, 2, 3]);
        schedule.set_aside(0);
        schedule.give_back(&[1, 2, 3]);
        assert_eq!(taken(schedule.take()), [2]);
        schedule.finish(&[2]);
        assert!(matches!(schedule.take(), Work::Done));
        assert_eq!(schedule.left().collect::<Vec<_>>(), [0, 1, 3]);
    }
}

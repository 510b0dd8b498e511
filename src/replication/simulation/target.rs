//! The simulated target: tables and a checkpoint, transactions, and what a crash leaves of them.
//!
//! One transaction at a time writes; others wait for it. A commit is visible at once, and durable with the next one that waits for the disk, or
//! when the server writes its log of its own accord. Each commit is looked at: the tables must be what the source held at the
//! checkpoint that was committed with them.

use pgstream_proto::lsn::Lsn;

use super::model::{self, Digests, NOTES, REGIONS, Row, TABLES, Value, region_of};
use super::statement::Found;

#[derive(Debug)]
pub(super) struct Target {
    pub(super) rows: Vec<Vec<Row>>,
    digests: Digests,
    /// As the transaction that writes sees it.
    pub(super) checkpoint: Lsn,
    pub(super) committed_checkpoint: Lsn,
    /// The key of the checkpoint's row, and what is committed of it.
    generation: i64,
    pub(super) committed_generation: i64,
    pub(super) durable_checkpoint: Lsn,
    /// The positions that the regions were copied at.
    pub(super) snapshots: [Lsn; REGIONS],
    /// The session that writes, and what takes back what it did, in order.
    writer: Option<usize>,
    undo: Vec<Undo>,
    /// The same of each commit that would not survive a crash.
    not_durable: Vec<Vec<Undo>>,
}

#[derive(Debug)]
enum Undo {
    Inserted(usize, Row),
    Removed(usize, Row),
    Checkpoint(Lsn, i64),
    Noted(u64),
}

/// Advisory locks: who has each, and whether it is shared.
#[derive(Debug, Default)]
pub(super) struct Locks(Vec<(i64, usize, bool)>);

impl Locks {
    pub(super) fn take(&mut self, key: i64, session: usize, shared: bool) -> bool {
        let in_the_way =
            |held: &&(i64, usize, bool)| held.0 == key && held.1 != session && !(held.2 && shared);
        let free = !self.0.iter().any(|held| in_the_way(&held));
        if free {
            self.0.push((key, session, shared));
        }
        free
    }

    pub(super) fn release(&mut self, key: i64, session: usize) {
        self.0.retain(|held| (held.0, held.1) != (key, session));
    }

    pub(super) fn release_all(&mut self, session: usize) {
        self.0.retain(|held| held.1 != session);
    }

    pub(super) fn holders(&self, key: i64) -> impl Iterator<Item = usize> {
        self.0.iter().filter(move |held| held.0 == key).map(|held| held.1)
    }
}

/// An error of the server: SQLSTATE and message.
pub(super) type Refused = (&'static str, &'static str);

impl Target {
    pub(super) fn new(checkpoint: Lsn) -> Target {
        Target {
            rows: vec![Vec::new(); TABLES.len()],
            digests: Digests::default(),
            checkpoint,
            committed_checkpoint: checkpoint,
            generation: 0,
            committed_generation: 0,
            durable_checkpoint: checkpoint,
            snapshots: [checkpoint; REGIONS],
            writer: None,
            undo: Vec::new(),
            not_durable: Vec::new(),
        }
    }

    /// Rows that a copy has brought.
    pub(super) fn load(&mut self, table: usize, rows: Vec<Row>) {
        for row in rows {
            self.put(table, row);
        }
        self.undo.clear();
    }

    pub(super) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Takes the right to write for a session; false while another has it.
    pub(super) fn may_write(&mut self, session: usize) -> bool {
        *self.writer.get_or_insert(session) == session
    }

    /// Commits what the session did, if it did anything. With `wait`, it and all before it are durable.
    pub(super) fn commit(&mut self, session: usize, wait: bool) -> bool {
        if self.writer != Some(session) {
            return false;
        }
        self.writer = None;
        self.not_durable.push(std::mem::take(&mut self.undo));
        self.keep_checkpoint();
        if wait {
            self.write_log();
        }
        true
    }

    /// Takes back what the session did.
    pub(super) fn roll_back(&mut self, session: usize) {
        if self.writer == Some(session) {
            self.writer = None;
            let undo = std::mem::take(&mut self.undo);
            self.take_back(undo);
        }
    }

    /// Every commit so far survives a crash from here on.
    pub(super) fn write_log(&mut self) {
        self.not_durable.clear();
        self.durable_checkpoint = self.committed_checkpoint;
    }

    /// What is not durable is lost.
    pub(super) fn crash(&mut self) {
        self.writer = None;
        let undo = std::mem::take(&mut self.undo);
        self.take_back(undo);
        while let Some(undo) = self.not_durable.pop() {
            self.take_back(undo);
        }
        self.keep_checkpoint();
    }

    fn keep_checkpoint(&mut self) {
        (self.committed_checkpoint, self.committed_generation) = (self.checkpoint, self.generation);
    }

    fn take_back(&mut self, undo: Vec<Undo>) {
        for step in undo.into_iter().rev() {
            match step {
                Undo::Checkpoint(lsn, generation) => (self.checkpoint, self.generation) = (lsn, generation),
                Undo::Noted(note) => self.digests[NOTES] = self.digests[NOTES].wrapping_sub(note),
                Undo::Removed(table, row) => self.add(table, row),
                Undo::Inserted(table, row) => {
                    let at = self.rows[table].iter().rposition(|other| *other == row);
                    let at = at.expect("what was inserted is there");
                    self.subtract(table, at);
                }
            }
        }
    }

    fn add(&mut self, table: usize, row: Row) {
        let digest = &mut self.digests[region_of(table, &row)];
        *digest = digest.wrapping_add(model::hash(&row));
        self.rows[table].push(row);
    }

    fn subtract(&mut self, table: usize, at: usize) -> Row {
        let row = self.rows[table].swap_remove(at);
        let digest = &mut self.digests[region_of(table, &row)];
        *digest = digest.wrapping_sub(model::hash(&row));
        row
    }

    fn put(&mut self, table: usize, row: Row) {
        self.undo.push(Undo::Inserted(table, row.clone()));
        self.add(table, row);
    }

    fn take(&mut self, table: usize, at: usize) -> Row {
        let row = self.subtract(table, at);
        self.undo.push(Undo::Removed(table, row.clone()));
        row
    }

    /// The trigger of a table acts.
    fn note(&mut self, note: u64) {
        self.undo.push(Undo::Noted(note));
        self.digests[NOTES] = self.digests[NOTES].wrapping_add(note);
    }

    /// Adds a row, unless a unique index objects.
    pub(super) fn insert(&mut self, table: usize, row: Row) -> Result<(), Refused> {
        self.note(model::note(table, None, Some(&row)));
        self.put_unique(table, row)
    }

    fn put_unique(&mut self, table: usize, row: Row) -> Result<(), Refused> {
        let unique = |column: usize| self.rows[table].iter().any(|other| other[column] == row[column]);
        let clash = (TABLES[table].keyed && unique(0)) || TABLES[table].unique.is_some_and(unique);
        if clash {
            return Err(("23505", "duplicate key value violates unique constraint"));
        }
        self.put(table, row);
        Ok(())
    }

    /// The places of the rows that are found, from the last to the first.
    pub(super) fn find(&self, table: usize, row: &Found, value: impl Fn(usize) -> Value) -> Vec<usize> {
        let equal: Vec<(usize, Value)> = row.equal.iter().map(|&(column, n)| (column, value(n))).collect();
        let fits = |candidate: &Row| {
            equal.iter().all(|(column, value)| value.is_some() && candidate[*column] == *value)
                && row.null.iter().all(|&column| candidate[column].is_none())
        };
        let places = (0..self.rows[table].len()).rev().filter(|&at| fits(&self.rows[table][at]));
        places.take(if row.any_one { 1 } else { usize::MAX }).collect()
    }

    pub(super) fn update(
        &mut self,
        table: usize,
        at: usize,
        set: impl IntoIterator<Item = (usize, Value)>,
    ) -> Result<(), Refused> {
        let old = self.take(table, at);
        let mut new = old.clone();
        for (column, value) in set {
            new[column] = value;
        }
        self.note(model::note(table, Some(&old), Some(&new)));
        self.put_unique(table, new)
    }

    pub(super) fn delete(&mut self, table: usize, at: usize) {
        let old = self.take(table, at);
        self.note(model::note(table, Some(&old), None));
    }

    /// Removes rows without a word to triggers, as TRUNCATE does.
    pub(super) fn delete_where(&mut self, table: usize, goes: impl Fn(&Row) -> bool) {
        for at in (0..self.rows[table].len()).rev() {
            if goes(&self.rows[table][at]) {
                self.take(table, at);
            }
        }
    }

    /// Moves the checkpoint and gives its row another key, from where the session believes it to be if that is looked at.
    pub(super) fn advance(&mut self, from: Option<(Lsn, i64)>, to: (Lsn, i64)) -> Result<(), Refused> {
        let now = (self.checkpoint, self.generation);
        if from.is_some_and(|from| from != now) {
            return Err(("22012", "division by zero"));
        }
        self.undo.push(Undo::Checkpoint(now.0, now.1));
        (self.checkpoint, self.generation) = to;
        Ok(())
    }
}

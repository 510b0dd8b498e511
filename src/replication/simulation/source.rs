//! The simulated source: an application that writes, the log that it leaves, and the slot that remembers how far the log was confirmed.
//!
//! Several writers have transactions open at the same time, each on keys of its own, so that what commits is what the source would let commit. The log is
//! kept whole; that confirmed parts of it are never needed again is what the slot makes sure of, which does not go back before the position
//! that was confirmed to it.

use std::sync::Arc;

use pgstream_proto::lsn::Lsn;
use tokio::time::Instant;

use super::model::{
    self, Change, Digests, KEYED, LOUD, NOTES, REGIONS, Row, SPLIT, SPLIT_AT, TABLES, Value, region_of,
    table_of,
};
use super::random::Random;

/// Transactions that may be open at the same time.
pub(super) const WRITERS: usize = 3;

/// A record of the log.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Lsn,
    pub(super) end: Lsn,
    /// When it was written, in microseconds.
    pub(super) time: i64,
    pub(super) record: Record,
}

#[derive(Debug)]
pub(super) enum Record {
    /// A change by the transaction `top`, or its subtransaction `xid`.
    Change {
        top: u32,
        xid: u32,
        change: Arc<Change>,
    },
    /// A subtransaction was rolled back.
    RolledBack {
        top: u32,
        xid: u32,
    },
    Commit {
        top: u32,
    },
    Abort {
        top: u32,
    },
    /// Something that isn't published.
    Other,
}

/// A commit, and what the database holds after it.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) at: Lsn,
    pub(super) end: Lsn,
    pub(super) digests: Digests,
}

/// All rows, by table and by the writer whose keys they have.
pub(super) type Rows = Vec<[Vec<Row>; WRITERS]>;

/// A transaction that is open.
#[derive(Debug)]
struct Open {
    top: u32,
    /// Rows as this transaction sees them. Other writers' are its own too where it has emptied tables.
    rows: Rows,
    /// It has emptied tables: no other transaction is open.
    exclusive: bool,
    /// What triggers would note of it.
    notes: u64,
    /// The subtransaction that is open, and the rows and notes from before it.
    savepoint: Option<(u32, Rows, u64)>,
    left: usize,
}

#[derive(Debug)]
pub(super) struct Source {
    random: Random,
    pub(super) log: Vec<Entry>,
    pub(super) rows: Rows,
    /// What was there before the first commit is the first.
    pub(super) commits: Vec<Committed>,
    open: [Option<Open>; WRITERS],
    next_xid: u32,
    next_value: u64,
    began: Instant,
    /// Up to where the slot was confirmed, and what of that survives a crash.
    pub(super) confirmed: Lsn,
    pub(super) confirmed_on_disk: Lsn,
    /// The last position that was reported as durable, in any stream.
    pub(super) reported: Lsn,
    /// The session that streams from the slot.
    pub(super) streaming: Option<usize>,
}

const START: Lsn = Lsn(0x100_0000);

impl Source {
    pub(super) fn new(mut random: Random) -> Source {
        Source {
            random: random.fork(),
            log: Vec::new(),
            rows: vec![Default::default(); TABLES.len()],
            commits: vec![Committed { at: Lsn(0), end: START, digests: Digests::default() }],
            open: Default::default(),
            next_xid: 700,
            next_value: 0,
            began: Instant::now(),
            confirmed: START,
            confirmed_on_disk: START,
            reported: Lsn::INVALID,
            streaming: None,
        }
    }

    /// Whether the input that the application's choices come from is used up.
    #[cfg(fuzzing)]
    pub(super) fn is_spent(&self) -> bool {
        self.random.is_spent()
    }

    /// The server's clock, in microseconds.
    pub(super) fn now(&self) -> i64 {
        800_000_000_000_000 + self.began.elapsed().as_micros() as i64
    }

    /// Up to where the log is written.
    pub(super) fn end(&self) -> Lsn {
        self.log.last().map_or(START, |entry| entry.end)
    }

    /// The number of commits that end at or before a position, beside the first.
    pub(super) fn commits_until(&self, lsn: Lsn) -> usize {
        self.commits.partition_point(|commit| commit.end <= lsn) - 1
    }

    /// The number of commits that a snapshot at a position sees, beside the first.
    pub(super) fn commits_before(&self, lsn: Lsn) -> usize {
        self.commits.partition_point(|commit| commit.at < lsn) - 1
    }

    /// What a target that is at `checkpoint` must hold, whose regions were copied under snapshots at these positions.
    pub(super) fn expected(&self, checkpoint: Lsn, snapshots: &[Lsn; REGIONS]) -> Digests {
        let applied = self.commits_until(checkpoint);
        let digest = |region: usize, of: usize| {
            let copied = self.commits_before(snapshots[of]);
            (self.commits[applied.max(copied)].digests[region], self.commits[copied].digests[region])
        };
        std::array::from_fn(|region| match region {
            NOTES => {
                // A copy brings none.
                let (all, before) = digest(NOTES, LOUD);
                all.wrapping_sub(before)
            }
            region => digest(region, region).0,
        })
    }

    /// Something happens: a transaction begins, goes on or ends, or something is written that isn't published.
    pub(super) fn step(&mut self) {
        if self.random.once_in(8) {
            self.write(Record::Other);
            return;
        }
        let writer = self.random.below(WRITERS);
        let exclusive = self.open.iter().flatten().any(|open| open.exclusive);
        let Some(open) = &mut self.open[writer] else {
            if !exclusive {
                self.begin(writer);
            }
            return;
        };
        if open.left == 0 {
            self.close(writer);
            return;
        }
        open.left -= 1;
        match self.random.below(12) {
            0 => self.savepoint(writer),
            1 => self.roll_back_to_savepoint(writer),
            2 if self.random.once_in(3) => self.truncate(writer),
            _ => {
                // Some statements change many rows.
                let many = if self.random.once_in(12) { 10 + self.random.below(80) } else { 1 };
                let table = self.random.below(TABLES.len());
                let kind = self.random.below(3);
                for _ in 0..many {
                    let kind = if many > 1 { kind } else { self.random.below(3) };
                    self.change(writer, table, kind);
                }
            }
        }
    }

    /// The server crashes: what was open is rolled back, and the slot is what it was on disk.
    pub(super) fn crash(&mut self) {
        for writer in 0..WRITERS {
            if let Some(open) = self.open[writer].take() {
                self.write(Record::Abort { top: open.top });
            }
        }
        self.confirmed = self.confirmed_on_disk;
        self.streaming = None;
    }

    /// A session has ended, by whatever.
    pub(super) fn session_ended(&mut self, session: usize) {
        if self.streaming == Some(session) {
            self.streaming = None;
        }
    }

    fn write(&mut self, record: Record) -> (Lsn, Lsn) {
        let (at, time) = (self.end(), self.now());
        let end = Lsn(at.0 + 8 * (3 + self.random.below(20) as u64));
        self.log.push(Entry { at, end, time, record });
        (at, end)
    }

    fn xid(&mut self) -> u32 {
        self.next_xid += 1;
        self.next_xid
    }

    fn begin(&mut self, writer: usize) {
        let top = self.xid();
        let left = if self.random.once_in(6) { self.random.below(40) } else { self.random.below(5) };
        self.open[writer] =
            Some(Open { top, rows: self.rows.clone(), exclusive: false, notes: 0, savepoint: None, left });
    }

    fn close(&mut self, writer: usize) {
        let Some(open) = self.open[writer].take() else { return };
        if self.random.once_in(8) {
            self.write(Record::Abort { top: open.top });
            return;
        }
        for (table, rows) in open.rows.into_iter().enumerate() {
            for (owner, rows) in rows.into_iter().enumerate() {
                if open.exclusive || owner == writer {
                    self.rows[table][owner] = rows;
                }
            }
        }
        let (at, end) = self.write(Record::Commit { top: open.top });
        let mut digests = Digests::default();
        let before = self.commits.last().map_or(0, |commit| commit.digests[NOTES]);
        digests[NOTES] = before.wrapping_add(open.notes);
        for (table, rows) in self.rows.iter().enumerate() {
            for row in rows.iter().flatten() {
                let digest = &mut digests[region_of(table, row)];
                *digest = digest.wrapping_add(model::hash(row));
            }
        }
        self.commits.push(Committed { at, end, digests });
    }

    fn savepoint(&mut self, writer: usize) {
        let xid = self.xid();
        if let Some(open) = &mut self.open[writer] {
            open.savepoint = Some((xid, open.rows.clone(), open.notes));
        }
    }

    fn roll_back_to_savepoint(&mut self, writer: usize) {
        let Some(open) = &mut self.open[writer] else { return };
        let Some((xid, rows, notes)) = open.savepoint.take() else { return };
        (open.rows, open.notes) = (rows, notes);
        let top = open.top;
        self.write(Record::RolledBack { top, xid });
    }

    fn log_change(&mut self, writer: usize, change: Change) {
        let Some(open) = &mut self.open[writer] else { return };
        open.notes = open.notes.wrapping_add(change.note());
        let top = open.top;
        let xid = open.savepoint.as_ref().map_or(top, |(xid, ..)| *xid);
        self.write(Record::Change { top, xid, change: Arc::new(change) });
    }

    fn truncate(&mut self, writer: usize) {
        if self.open.iter().flatten().count() != 1 {
            return;
        }
        let tables: Vec<usize> = (0..TABLES.len()).filter(|_| self.random.once_in(4)).collect();
        let Some(open) = self.open[writer].as_mut().filter(|_| !tables.is_empty()) else { return };
        // What the others committed since this transaction began is emptied with the rest.
        for (table, rows) in self.rows.iter().enumerate() {
            for owner in (0..WRITERS).filter(|owner| !open.exclusive && *owner != writer) {
                open.rows[table][owner].clone_from(&rows[owner]);
                if let Some((_, before, _)) = &mut open.savepoint {
                    before[table][owner].clone_from(&rows[owner]);
                }
            }
        }
        open.exclusive = true;
        for &table in &tables {
            open.rows[table] = Default::default();
        }
        self.log_change(writer, Change::Truncate { tables });
    }

    fn value(&mut self) -> Value {
        self.next_value += 1;
        let n = self.next_value;
        match self.random.below(20) {
            0 => None,
            1 => Some(format!("{n}\tone\\two\nthree").into()),
            2 => Some("".into()),
            // Rows without a key may be alike.
            3 => Some("same".into()),
            _ => Some(format!("value {n}").into()),
        }
    }

    /// A key of this writer; those of the table that was copied in parts lie on both sides of the border.
    fn key(&mut self, writer: usize, table: usize) -> i64 {
        let first = if table == SPLIT { SPLIT_AT - 30 } else { 0 };
        first + (self.random.below(25) * WRITERS + writer) as i64
    }

    fn row(&mut self, writer: usize, table: usize) -> Row {
        let key = self.key(writer, table);
        let mut row: Row = vec![Some(key.to_string().into())];
        for column in 1..TABLES[table].columns.len() {
            let value = if TABLES[table].unique == Some(column) {
                Some(self.key(writer, table).to_string().into())
            } else {
                self.value()
            };
            row.push(value);
        }
        row
    }

    /// Inserts, updates or deletes a row, unless the table's indexes object.
    fn change(&mut self, writer: usize, table: usize, kind: usize) {
        let mut new = self.row(writer, table);
        let (chosen, keep_key, keep_large) =
            (self.random.below(1 << 20), !self.random.once_in(4), self.random.once_in(2));
        let Some(open) = &mut self.open[writer] else { return };
        let rows = &mut open.rows[table][writer];
        if kind > 0 && rows.is_empty() {
            return;
        }
        let at = chosen % rows.len().max(1);
        if kind == 1 {
            if keep_key {
                new[0].clone_from(&rows[at][0]);
            }
            if table == KEYED && keep_large {
                new[2].clone_from(&rows[at][2]);
            }
        }
        let clashes = |other: &Row| {
            (TABLES[table].keyed && other[0] == new[0])
                || TABLES[table].unique.is_some_and(|column| other[column] == new[column])
        };
        if kind < 2 && rows.iter().enumerate().any(|(i, row)| !(kind == 1 && i == at) && clashes(row)) {
            return;
        }
        let change = match kind {
            0 => {
                rows.push(new.clone());
                Change::Insert { table, row: new }
            }
            1 => Change::Update { table, old: std::mem::replace(&mut rows[at], new.clone()), new },
            _ => Change::Delete { table, old: rows.swap_remove(at) },
        };
        self.log_change(writer, change);
    }

    /// The rows of a region as they are now.
    pub(super) fn region(&self, region: usize) -> Vec<Row> {
        let table = table_of(region);
        let rows = self.rows[table].iter().flatten();
        rows.filter(|row| region_of(table, row) == region).cloned().collect()
    }
}
